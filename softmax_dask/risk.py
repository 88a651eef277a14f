"""Risk against coverage: how often the most confident rows are wrong, and the area under that curve.

From a histogram of confidence. Inside of a bin the order of rows is not known: figures are those of the mean order,
and the bounds are those of the best and the worst one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softmax_dask.kernels.counts import fine_edges

_EULER = 0.5772156649015329
_SMALL = 32
_POINTS = 100

Counters = NDArray[np.int64]
Figures = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Area:
    """The area under the risk-coverage curve: the mean, over the rows, of the risk when all above them are accepted."""

    value: float
    """where rows of a bin come in any order"""
    low: float
    """were the correct ones of each bin more confident than the others"""
    high: float
    """were they less"""

    @property
    def error(self) -> float:
        """By how much `value` may be off, whatever the order is."""
        return max(self.high - self.value, self.value - self.low)


@dataclass(frozen=True, slots=True)
class Curve:
    """Accepting all rows above a confidence; points with falling confidence."""

    confidence: Figures
    """Rows above it are accepted: the lower edge of a bin,"""
    coverage: Figures
    """that share of them,"""
    risk: Figures
    """of which that share is wrong."""


def curve_of(rows: Counters, correct: Counters) -> Curve:
    """The first point of each percent of coverage; `rows` and `correct` are of fine bins."""
    above, right = np.cumsum(rows[::-1]), np.cumsum(correct[::-1])
    if not above[-1]:
        return Curve(*(np.empty(0) for _ in range(3)))
    shares = above / above[-1]
    at = np.unique(np.searchsorted(shares, np.arange(1, _POINTS + 1) / _POINTS))
    return Curve(fine_edges()[len(rows) - 1 - at], shares[at], 1 - right[at] / above[at])


def area_of(rows: Counters, correct: Counters) -> Area:
    """The area under the curve; there must be rows."""
    filled = np.flatnonzero(rows)[::-1]
    n, right = rows[filled].astype(np.float64), correct[filled].astype(np.float64)
    wrong = n - right
    before, wrong_before = np.cumsum(n) - n, np.cumsum(wrong) - wrong
    total = n.sum()
    share = wrong / n
    mean = share * n + (wrong_before - share * before) * _steps(before, n)
    best = wrong_before * _steps(before, right) + _all_wrong(before + right, wrong_before, wrong)
    worst = _all_wrong(before, wrong_before, wrong) + (wrong_before + wrong) * _steps(before + wrong, right)
    return Area(float(mean.sum() / total), float(best.sum() / total), float(worst.sum() / total))


def _all_wrong(before: Figures, wrong_before: Figures, wrong: Figures) -> Figures:
    """Sum over j = 1..wrong of (wrong_before + j) / (before + j)."""
    return wrong + (wrong_before - before) * _steps(before, wrong)


def _steps(start: Figures, count: Figures) -> Figures:
    """Sum over j = 1..count of 1 / (start + j)."""
    return _harmonic_beyond(start + count) - _harmonic_beyond(start) + _logarithm(start, count)


def _logarithm(start: Figures, count: Figures) -> Figures:
    """log((start + count) / start), where `start` is beyond the small ones; else what is needed to get there."""
    low, high = np.maximum(start, _SMALL), np.maximum(start + count, _SMALL)
    return np.log1p((high - low) / low)


def _harmonic_beyond(x: Figures) -> Figures:
    """The harmonic number of x minus the logarithm of max(x, _SMALL): small numbers of x from a table."""
    table = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, _SMALL + 1))]) - np.log(_SMALL)
    n = np.maximum(x, 1.0)
    series = _EULER + 1 / (2 * n) - 1 / (12 * n**2) + 1 / (120 * n**4) - 1 / (252 * n**6)
    return np.where(x <= _SMALL, table[np.minimum(x, _SMALL).astype(np.int64)], series)
