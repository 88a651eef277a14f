"""From a row's statistics to its columns, many rows at a time.

Every column that has one value a row follows from six numbers, all relative to the largest
logit, so that nothing cancels and confident rows keep their digits.
"""

from typing import Any, NamedTuple

import numpy as np

from softmax_dask.kernels.cpu.compile import owning_step, step
from softmax_dask.kernels.cpu.exp2 import Inverse, Scale, anchor, exponential, log1p
from softmax_dask.kernels.cpu.memory import load, store, store_first
from softmax_dask.kernels.cpu.simd import Vector, absolute, fill, fma, lanes, where_equal, where_greater

_LN2 = float(np.log(2))
_FAR = 3e38

Array = Any
"""A one-dimensional array inside compiled code."""


class Outputs(NamedTuple):
    """An array a column; empty where the column is not wanted. Wide ones are flat, (rows * classes,)."""

    label: Array
    confidence: Array
    margin: Array
    entropy: Array
    logsumexp: Array
    max_logit: Array
    nll: Array
    target_probability: Array
    brier: Array
    target_rank: Array
    probabilities: Array
    log_probabilities: Array


class Statistics(NamedTuple):
    """Of several rows, a row a lane. w is the winner: the class of the largest logit, the lowest one on ties."""

    peak: Vector
    """x_w"""
    others: Vector
    """sum of exp((x_k - x_w) / T) over the other classes; NaN where the row is undecidable"""
    second: Vector
    """the largest of these terms"""
    weight: Vector
    """sum of them, each times its log2"""
    squares: Vector
    """sum of their squares; 0 where it is not wanted"""
    target: Vector
    """exp((x_t - x_w) / T) of the target t; NaN without one"""
    gap: Vector
    """x_w - x_t; NaN without a target"""


class Waiting(NamedTuple):
    """Rows that wait to be finished together, an item a row. The sums are relative to the row's anchor."""

    peak: Array
    """largest logit, in the dtype of the arithmetic, as are"""
    second: Array
    """the second largest"""
    target: Array
    """and that of the target, NaN without one"""
    total: Array
    """sum of the exponentials of all classes but the winner, float64 as are"""
    weight: Array
    """their sum, each times its log2,"""
    squares: Array
    """that of their squares, 0 where it is not wanted,"""
    label: Array
    """the winner"""
    rank: Array
    """and the rank of the target, where it is wanted."""
    terms: Array
    """room for exponentials, (4, rows)"""
    statistics: Array
    """and for the items of `Statistics`, (7, rows), float64"""


@owning_step
def room_for(rows: int, dtype: Any) -> Waiting:
    """Room for as many rows as a vector has lanes; no row has a target yet."""
    none = np.full((3, rows), np.nan, dtype)
    sums = np.empty((5, rows))
    terms, statistics = np.empty((4, rows), dtype), np.empty((7, rows))
    return Waiting(none[0], none[1], none[2], sums[0], sums[1], sums[2], sums[3], sums[4], terms, statistics)


@step
def finish_waiting(row: int, count: int, of: Waiting, scale: Scale, inverse: Inverse, out: Outputs) -> None:
    """Fill the columns of rows row..row+count-1 that are wanted, and that have one value a row."""
    _relate(count, of, scale)
    width = lanes(of.statistics)
    for i in range(0, count, width):
        first, rows = row + i, min(width, count - i)
        statistics = Statistics(
            load(of.statistics[0], i),
            load(of.statistics[1], i),
            load(of.statistics[2], i),
            load(of.statistics[3], i),
            load(of.statistics[4], i),
            load(of.statistics[5], i),
            load(of.statistics[6], i),
        )
        others = statistics.others
        if out.label.size:
            store_first(out.label, first, rows, where_equal(others, others, load(of.label, i), -1.0))
        if out.target_rank.size:
            known = statistics.gap + others  # NaN without a target, and where the row is undecidable
            store_first(out.target_rank, first, rows, where_equal(known, known, load(of.rank, i), -1.0))
        finish_rows(first, rows, statistics, inverse, out)


@step
def _relate(count: int, of: Waiting, scale: Scale) -> None:
    """Fill the statistics: what was found, relative to the winner."""
    peak = load(of.peak, 0)
    base = anchor(peak, scale)
    unit, unit_log2 = exponential(peak, base, scale)
    store(of.terms[0], 0, unit)
    store(of.terms[1], 0, unit_log2)
    store(of.terms[2], 0, exponential(load(of.second, 0), base, scale)[0])
    store(of.terms[3], 0, exponential(load(of.target, 0), base, scale)[0])
    for i in range(count):
        one, one_log2 = np.float64(of.terms[0, i]), np.float64(of.terms[1, i])
        of.statistics[0, i] = of.peak[i]
        of.statistics[1, i] = of.total[i] / one
        of.statistics[2, i] = of.terms[2, i] / one
        of.statistics[3, i] = (of.weight[i] - of.total[i] * one_log2) / one
        of.statistics[4, i] = of.squares[i] / (one * one)
        of.statistics[5, i] = of.terms[3, i] / one
        of.statistics[6, i] = np.float64(of.peak[i]) - np.float64(of.target[i])


@step
def finish_rows(row: int, count: int, of: Statistics, inverse: Inverse, out: Outputs) -> None:
    """Fill the columns of rows row..row+count-1 that are wanted."""
    top = fill(of.others, 1.0) / (of.others + 1.0)
    if out.confidence.size:
        store_first(out.confidence, row, count, top)
    if out.margin.size:
        store_first(out.margin, row, count, (fill(top, 1.0) - of.second) * top)
    if out.max_logit.size:
        store_first(out.max_logit, row, count, where_equal(top, top, of.peak, np.nan))
    if out.target_probability.size:
        store_first(out.target_probability, row, count, of.target * top)
    if out.brier.size:
        store_first(out.brier, row, count, _brier(of, top))
    if out.entropy.size or out.logsumexp.size or out.nll.size:
        _finish_logarithms(row, count, of, top, inverse, out)


@step
def _brier(of: Statistics, top: Vector) -> Vector:
    """Sum of the squares of all probabilities but the target's, and of one minus that."""
    short = fill(top, 1.0) - of.target  # of the winner; exactly 0 where it is the target
    missing = of.others + short
    return (of.squares + fma(missing, missing, short * (of.target + 1.0))) * (top * top)


@step
def _finish_logarithms(row: int, count: int, of: Statistics, top: Vector, inverse: Inverse, out: Outputs) -> None:
    log_sum = log1p(of.others)  # logsumexp minus the winner's scaled logit
    if out.entropy.size:
        store_first(out.entropy, row, count, fma(of.weight * top, fill(top, -_LN2), log_sum))
    if out.logsumexp.size:
        store_first(out.logsumexp, row, count, over_temperature(of.peak, inverse, log_sum))
    if out.nll.size:
        store_first(out.nll, row, count, over_temperature(of.gap, inverse, log_sum))


@step
def over_temperature(x: Vector, inverse: Inverse, plus: Vector) -> Vector:
    """x / temperature + plus. No correction where that overflows: it could be inf - inf."""
    product = x * inverse.hi
    corrected = fma(x, inverse.hi, fma(x, inverse.lo, plus))
    return where_greater(absolute(product), _FAR, product + plus, corrected)
