"""What is counted while rows are scored: the figures of the summary, mergeable and small."""

import math
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_dask import Metrics

_MOST_FREQUENT = 32
"""Labels that a receipt names: bounded, so that a receipt stays small at 250,000 classes."""
_GROUPS = 256
"""Groups that all labels are counted in, by the remainder of the class number: bounded, and exact up to 256 classes."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts and sums over rows; undecidable rows are counted and in no sum."""

    rows: int = 0
    undecidable: int = 0
    confidence_sum: float = 0.0
    entropy_sum: float = 0.0
    """nats"""
    labelled: int = 0
    """rows with a target that are decidable"""
    correct: int = 0
    nll_sum: float = 0.0
    """nats, over the labelled rows"""
    tail_mass_sum: float = 0.0
    """where the output has it, as is"""
    tail_divergence_sum: float = 0.0
    """nats"""
    labels: Mapping[int, int] = field(default_factory=dict)
    """label -> rows, of the most frequent labels"""
    labels_are_all: bool = True
    """Whether `labels` left none out."""
    lower_bounds: frozenset[int] = frozenset()
    """Those in `labels` that some part left out, so that there may be more."""
    label_groups: tuple[int, ...] = ()
    """Rows by label, of up to 256 classes; of more by the remainder of the label by 256. None is left out."""

    @staticmethod
    def merged(tallies: Iterable["Tally"]) -> "Tally":
        """The tally of all their rows."""
        parts = list(tallies)
        labels: Counter[int] = Counter()
        for part in parts:
            labels.update(part.labels)
        cut = [part.labels.keys() for part in parts if not part.labels_are_all]
        sums = {name: sum(getattr(part, name) for part in parts) for name in _SUMS}
        low = frozenset[int]().union(_missing(labels, cut), *(part.lower_bounds for part in parts))
        groups = tuple(map(sum, zip_longest(*(part.label_groups for part in parts), fillvalue=0)))
        return Tally(**sums, labels=dict(labels), labels_are_all=not cut, lower_bounds=low, label_groups=groups)

    def with_labels(self, counts: NDArray[np.int64]) -> "Tally":
        """With rows by label, of which the most frequent are kept."""
        names = np.flatnonzero(counts)
        known = counts[names]
        most = np.argsort(-known, kind="stable")[:_MOST_FREQUENT]
        found = {int(names[i]): int(known[i]) for i in most}
        groups = np.bincount(names % _GROUPS, weights=known)
        return replace(
            self,
            labels=found,
            labels_are_all=len(names) <= _MOST_FREQUENT,
            label_groups=tuple(groups.astype(np.int64).tolist()),
        )


def _missing(labels: Iterable[int], cut: Iterable[Container[int]]) -> frozenset[int]:
    lists = list(cut)
    return frozenset(label for label in labels if any(label not in known for known in lists))


_OF_TAILS = ("tail_mass_sum", "tail_divergence_sum")
_ONE = 1 << 32
"""Sums of metrics are in units of 2^-32."""
_SUMS = ("rows", "undecidable", "confidence_sum", "entropy_sum", "labelled", "correct", "nll_sum", *_OF_TAILS)


def tally_of(metrics: Metrics, tails: Mapping[str, Any] | None = None) -> Tally:
    """The tally of rows that are counted already; of `sums_of_tails`, what there is."""
    return Tally(
        rows=metrics.rows,
        undecidable=metrics.undecidable,
        confidence_sum=metrics.confidence_sum / _ONE,
        entropy_sum=metrics.entropy_sum / _ONE,
        labelled=metrics.labelled,
        correct=metrics.correct,
        nll_sum=math.inf if metrics.infinite_nll else metrics.nll_sum / _ONE,
        **(tails or {}),
    ).with_labels(metrics.labels)


def sums_of_tails(columns: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """Over the rows of a block, of those columns of the tail that are there."""
    there = ((name, name.removesuffix("_sum")) for name in _OF_TAILS)
    return {name: float(np.nansum(columns[column], dtype=np.float64)) for name, column in there if column in columns}
