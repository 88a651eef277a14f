"""Sets of classes that hold the true one with probability 1 - alpha: split conformal prediction, LAC scores.

A class is in the set of a row if its probability is at least t: the k-th largest probability of the true class among n
rows with targets, k = ceil((n + 1)(1 - alpha)) (Sadinle, Lei and Wasserman 2019, arXiv:1609.00451; Vovk et al. 2005).
t is found exactly, as a float32, in two reads: first the upper half of its bits, by a count of each, then the lower.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from softmax_dask import documents
from softmax_dask.arrays import decisions
from softmax_dask.errors import CalibrationError
from softmax_dask.nll_sums import only
from softmax_dask.options import TEMPERATURES
from softmax_dask.split_keys import Keys

_KIND, _VERSION = "conformal level", 1
_HALF = 16
_FOR_LEVEL = np.uint64(62)
"""Bit of a key: 0 for the rows that say the level, 1 for those that measure its coverage."""

Counters = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ConformalLevel:
    """The least probability of a class in a set."""

    least_probability: float
    """A float32; 0: all classes."""
    alpha: float
    temperature: float
    """Of the probabilities that it was found for,"""
    shift: str | None
    """and a digest of their shift."""
    report: Mapping[str, Any] = field(default_factory=dict)
    """Coverage and sizes that were measured: JSON types only."""

    def to_json(self) -> str:
        """The document that `from_json` reads."""
        names = ("least_probability", "alpha", "temperature", "shift")
        return documents.json_of(_KIND, _VERSION, {name: getattr(self, name) for name in names} | dict(self.report))

    @staticmethod
    def from_json(text: str) -> "ConformalLevel":
        """What `to_json` has written.

        Raises
        ------
        CalibrationError
            It is none.
        """
        facts = documents.facts_of(text, _KIND, _VERSION)
        numbers = {name: documents.number(facts, name, 0, 1) for name in ("least_probability", "alpha")}
        numbers["temperature"] = documents.number(facts, "temperature", *TEMPERATURES)
        return ConformalLevel(**numbers, shift=facts.pop("shift", None), report=facts)


@dataclass(frozen=True, slots=True)
class ConformalRead:
    """What one read is to find out."""

    upper: int | None
    """None: how often each upper half of bits is there. Else of those with this one, each lower half."""
    measure_at: float | None
    """Else: what sets of classes of at least this probability are worth."""


@dataclass(frozen=True, slots=True, eq=False)
class ConformalCounts:
    """Counts of some rows; those of all rows are their sum."""

    bits: Counters
    """(65536,): by the half of the bits that was asked for."""
    rows: int = 0
    """That were measured, and of them"""
    covered: int = 0
    """those whose set holds the target,"""
    empty: int = 0
    single: int = 0
    classes: int = 0
    """and the classes in all sets."""
    left_out: int = 0
    """Rows without a target, or undecidable."""

    def __add__(self, other: Self) -> "ConformalCounts":
        sums = {name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__}
        return ConformalCounts(**sums)


def conformal_counts(
    logits: NDArray[Any], targets: NDArray[np.int64], keys: Keys, temperature: float, read: ConformalRead
) -> ConformalCounts:
    """Of a block in memory, (rows, classes)."""
    measures = (keys >> _FOR_LEVEL) & np.uint64(1) != 0
    chosen = measures if read.measure_at is not None else ~measures
    rows, truth = only(chosen, logits), targets[chosen]
    probabilities = exact_probabilities(rows, temperature)
    usable = (truth >= 0) & ~np.isnan(probabilities[:, 0])
    of_target = probabilities[np.flatnonzero(usable), truth[usable]]
    left_out = int(np.count_nonzero(~usable))
    if read.measure_at is not None:
        sizes = (probabilities[usable] >= np.float32(read.measure_at)).sum(axis=1)
        return ConformalCounts(
            np.zeros(0, np.int64),
            len(of_target),
            int(np.count_nonzero(of_target >= np.float32(read.measure_at))),
            int(np.count_nonzero(sizes == 0)),
            int(np.count_nonzero(sizes == 1)),
            int(sizes.sum()),
            left_out,
        )
    bits = of_target.view(np.uint32)
    upper = (bits >> _HALF).astype(np.int64)
    if read.upper is None:
        return ConformalCounts(np.bincount(upper, minlength=1 << _HALF), left_out=left_out)
    lower = (bits[upper == read.upper] & ((1 << _HALF) - 1)).astype(np.int64)
    return ConformalCounts(np.bincount(lower, minlength=1 << _HALF), left_out=left_out)


def exact_probabilities(logits: NDArray[Any], temperature: float) -> NDArray[np.float32]:
    """As sets compare them: to the last bit the same for the same row."""
    if len(logits) == 0:
        return np.empty((0, logits.shape[1]), np.float32)
    found = decisions(logits, ("probabilities",), temperature=temperature)["probabilities"]
    return np.asarray(found, np.float32)


def fill_sets(probabilities: NDArray[np.float32], least: float, out: NDArray[np.int32]) -> None:
    """Fill `out`, (rows, most classes of a set), with each row's classes, rising, then -1."""
    row, class_ = np.nonzero(probabilities >= np.float32(least))
    starts = np.searchsorted(row, np.arange(len(out)))
    out[...] = -1
    out[row, np.arange(len(row)) - starts[row]] = class_


def most_classes(least: float, classes: int) -> int:
    """Classes that a set can have at most: probabilities add up to 1, but for rounding."""
    return classes if least <= 0 else max(1, min(classes, math.floor((1 + 1e-5) / least)))


class ConformalSearch:
    """Asks for counts, takes them, and asks again, until the level is known.

    Parameters
    ----------
    alpha : above 0, below 1
        How often the true class may be missing.
    """

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha
        self._rank = 0
        self.rows = 0
        """Rows that say the level."""
        self.read: ConformalRead | None = ConformalRead(None, None)
        """What the next read is to find out; None: the level is known."""
        self.least_probability = 0.0

    def take(self, counts: ConformalCounts) -> None:
        """Of the read that was asked for.

        Raises
        ------
        CalibrationError
            There are no rows.
        """
        assert self.read is not None, "counts after the level is known"
        if self.read.upper is None:
            self.rows = int(counts.bits.sum())
            if self.rows == 0:
                raise CalibrationError(
                    f"no row can be used, {counts.left_out:,} have no target or are undecidable; expected rows with "
                    "targets."
                )
            # As a fraction: 1 - 0.1 is a little more than 0.9.
            self._rank = math.ceil((self.rows + 1) * (1 - Fraction(repr(self._alpha))))
            if self._rank > self.rows:  # too few rows to leave any class out
                self.read = None
                return
        falling = np.cumsum(counts.bits[::-1])
        place = int(np.searchsorted(falling, self._rank))
        half = len(falling) - 1 - place
        if self.read.upper is None:
            self._rank -= int(falling[place - 1]) if place else 0
            self.read = ConformalRead(half, None)
            return
        bits = np.array([(self.read.upper << _HALF) | half], np.uint32)
        self.least_probability = float(bits.view(np.float32)[0])
        self.read = None
