"""Kernels for products with the Jacobian of softmax and of log-softmax, which never form the matrix.

The vector enters as v - v_w, where w is the winner, the class of the largest logit: as s_w goes to 1 nothing
cancels. A row of the vector with NaN or an infinity gives NaN. Vectors run along the row, whatever the number
of classes; logits and vector are read twice, the second time from the cache.
"""

from typing import Any

import numpy as np

from softmax_dask.kernels.cpu.compile import kernel, step
from softmax_dask.kernels.cpu.exp2 import FOLD, Scale, add_exactly, exponential, scale_in
from softmax_dask.kernels.cpu.jacobian import find_winner
from softmax_dask.kernels.cpu.memory import load_first, load_first_or_zeros, prefetch, store_first
from softmax_dask.kernels.cpu.simd import fill, fma, lanes, sum_lanes
from softmax_dask.kernels.cpu.sweeps import sums_of_others

Array = Any
"""A flat array inside compiled code."""


@kernel
def jvp_row(
    logits: Array,
    stride: int,
    vectors: Array,
    vector_stride: int,
    rows: int,
    classes: int,
    constants: Array,
    root: float,
    out: Array,
) -> None:
    """Fill `out`, (rows * classes,), with s * (v - <s, v>) / T."""
    scale = scale_in(constants)
    width = lanes(logits)
    for row in range(rows):
        start, from_vector, place = row * stride, row * vector_stride, row * classes
        total, mean, pivot = _weigh(logits, start, start + classes, vectors, from_vector, scale, out, place)
        factor, means, pivots, roots = fill(out, root / total), fill(out, mean), fill(out, pivot), fill(out, root)
        for k in range(0, classes, width):
            count = min(width, classes - k)
            gap = load_first(vectors, from_vector + k, count) - pivots - means
            share = load_first(out, place + k, count) * factor
            store_first(out, place + k, count, share * (gap * roots))


@kernel
def log_jvp_row(
    logits: Array,
    stride: int,
    vectors: Array,
    vector_stride: int,
    rows: int,
    classes: int,
    constants: Array,
    root: float,
    out: Array,
) -> None:
    """Fill `out`, (rows * classes,), with (v - <s, v>) / T."""
    scale = scale_in(constants)
    width = lanes(logits)
    for row in range(rows):
        start, from_vector, place = row * stride, row * vector_stride, row * classes
        _, mean, pivot = _weigh(logits, start, start + classes, vectors, from_vector, scale, out, place)
        means, pivots, roots = fill(out, mean), fill(out, pivot), fill(out, root)
        for k in range(0, classes, width):
            count = min(width, classes - k)
            gap = load_first(vectors, from_vector + k, count) - pivots - means
            store_first(out, place + k, count, gap * roots * roots)


@kernel
def log_vjp_row(
    logits: Array,
    stride: int,
    vectors: Array,
    vector_stride: int,
    rows: int,
    classes: int,
    constants: Array,
    root: float,
    out: Array,
) -> None:
    """Fill `out`, (rows * classes,), with (g - s * sum(g)) / T."""
    scale = scale_in(constants)
    width = lanes(logits)
    for row in range(rows):
        start, from_vector, place = row * stride, row * vector_stride, row * classes
        stop, end = start + classes, from_vector + classes
        base, winner, unit = find_winner(logits, start, stop, scale)
        others = sums_of_others(logits, start, stop, winner, stop, stop, stride, base, scale, False).total / unit
        hole = from_vector + winner - start
        pivot = np.float64(vectors[hole])
        rest = _sum(vectors, from_vector, hole) + _sum(vectors, hole + 1, end)
        total = _nan_unless_finite(pivot + rest)
        sums, roots = fill(out, total), fill(out, root)
        factor = fill(out, 1.0 / (unit * (1.0 + others)))
        for k in range(0, classes, width):
            count = min(width, classes - k)
            share = exponential(load_first(logits, start + k, count), base, scale)[0] * factor
            gap = load_first(vectors, from_vector + k, count) - share * sums
            store_first(out, place + k, count, gap * roots * roots)
        of_winner = (pivot * others - rest) / (1.0 + others) + (total - total)
        out[place + winner - start] = of_winner * root * root


@step
def _weigh(
    logits: Array, i: int, stop: int, vectors: Array, k: int, scale: Scale, out: Array, place: int
) -> tuple[float, float, float]:
    """Write exponentials e to out[place:]; their sum, the mean of v - v_w under s, and v_w."""
    width = lanes(logits)
    base, winner, _ = find_winner(logits, i, stop, scale)
    pivot = vectors[k + winner - i]
    pivots, zero = fill(out, pivot), fill(out, 0.0)
    total, lost, moment, moment_lost = zero, zero, zero, zero
    while i < stop:
        part, other, part_moment = zero, zero, zero
        end = min(i + FOLD * width, stop)
        while i < end:
            count = min(width, end - i)
            prefetch(logits, i + 16 * width)
            power = exponential(load_first(logits, i, count), base, scale)[0]
            gap = load_first_or_zeros(vectors, k, count) - pivots
            store_first(out, place, count, power)
            part, other, part_moment = other, part + power, fma(power, gap, part_moment)
            i, k, place = i + width, k + width, place + width
        total, lost = add_exactly(total, lost, part + other)
        moment, moment_lost = add_exactly(moment, moment_lost, part_moment)
    whole = sum_lanes(total) + sum_lanes(lost)
    return whole, _nan_unless_finite((sum_lanes(moment) + sum_lanes(moment_lost)) / whole), pivot


@step
def _sum(vectors: Array, i: int, stop: int) -> Any:
    """The sum of v, in float64."""
    width = lanes(vectors)
    total, lost = fill(vectors, 0.0), fill(vectors, 0.0)
    while i < stop:
        total, lost = add_exactly(total, lost, load_first_or_zeros(vectors, i, min(width, stop - i)))
        i += width
    return sum_lanes(total) + sum_lanes(lost)


@step
def _nan_unless_finite(x: Any) -> Any:
    return x + (x - x)
