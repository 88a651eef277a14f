"""From which confidence on decisions may be accepted: precise to at least p, with probability 1 - delta.

Learn then Test (Angelopoulos et al. 2021, arXiv:2110.01052), in the form of split fixed-sequence testing. A sixteenth
of the rows says where the sequence begins; the others test it, threshold by threshold downwards, each by the exact
binomial tail (Clopper and Pearson 1934), until the first one that fails. The order of the tests does not hang on the
rows that are tested, so the error of all of them together is at most delta, whatever the confidences are like.
Thresholds are the edges of 65,536 bins of confidence, so counts are all that must be known of the rows.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from softmax_dask import documents
from softmax_dask.binomial import tail
from softmax_dask.errors import CalibrationError
from softmax_dask.options import TEMPERATURES
from softmax_dask.split_keys import Keys

BINS = 1 << 16

_KIND, _VERSION = "threshold", 1
_ORDERING = 16
"""Of so many rows one says where to begin."""
_FOR_ORDER = np.uint64(40)
"""Bits of a key from here on; the topmost one parts the halves of a calibration."""
_CANDIDATES = 256

Counters = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ConfidenceThreshold:
    """Confidence from which on decisions are accepted."""

    threshold: float
    precision: float
    """At least so many of the accepted rows are right,"""
    delta: float
    """but with this probability."""
    temperature: float
    """Of the confidence that it was found for,"""
    shift: str | None
    """and a digest of its shift."""
    report: Mapping[str, Any] = field(default_factory=dict)
    """What was found on the rows of the test: JSON types only."""

    def with_report(self, **facts: Any) -> "ConfidenceThreshold":
        """The same, and more said of it."""
        return replace(self, report={**facts, **self.report})

    def to_json(self) -> str:
        """The document that `from_json` reads."""
        names = ("threshold", "precision", "delta", "temperature", "shift")
        return documents.json_of(_KIND, _VERSION, {name: getattr(self, name) for name in names} | dict(self.report))

    @staticmethod
    def from_json(text: str) -> "ConfidenceThreshold":
        """What `to_json` has written.

        Raises
        ------
        CalibrationError
            It is none.
        """
        facts = documents.facts_of(text, _KIND, _VERSION)
        numbers = {name: documents.number(facts, name, 0, 1) for name in ("threshold", "precision", "delta")}
        numbers["temperature"] = documents.number(facts, "temperature", *TEMPERATURES)
        return ConfidenceThreshold(**numbers, shift=facts.pop("shift", None), report=facts)


@dataclass(frozen=True, slots=True, eq=False)
class ConfidenceCounts:
    """Rows, and errors among them, by bin of confidence: of the rows of the order, and of those of the test."""

    rows: Counters
    """(2, 65537)"""
    errors: Counters
    left_out: int = 0
    """Rows without a target, or undecidable."""

    def __add__(self, other: Self) -> "ConfidenceCounts":
        return ConfidenceCounts(self.rows + other.rows, self.errors + other.errors, self.left_out + other.left_out)


def confidence_counts(confidence: NDArray[Any], correct: NDArray[np.int8], keys: Keys) -> ConfidenceCounts:
    """Of rows with these columns; `correct` is 1, 0, or -1 where that is not known."""
    known = correct >= 0
    # A power of two times a float is exact, so a bin has the rows from its edge on.
    bins = np.floor(confidence[known].astype(np.float64) * BINS).astype(np.int64)
    tests = ((keys[known] >> _FOR_ORDER) % np.uint64(_ORDERING) != 0).astype(np.int64)
    places, wrong = bins + tests * (BINS + 1), correct[known] == 0
    size = 2 * (BINS + 1)
    return ConfidenceCounts(
        np.bincount(places, minlength=size).reshape(2, -1),
        np.bincount(places[wrong], minlength=size).reshape(2, -1),
        int(np.count_nonzero(~known)),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Accepted:
    """Rows from each edge on, and those of them that are wrong."""

    from_edge: Counters
    wrong_from_edge: Counters

    @staticmethod
    def of(rows: Counters, errors: Counters) -> "_Accepted":
        return _Accepted(*(np.flip(np.cumsum(np.flip(each))) for each in (rows, errors)))

    @property
    def total(self) -> int:
        return int(self.from_edge[0])

    def rows(self, place: int) -> int:
        return int(self.from_edge[place])

    def wrong(self, place: int) -> int:
        return int(self.wrong_from_edge[place])

    def places_down_from(self, place: int) -> list[int]:
        """Edges from which on other rows are accepted than from the one above; each is the lowest of its rows."""
        below = self.from_edge[: place + 1]
        lowest = np.flatnonzero(np.diff(below, prepend=-1))[::-1]
        return [int(each) for each in lowest if below[each] > 0]


def find_threshold(
    counts: ConfidenceCounts, *, precision: float, delta: float, temperature: float = 1.0, shift: str | None = None
) -> ConfidenceThreshold:
    """The lowest threshold that passes.

    Raises
    ------
    CalibrationError
        None does.
    """
    order, test = (_Accepted.of(counts.rows[part], counts.errors[part]) for part in (0, 1))
    if not order.total or not test.total:
        raise CalibrationError(
            f"{order.total + test.total:,} rows can be used, {counts.left_out:,} have no target or are undecidable; "
            "expected more rows with targets."
        )
    start = _start(order, test.total, 1 - precision)
    best, p_value = None, 1.0
    for place in test.places_down_from(start):
        tested = tail(test.wrong(place), test.rows(place), 1 - precision)
        if tested > delta:
            break
        best, p_value = place, tested
    if best is None:
        raise CalibrationError(
            f"no threshold has a precision of at least {precision:g} with probability {1 - delta:g}: of the most "
            f"confident rows {test.rows(start):,} were tested, and {test.wrong(start):,} were wrong. Ask for less, or "
            "bring more rows."
        )
    accepted, wrong = test.rows(best), test.wrong(best)
    report = {
        "test": {
            "rows": test.total,
            "accepted": accepted,
            "errors": wrong,
            "precision": 1 - wrong / accepted,
            "coverage": accepted / test.total,
            "p_value": p_value,
        },
        "order": {"rows": order.total},
        "left_out_rows": counts.left_out,
    }
    return ConfidenceThreshold(best / BINS, precision, delta, temperature, shift, report)


def _start(order: _Accepted, tested: int, risk: float) -> int:
    """Where a test is most likely to pass; errors of the order are so few that they are taken for more."""
    times = tested / order.total
    places = [BINS, *order.places_down_from(BINS)]

    def evidence(place: int) -> float:
        wrong = order.wrong(place)
        return tail(round((wrong + 0.5 + math.sqrt(wrong)) * times), round(order.rows(place) * times), risk)

    return min(places[:: max(1, len(places) // _CANDIDATES)], key=evidence)
