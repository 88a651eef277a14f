"""Finds the temperature of the least NLL from sums alone: of which values of 1/T they are wanted, and what they tell.

The NLL is convex in b = 1/T (Guo et al. 2017, arXiv:1706.04599). The first read takes a grid over all temperatures
that are thinkable, of many rows on a sample that reads a few chunks; the next one Chebyshev nodes around the minimum of
that, on all rows. The polynomial through eight nodes within a factor of 1.35 is the NLL to about 1e-8. Only where its
minimum lies outside, or the sample tells nothing, is there another read.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import Chebyshev

from softmax_dask.errors import CalibrationError
from softmax_dask.nll_sums import NllSums

SAMPLE_ROWS = 1 << 15
"""The temperature of so many, or of the half of them that is in the fit, is within a few per cent of that of all."""
_SAMPLED_FROM = 1 << 18
"""Rows from which on there is a sample: of fewer it would touch most chunks."""
_FEWEST_RUNS, _MOST_RUNS = 16, 64
_ROWS_A_RUN_STANDS_FOR = 1 << 16
_FEWEST_USABLE = SAMPLE_ROWS // 32
"""A sample with fewer usable rows tells nothing: of many dumps a small part has targets."""

_GRID = tuple(2.0**power for power in range(-8, 8))
"""Of 1/T: temperatures from 1/128 to 256."""
_NODES = 8
_WIDTH = 0.3
"""Nodes lie within so much of the logarithm of 1/T."""
_NEAR = 4.0
"""Nodes move away from where they were by at most this much of the width, and widen, until the minimum is inside."""
_MOST_READS = 6
_FINE = 257


@dataclass(frozen=True, slots=True)
class _Nodes:
    """Where the NLL is known around a guess, as a polynomial of the logarithm of 1/T."""

    middle: float
    width: float

    @property
    def places(self) -> tuple[float, ...]:
        angles = (2 * np.arange(_NODES) + 1) * (np.pi / (2 * _NODES))
        return tuple((self.middle + self.width * np.cos(angles)).tolist())

    def lowest(self, losses: tuple[float, ...]) -> float | None:
        """Where the polynomial has its minimum; None if that is not inside."""
        ends = [self.middle - self.width, self.middle + self.width]
        slope = Chebyshev.fit(self.places, losses, _NODES - 1, domain=ends).deriv()
        low, high = slope(ends[0]), slope(ends[1])
        if not low < 0 < high:
            return None
        roots = [complex(root) for root in slope.roots()]
        inside = [root.real for root in roots if abs(root.imag) < 1e-9 and ends[0] <= root.real <= ends[1]]
        return min(inside, key=lambda root: abs(root - self.middle)) if inside else None


def sampled_rows(rows: int) -> tuple[range, ...] | None:
    """Runs of row numbers, each from the middle of an equal part of so many rows; None: few, so take them all.

    They hang on the number of rows alone, not on chunks. Runs, because single rows would touch every chunk.
    """
    if rows < _SAMPLED_FROM:
        return None
    runs = min(_MOST_RUNS, max(_FEWEST_RUNS, rows // _ROWS_A_RUN_STANDS_FOR))
    length = SAMPLE_ROWS // runs
    starts = ((2 * run + 1) * rows // (2 * runs) - length // 2 for run in range(runs))
    return tuple(range(start, start + length) for start in starts)


class TemperatureSearch:
    """Asks for sums, takes them, and asks again, until the temperature is known.

    Parameters
    ----------
    rows : how many there are, in the fit and beside it
    """

    def __init__(self, rows: int) -> None:
        self._nodes: _Nodes | None = None
        self._found: float | None = None
        self.betas = _GRID
        """Values of 1/T that the next read is to try."""
        self.rows = sampled_rows(rows)
        """Which rows it is to go through, by their numbers; None: all."""
        self.reads = 0

    @property
    def is_done(self) -> bool:
        """Whether the temperature is known."""
        return self._found is not None

    @property
    def temperature(self) -> float:
        """The one of the least NLL."""
        assert self._found is not None, "no temperature before the search is done"
        return math.exp(-self._found)

    def take(self, sums: NllSums) -> None:
        """Those that were asked for.

        Raises
        ------
        CalibrationError
            No row can be used, or no temperature has the least NLL.
        """
        self.reads += 1
        if self.rows is not None and not _tells(sums):
            self.rows = None
            return
        losses = sums.means()
        if self._nodes is None:
            self._ask_around(_lowest_of_grid(losses), _WIDTH)
            return
        lowest = self._nodes.lowest(losses)
        if lowest is None:
            self._move(losses)
        elif self._nodes.width > _WIDTH:  # so wide a polynomial says where it is, but not to the last digits
            self._ask_around(lowest, _WIDTH)
        else:
            self._found = lowest

    def _ask_around(self, middle: float, width: float) -> None:
        self._nodes = _Nodes(middle, width)
        self.betas = tuple(math.exp(place) for place in self._nodes.places)
        self.rows = None

    def _move(self, losses: tuple[float, ...]) -> None:
        """The sample was misleading: look on the side where the NLL falls, and wider."""
        assert self._nodes is not None, "nodes before they move"
        if self.reads >= _MOST_READS:
            raise CalibrationError(
                f"no temperature has the least NLL: after {self.reads} reads it still falls at "
                f"{math.exp(-self._nodes.middle):.3g}. Are these the targets of these logits?"
            )
        rises = losses[0] > losses[-1]  # the first node is the largest 1/T
        step = self._nodes.width * (-1.0 if rises else 1.0)
        self._ask_around(self._nodes.middle + step, min(_NEAR * _WIDTH, 2 * self._nodes.width))


def _tells(sums: NllSums) -> bool:
    """Whether a sample has enough rows, and the least NLL inside the grid: what it lacks, all rows may have."""
    if sums.rows < _FEWEST_USABLE:
        return False
    losses = sums.means()
    return min(losses) < min(losses[0], losses[-1])


def _lowest_of_grid(losses: tuple[float, ...]) -> float:
    """About where the minimum lies, as the logarithm of 1/T."""
    best = int(np.argmin(losses))
    if losses[best] == losses[0]:
        raise CalibrationError(
            f"no temperature has the least NLL: it still falls at {1 / _GRID[0]:g}, so the logits tell nothing of "
            "these targets. Are they the targets of these logits?"
        )
    if losses[best] == losses[-1]:  # also where it is 0 before
        raise CalibrationError(
            f"no temperature has the least NLL: it still falls at {1 / _GRID[-1]:g}, as where every row is right. "
            "Use rows that the model was not trained on, and more of them."
        )
    first = min(max(0, best - 2), len(_GRID) - 5)
    places = np.log(_GRID[first : first + 5])
    curve = Chebyshev.fit(places, losses[first : first + 5], 4)
    fine = np.linspace(math.log(_GRID[best - 1]), math.log(_GRID[best + 1]), _FINE)
    return float(fine[np.argmin(curve(fine))])
