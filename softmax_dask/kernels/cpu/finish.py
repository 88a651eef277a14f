"""From a row's statistics to its columns, many rows at a time.

Every column that has one value a row follows from six numbers, all relative to the largest
logit, so that nothing cancels and confident rows keep their digits.
"""

from typing import Any, NamedTuple

import numpy as np

from softmax_dask.kernels.cpu.compile import step
from softmax_dask.kernels.cpu.exp2 import Inverse, log1p
from softmax_dask.kernels.cpu.memory import store_first
from softmax_dask.kernels.cpu.simd import Vector, absolute, fill, fma, where_equal, where_greater

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
    target: Vector
    """exp((x_t - x_w) / T) of the target t; NaN without one"""
    gap: Vector
    """x_w - x_t; NaN without a target"""


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
    if out.entropy.size or out.logsumexp.size or out.nll.size:
        _finish_logarithms(row, count, of, top, inverse, out)


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
