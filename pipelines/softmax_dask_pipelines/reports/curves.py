"""The numbers behind the plots, from a document of metrics (docs/metrics.md); no drawing."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BARS = 20
"""Of the histogram of confidence."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Rows by confidence, in bars of equal width, closed on the right."""

    edges: tuple[float, ...]
    correct: tuple[int, ...]
    """Labelled rows that are right,"""
    wrong: tuple[int, ...]
    """that are not,"""
    unlabelled: tuple[int, ...]
    """and rows without a target."""

    @property
    def rows(self) -> tuple[int, ...]:
        """All rows of each bar."""
        return tuple(map(sum, zip(self.correct, self.wrong, self.unlabelled, strict=True)))


@dataclass(frozen=True, slots=True)
class Reliability:
    """How often rows of a mean confidence are right: a point for each bin with rows."""

    name: str
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """Share of wrong rows among the most confident ones."""

    confidence: tuple[float, ...]
    coverage: tuple[float, ...]
    risk: tuple[float, ...]


def histogram_of(metrics: Mapping[str, Any]) -> Histogram:
    """Bars of the fine bins; one of these that lies in two bars is in that of its upper edge."""
    fine = metrics["confidence"]
    bars = {"correct": [0] * BARS, "wrong": [0] * BARS, "unlabelled": [0] * BARS}
    for to, rows, labelled, correct in zip(fine["to"], fine["rows"], fine["labelled"], fine["correct"], strict=True):
        bar = min(BARS - 1, max(0, math.ceil(to * BARS) - 1))
        for name, count in (("correct", correct), ("wrong", labelled - correct), ("unlabelled", rows - labelled)):
            bars[name][bar] += count
    edges = tuple(bar / BARS for bar in range(BARS + 1))
    return Histogram(edges, **{name: tuple(counts) for name, counts in bars.items()})


def reliability_of(metrics: Mapping[str, Any] | None, calibration: Mapping[str, Any] | None) -> tuple[Reliability, ...]:
    """Before and after the calibration, of its own rows; without one that of the output, if it is known."""
    if calibration is not None:
        return tuple(_of_bins(name, calibration[name]["bins"]) for name in ("before", "after"))
    if metrics is None:
        return ()
    bins = metrics["calibration"]
    columns = zip(bins["mean_confidence"], bins["accuracy"], bins["rows"], strict=True)
    found = _of_points("as scored", [(c, a, n) for c, a, n in columns if n])
    return (found,) if found.rows else ()


def risk_coverage_of(metrics: Mapping[str, Any]) -> RiskCoverage | None:
    """None without labelled rows."""
    curve = metrics["risk_coverage"]
    found = RiskCoverage(*(tuple(curve[name]) for name in ("confidence", "coverage", "risk")))
    return found if found.coverage else None


def _of_bins(name: str, bins: Sequence[Mapping[str, Any]]) -> Reliability:
    return _of_points(name, [(each["confidence"], each["accuracy"], each["rows"]) for each in bins if each["rows"]])


def _of_points(name: str, points: Sequence[tuple[float, float, int]]) -> Reliability:
    return Reliability(name, tuple(p[0] for p in points), tuple(p[1] for p in points), tuple(p[2] for p in points))
