"""Kernels for few classes: as many rows at a time as a register has lanes, a row a lane.

The rows are transposed into a tile, (classes, lanes), that stays in the first-level cache.
All that a row needs (largest logit, anchor, sums, logarithms) is then one vector for many rows,
and nothing is ever reduced across lanes.
"""

from typing import Any

import numpy as np

from softmax_dask.kernels.cpu.compile import kernel, step
from softmax_dask.kernels.cpu.exp2 import (
    FOLD,
    Anchor,
    Inverse,
    Scale,
    add_exactly,
    anchor,
    exponential,
    log1p,
)
from softmax_dask.kernels.cpu.finish import Outputs, Statistics, finish_rows, over_temperature
from softmax_dask.kernels.cpu.memory import (
    load,
    load_columns,
    load_integers,
    prefetch,
    prefetch_to_write,
    store,
    store_columns,
    store_first,
)
from softmax_dask.kernels.cpu.simd import (
    Vector,
    fill,
    fma,
    lanes,
    larger,
    smaller,
    where_equal,
    where_greater,
)

Array = Any
"""A flat array inside compiled code."""

# Logits ahead that are asked for by hand: the hardware's prefetcher does not follow 16 interleaved rows.
_AHEAD = 1024


@kernel
def softmax_tile(logits: Array, stride: int, rows: int, classes: int, scale: Scale, out: Array) -> None:
    """Fill `out`, (rows * classes,), with probabilities; row i of the logits begins at i * stride."""
    width = lanes(logits)
    tile = np.empty((classes + width) * width, out.dtype)
    for row in range(0, rows, width):
        last = min(width, rows - row) - 1
        load_tile(logits, row * stride, stride, last, classes, tile)
        total = _exponentials(tile, classes, anchor(_largest(tile, classes), scale), scale)
        _scale_tile(tile, classes, fill(total, 1.0) / total)
        _store_tile(tile, out, row * classes, classes, last)


@kernel
def decision_tile(
    logits: Array,
    stride: int,
    rows: int,
    classes: int,
    scale: Scale,
    inverse: Inverse,
    targets: Array,
    out: Outputs,
) -> None:
    """Fill the columns that are wanted; `targets` is int64, (rows,), or empty."""
    width = lanes(logits)
    tile = np.empty((classes + width) * width, out.confidence.dtype)
    wide = np.empty((classes + width) * width, out.confidence.dtype)
    for row in range(0, rows, width):
        count = min(width, rows - row)
        last = count - 1
        load_tile(logits, row * stride, stride, last, classes, tile)
        peak, second, label = two_largest(tile, classes)
        base = anchor(peak, scale)
        others, weight = sums_of_others(tile, classes, label, base, scale)
        unit, unit_log2 = exponential(peak, base, scale)
        others, weight = others / unit, (weight - others * unit_log2) / unit
        second = exponential(second, base, scale)[0] / unit
        if out.label.size:
            store_first(out.label, row, count, where_equal(others, others, label, -1.0))
        target, gap = fill(peak, np.nan), fill(peak, np.nan)
        if targets.size:
            number = load_integers(logits, targets, row, last)
            logit = _logit_of(tile, classes, number)
            target, gap = exponential(logit, base, scale)[0] / unit, peak - logit
            if out.target_rank.size:
                known = gap + others  # NaN without a target, and where the row is undecidable
                rank = where_equal(known, known, _rank(tile, classes, number, logit), -1.0)
                store_first(out.target_rank, row, count, rank)
        finish_rows(row, count, Statistics(peak, others, second, weight, target, gap), inverse, out)
        if out.probabilities.size:
            probabilities(tile, wide, classes, base, scale, fill(peak, 1.0) / (unit * (others + 1.0)))
            _store_tile(wide, out.probabilities, row * classes, classes, last)
        if out.log_probabilities.size:
            _log_probabilities(tile, wide, classes, peak, log1p(others), inverse)
            _store_tile(wide, out.log_probabilities, row * classes, classes, last)


@step
def load_tile(logits: Array, start: int, stride: int, last: int, classes: int, tile: Array) -> None:
    """Fill `tile` with the logits of the rows from `start` on, a row a lane."""
    width = lanes(logits)
    for column in range(0, classes, width):
        ahead = start + column * width + _AHEAD
        for line in range(ahead, ahead + width * width, width):
            prefetch(logits, line)
        load_columns(logits, start + column, stride, last, min(width, classes - column), tile, column * width)


