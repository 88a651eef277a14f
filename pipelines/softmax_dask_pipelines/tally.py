"""What is counted while rows are scored: the figures of the summary, mergeable and small."""

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

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

    def with_labels(self, labels: NDArray[np.int32], classes: int) -> "Tally":
        """With the counts of the most frequent labels; -1 is none."""
        decided = labels[labels >= 0]
        if classes <= len(decided):
            counts = np.bincount(decided, minlength=classes)
            names = np.flatnonzero(counts)
            counts = counts[names]
        else:
            names, counts = np.unique(decided, return_counts=True)
        most = np.argsort(-counts, kind="stable")[:_MOST_FREQUENT]
        found = {int(names[i]): int(counts[i]) for i in most}
        groups = np.trim_zeros(np.bincount(names % _GROUPS, weights=counts), "b")
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
_SUMS = ("rows", "undecidable", "confidence_sum", "entropy_sum", "labelled", "correct", "nll_sum", *_OF_TAILS)


def tally_of(columns: Mapping[str, NDArray[Any]], targets: NDArray[np.int64] | None) -> Tally:
    """The tally of a block, from its label, confidence, entropy and, with targets, nll and target_rank.

    Columns of the tail are counted where they are there.
    """
    label = columns["label"]
    undecidable = int(np.count_nonzero(label < 0))
    truth = _tally_of_targets(columns) if targets is not None else {}
    tails: dict[str, Any] = {name: _sum(columns[column], undecidable > 0) for name, column in _tails_in(columns)}
    return Tally(
        rows=len(label),
        undecidable=undecidable,
        confidence_sum=_sum(columns["confidence"], undecidable > 0),
        entropy_sum=_sum(columns["entropy"], undecidable > 0),
        **truth,
        **tails,
    )


def _tails_in(columns: Container[str]) -> list[tuple[str, str]]:
    """Sums that can be made, each with its column."""
    named = [(name, name.removesuffix("_sum")) for name in _OF_TAILS]
    return [(name, column) for name, column in named if column in columns]


def _tally_of_targets(columns: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    known = columns["target_rank"] >= 0
    return {
        "labelled": int(np.count_nonzero(known)),
        "correct": int(np.count_nonzero(columns["target_rank"] == 0)),
        "nll_sum": _sum(columns["nll"], not known.all()),
    }


def _sum(values: NDArray[Any], has_nan: bool) -> float:
    add = np.nansum if has_nan else np.sum
    return float(add(values, dtype=np.float64))