@step
def _store_tile(tile: Array, out: Array, start: int, classes: int, last: int) -> None:
    width = lanes(tile)
    for column in range(0, classes, width):
        ahead = start + column * width + _AHEAD
        for line in range(ahead, ahead + width * width, width):
            prefetch_to_write(out, line)
        store_columns(tile, column * width, out, start + column, classes, last, min(width, classes - column))


@step
def _largest(tile: Array, classes: int) -> Vector:
    width = lanes(tile)
    most = fill(tile, -np.inf)
    for k in range(classes):
        most = larger(most, load(tile, k * width))
    return most


@step
def two_largest(tile: Array, classes: int) -> tuple[Vector, Vector, Vector]:
    """Largest and second largest logit (equal on ties), and the lowest class of the largest."""
    width = lanes(tile)
    most = fill(tile, -np.inf)
    second, label = most, fill(tile, 0.0)
    for k in range(classes):
        x = load(tile, k * width)
        label = where_greater(x, most, fill(tile, float(k)), label)
        second = larger(second, smaller(most, x))
        most = larger(most, x)
    return most, second, label


@step
def _exponentials(tile: Array, classes: int, base: Anchor, scale: Scale) -> Vector:
    """Replace the logits of the tile by exponentials; their sums."""
    width = lanes(tile)
    total, lost = fill(tile, 0.0), fill(tile, 0.0)
    for start in range(0, classes, FOLD):
        part = fill(tile, 0.0)
        for k in range(start, min(start + FOLD, classes)):
            power = exponential(load(tile, k * width), base, scale)[0]
            store(tile, k * width, power)
            part = part + power
        total, lost = add_exactly(total, lost, part)
    return total + lost


@step
def sums_of_others(tile: Array, classes: int, label: Vector, base: Anchor, scale: Scale) -> tuple[Vector, Vector]:
    """Sum of the exponentials of all classes but the label's, and of each times its log2."""
    width = lanes(tile)
    zero = fill(tile, 0.0)
    total, lost, weight, weight_lost = zero, zero, zero, zero
    for start in range(0, classes, FOLD):
        part, part_weight = zero, zero
        for k in range(start, min(start + FOLD, classes)):
            power, log2 = exponential(load(tile, k * width), base, scale)
            power = where_equal(label, fill(tile, float(k)), zero, power)
            part = part + power
            part_weight = fma(power, log2, part_weight)
        total, lost = add_exactly(total, lost, part)
        weight, weight_lost = add_exactly(weight, weight_lost, part_weight)
    return total + lost, weight + weight_lost


@step
def _logit_of(tile: Array, classes: int, number: Vector) -> Vector:
    """The logit of each row's target; NaN where it is -1."""
    width = lanes(tile)
    logit = fill(tile, np.nan)
    for k in range(classes):
        logit = where_equal(number, fill(tile, float(k)), load(tile, k * width), logit)
    return logit


@step
def _rank(tile: Array, classes: int, number: Vector, logit: Vector) -> Vector:
    """How many classes come before the target: larger logits, and equal ones of lower classes."""
    width = lanes(tile)
    zero, one = fill(tile, 0.0), fill(tile, 1.0)
    rank = zero
    for k in range(classes):
        x = load(tile, k * width)
        before = where_greater(number, fill(tile, float(k)), one, zero)
        rank = rank + where_greater(x, logit, one, where_equal(x, logit, before, zero))
    return rank


@step
def _scale_tile(tile: Array, classes: int, factor: Vector) -> None:
    width = lanes(tile)
    for k in range(classes):
        store(tile, k * width, load(tile, k * width) * factor)


@step
def probabilities(tile: Array, wide: Array, classes: int, base: Anchor, scale: Scale, factor: Vector) -> None:
    """Fill `wide`, which may be the tile, with exponentials times `factor`."""
    width = lanes(tile)
    for k in range(classes):
        store(wide, k * width, exponential(load(tile, k * width), base, scale)[0] * factor)


@step
def _log_probabilities(tile: Array, wide: Array, classes: int, peak: Vector, log_sum: Vector, inverse: Inverse) -> None:
    width = lanes(tile)
    for k in range(classes):
        gap = load(tile, k * width) - peak
        store(wide, k * width, over_temperature(gap, inverse, 0.0 - log_sum))
