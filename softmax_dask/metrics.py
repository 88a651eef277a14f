"""What a dump of logits is worth: figures of its decisions, and with targets of how right they are.

A `Metrics` is a set of sums over rows. They are integers, so that merging those of blocks, partitions, files and runs,
in whatever order, gives the same bits as counting all rows at once.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_dask import risk
from softmax_dask.confusions import Confusion, Confusions
from softmax_dask.dispatch import backend_of, is_on_device
from softmax_dask.errors import MetricsError
from softmax_dask.kernels.counts import BINS, FINE_BINS, LARGE_NLL, ONE, RANKS, SLAB_ROWS, Counts, fine_edges, no_counts

_COLUMNS = ("label", "confidence", "entropy")
_COLUMNS_OF_TARGETS = ("nll", "brier", "target_rank")

_SLABS_OF_PAIRS = 16
"""After which confused rows are sorted."""

GATHERED_ROWS = 1 << 15
"""Rows of small blocks that are counted at once: counters of 1.6 MB are out of the cache whenever a block of logits has
gone through it, and a thousand rows then wait for memory most of the time."""

Counters = NDArray[np.int64]

_NO_ROWS: Counters = np.broadcast_to(np.int64(0), FINE_BINS)
"""Takes no memory, and who keeps metrics need not look for what is in it."""


@dataclass(frozen=True, slots=True, eq=False)
class Metrics:
    """Sums over rows. Figures that no row decides are None.

    Rows are decidable or not (NaN, +inf, only -inf), and labelled or not (their target is -1, or null). All sums but
    those of `undecidable` and `labelled_undecidable` are of decidable rows.
    """

    classes: int
    rows: int
    """All of them."""
    undecidable: int
    labelled: int
    """Decidable rows with a target."""
    labelled_undecidable: int
    """Undecidable rows with one: in no figure."""
    infinite_nll: int
    """Labelled rows whose target has the probability 0, and so an infinite NLL."""
    confidence_sum: int
    """Over decidable rows, in units of 2^-32, as are"""
    entropy_sum: int
    """nats,"""
    nll_sum: int
    """nats, over labelled rows whose NLL is finite, and"""
    brier_sum: int
    """over labelled rows."""
    labels: Counters
    """(classes,): decidable rows by label,"""
    predicted: Counters
    """labelled ones by label,"""
    support: Counters
    """labelled ones by target,"""
    hits: Counters
    """and correct ones by target."""
    ranks: Counters
    """(RANKS + 1,): labelled rows by the rank of their target; the last: beyond."""
    bin_rows: Counters
    """(15,): labelled rows in bins of confidence of equal width, closed on the right,"""
    bin_correct: Counters
    """correct ones,"""
    bin_confidence: tuple[int, ...]
    """and the sum of their confidence, in units of 2^-32."""
    histogram: Counters
    """(FINE_BINS,): decidable rows in fine bins of confidence, bin i from `confidence_edges()[i]` (exclusive) on,"""
    labelled_histogram: Counters
    """labelled ones,"""
    correct_histogram: Counters
    """and correct ones."""
    confusions: Confusions
    """Labelled rows that are not correct."""

    @staticmethod
    def none(classes: int) -> "Metrics":
        """Of no rows."""
        return _metrics_of(classes, no_counts(classes), [0] * 4, [0] * BINS, Confusions())

    @staticmethod
    def of(columns: Mapping[str, Any], targets: Any = None, *, classes: int) -> "Metrics":
        """Of rows of which these columns are known.

        Parameters
        ----------
        columns : name -> one value a row, as `softmax_dask.decisions` gives them; those of `metric_columns`
        targets : integers, -1 where unlabelled
        """
        counting = MetricsCounter(classes)
        counting.add(columns, targets)
        return counting.metrics()

    @staticmethod
    def merged(parts: Iterable["Metrics"]) -> "Metrics":
        """Of all their rows; the order does not matter.

        Raises
        ------
        MetricsError
            There is no part, or they have different numbers of classes.
        """
        given = list(parts)
        if len({part.classes for part in given}) != 1:
            raise MetricsError(
                f"metrics are of {sorted({part.classes for part in given}) or 'no'} classes; expected one number. "
                "Merge those of one dump."
            )
        sums = {name: _added([getattr(part, name) for part in given]) for name in _SUMS}
        return Metrics(given[0].classes, **sums, confusions=Confusions.merged(part.confusions for part in given))

    # ---- figures

    @property
    def decidable(self) -> int:
        """Rows that have a label."""
        return self.rows - self.undecidable

    @property
    def unlabelled(self) -> int:
        """Rows without a target."""
        return self.rows - self.labelled - self.labelled_undecidable

    @property
    def correct(self) -> int:
        """Labelled rows whose label is their target."""
        return int(self.hits.sum())

    @property
    def accuracy(self) -> float | None:
        """Share of the labelled rows that are correct."""
        return _mean(self.correct, self.labelled)

    def top_k_accuracy(self, k: int) -> float | None:
        """Share of the labelled rows whose target is among the k most probable classes; k is 1 to 100."""
        if not 1 <= k <= RANKS:
            raise MetricsError(f"k is {k!r}; expected 1 to {RANKS}: worse ranks are counted together.")
        return _mean(int(self.ranks[:k].sum()), self.labelled)

    @property
    def nll(self) -> float | None:
        """Mean negative log-likelihood of the target in nats; infinite if that of a row is."""
        return math.inf if self.infinite_nll else self.finite_nll

    @property
    def finite_nll(self) -> float | None:
        """The same, of the rows where it is finite."""
        return _mean(self.nll_sum, (self.labelled - self.infinite_nll) * ONE)

    @property
    def brier(self) -> float | None:
        """Mean over labelled rows of the sum over classes of (probability - 1 for the target, else 0) squared."""
        return _mean(self.brier_sum, self.labelled * ONE)

    @property
    def mean_confidence(self) -> float | None:
        """Over decidable rows."""
        return _mean(self.confidence_sum, self.decidable * ONE)

    @property
    def mean_entropy(self) -> float | None:
        """Over decidable rows, in nats."""
        return _mean(self.entropy_sum, self.decidable * ONE)

    @property
    def ece(self) -> float | None:
        """Expected calibration error: the mean over labelled rows of their bin's |accuracy - mean confidence|.

        References
        ----------
        Naeini et al. 2015; Guo et al. 2017, arXiv:1706.04599. Of 15 bins of equal width, closed on the right.
        """
        return _mean(sum(self._gaps()), self.labelled * ONE)

    @property
    def mce(self) -> float | None:
        """Maximum calibration error: the largest |accuracy - mean confidence| of a bin that has labelled rows."""
        of_bins = zip(self._gaps(), self.bin_rows.tolist(), strict=True)
        return max((gap / (rows * ONE) for gap, rows in of_bins if rows), default=None)

    @property
    def aurc(self) -> risk.Area | None:
        """Area under the risk-coverage curve, and how far it may be off: rows of a fine bin have no known order."""
        return risk.area_of(self.labelled_histogram, self.correct_histogram) if self.labelled else None

    @property
    def risk_coverage(self) -> risk.Curve:
        """How often the most confident labelled rows are wrong."""
        return risk.curve_of(self.labelled_histogram, self.correct_histogram)

    def frequent_confusions(self, number: int = 50) -> list[Confusion]:
        """The most frequent pairs of target and other label, falling."""
        missed, mistaken = self.support - self.hits, self.predicted - self.hits
        return self.confusions.most_frequent(number, self.classes, missed, mistaken)

    def _gaps(self) -> list[int]:
        """Of each bin: |accuracy - mean confidence| times its rows, in units of 2^-32."""
        of_bins = zip(self.bin_correct.tolist(), self.bin_confidence, strict=True)
        return [abs(correct * ONE - confidence) for correct, confidence in of_bins]


_SUMS = tuple(field.name for field in fields(Metrics) if field.name not in ("classes", "confusions"))


def metric_columns(*, with_targets: bool) -> tuple[str, ...]:
    """The columns that metrics are made of; with targets, of more."""
    return _COLUMNS + _COLUMNS_OF_TARGETS if with_targets else _COLUMNS


def confidence_edges() -> NDArray[np.float64]:
    """(65792,): the edges of the fine bins of confidence, each bin closed on the right.

    65,536 bins of equal width, the last of them split into 256 more: there each float32 has its own.
    """
    return fine_edges()


class MetricsCounter:
    """Metrics while rows are counted."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._counts = no_counts(classes, with_targets=False)
        self._are_lent = False
        """Whether the counts are those of some `Metrics`, which must not change."""
        self._sums, self._bin_confidence = [0] * 4, [0] * BINS
        self._confusions = Confusions()
        self._wrong: list[Counters] = []
        """pairs that are not in the confusions yet"""
        self._gathered = _Gathered({}, None)

    def add(self, columns: Mapping[str, Any], targets: Any = None) -> None:
        """Count rows; see `Metrics.of`.

        Raises
        ------
        MetricsError
            A column is missing, or is of another length.
        """
        wanted = metric_columns(with_targets=targets is not None)
        known = {name: _plain(columns, name) for name in wanted}
        truth = None if targets is None else np.ascontiguousarray(_host(targets), np.int64).reshape(-1)
        rows = len(known["label"])
        if len({rows, *map(len, known.values())} | ({len(truth)} if truth is not None else set())) != 1:
            raise MetricsError("columns and targets have different lengths; expected a value of each for every row.")
        if rows <= GATHERED_ROWS // 2:
            self._gather(known, truth, rows)
        else:
            self._count(known, truth)

    def metrics(self) -> Metrics:
        """Of what was counted so far."""
        self._count(*self._gathered.taken())
        self._settle()
        self._are_lent = True
        return _metrics_of(self._classes, self._counts, self._sums, self._bin_confidence, self._confusions)

    def _counts_of_its_own(self, with_targets: bool) -> Counts:
        """What may be added to: half a megabyte, and where there are targets three times that."""
        counts = self._counts
        if self._are_lent:
            counts, self._are_lent = Counts(*(counters.copy() for counters in counts)), False
        if with_targets and not counts.labelled_histogram.size:
            counts = counts._replace(labelled_histogram=np.zeros((FINE_BINS, 2), np.int64))
        return counts

    def _gather(self, columns: dict[str, NDArray[Any]], targets: Counters | None, rows: int) -> None:
        """Copy rows, which are counted when they have become many."""
        if not self._gathered.takes(columns, targets, rows):
            self._count(*self._gathered.taken())
            self._gathered = _Gathered(columns, targets)
        self._gathered.add(columns, targets, rows)

    def _count(self, columns: dict[str, NDArray[Any]], targets: Counters | None) -> None:
        for start in range(0, len(columns.get("label", ())), SLAB_ROWS):
            slab = slice(start, start + SLAB_ROWS)
            part = {name: values[slab] for name, values in columns.items()}
            self._add(part, None if targets is None else targets[slab])

    def _settle(self) -> None:
        """Take pairs into the counts by class, and into the confusions where they differ: many at once cost less."""
        counts = self._counts
        waiting = [Confusions.of(np.concatenate(self._wrong))] if self._wrong else []
        if counts.pairs.size and counts.rows[2]:  # some row is labelled
            waiting.append(_taken(counts, self._classes))
        self._confusions = Confusions.merged([self._confusions, *waiting])
        self._wrong = []

    def _add(self, columns: dict[str, NDArray[Any]], targets: Counters | None) -> None:
        kernels: Any = backend_of(columns["label"]).kernels
        counts = self._counts = self._counts_of_its_own(targets is not None)
        wrong = kernels.count_rows(columns, targets, self._classes, counts)
        if wrong.size:
            self._wrong.append(wrong)
        if len(self._wrong) >= _SLABS_OF_PAIRS:
            self._settle()
        if counts.rows[5]:
            nll = columns["nll"][columns["target_rank"] >= 0].astype(np.float64)
            large = nll[(nll > LARGE_NLL) & (nll < np.inf)]
            self._sums[2] += sum(round(Fraction(x) * ONE) for x in large.tolist())  # up to 1e308
            counts.rows[5] = 0
        _take(counts.sums, self._sums)
        _take(counts.bins[2], self._bin_confidence)


class _Gathered:
    """Copies of rows that wait to be counted, of columns such as those that it is made with."""

    def __init__(self, columns: Mapping[str, NDArray[Any]], targets: Counters | None) -> None:
        self._kinds = _kinds(columns, targets)
        self._columns = {name: np.empty(GATHERED_ROWS, values.dtype) for name, values in columns.items()}
        self._targets = None if targets is None else np.empty(GATHERED_ROWS, np.int64)
        self._rows = 0

    def takes(self, columns: Mapping[str, NDArray[Any]], targets: Counters | None, rows: int) -> bool:
        """Whether there is room for rows of such columns."""
        return self._rows + rows <= GATHERED_ROWS and self._kinds == _kinds(columns, targets)

    def add(self, columns: Mapping[str, NDArray[Any]], targets: Counters | None, rows: int) -> None:
        """Copy so many rows."""
        place = slice(self._rows, self._rows + rows)
        for name, values in columns.items():
            self._columns[name][place] = values
        if self._targets is not None and targets is not None:
            self._targets[place] = targets
        self._rows = place.stop

    def taken(self) -> tuple[dict[str, NDArray[Any]], Counters | None]:
        """The rows; there are none then."""
        place, self._rows = slice(self._rows), 0
        columns = {name: values[place] for name, values in self._columns.items()}
        return columns, None if self._targets is None else self._targets[place]


def _kinds(columns: Mapping[str, NDArray[Any]], targets: Counters | None) -> list[Any]:
    return [targets is not None, *((name, values.dtype) for name, values in columns.items())]


def _taken(counts: Counts, classes: int) -> Confusions:
    """The pairs that differ; all move to the counts by class."""
    pairs = counts.pairs.reshape(classes, classes)
    counts.predicted[:] += pairs.sum(axis=0)
    counts.support[:] += pairs.sum(axis=1)
    counts.hits[:] += pairs.diagonal()
    np.fill_diagonal(pairs, 0)
    known = np.flatnonzero(counts.pairs)
    confusions = Confusions.of(known, counts.pairs[known])
    counts.pairs[:] = 0
    return confusions


def _metrics_of(
    classes: int, counts: Counts, sums: list[int], bin_confidence: list[int], confusions: Confusions
) -> Metrics:
    """Arrays are those of the counts, where none is made of them."""
    rows, undecidable, labelled, labelled_undecidable, infinite_nll, _ = counts.rows.tolist()
    histogram, labelled_histogram, correct_histogram = _histograms(counts)
    return Metrics(
        classes=classes,
        rows=rows,
        undecidable=undecidable,
        labelled=labelled,
        labelled_undecidable=labelled_undecidable,
        infinite_nll=infinite_nll,
        confidence_sum=sums[0],
        entropy_sum=sums[1],
        nll_sum=sums[2],
        brier_sum=sums[3],
        labels=counts.unlabelled + counts.predicted,
        predicted=counts.predicted,
        support=counts.support,
        hits=counts.hits,
        ranks=counts.ranks,
        bin_rows=counts.bins[0] + counts.bins[1],
        bin_correct=counts.bins[1],
        bin_confidence=tuple(bin_confidence),
        histogram=histogram,
        labelled_histogram=labelled_histogram,
        correct_histogram=correct_histogram,
        confusions=confusions,
    )


def _histograms(counts: Counts) -> tuple[Counters, Counters, Counters]:
    """Of decidable rows, of those that are labelled, and of those that are correct."""
    if not counts.rows[2]:  # none is labelled
        return counts.unlabelled_histogram, _NO_ROWS, _NO_ROWS
    wrong, right = counts.labelled_histogram.T
    labelled = wrong + right
    return counts.unlabelled_histogram + labelled, labelled, right.copy()


def _take(counters: Counters, sums: list[int]) -> None:
    """Move what the counters have to Python's integers, which have no end."""
    for i, value in enumerate(counters.tolist()):
        sums[i] += value
    counters[:] = 0


def _plain(columns: Mapping[str, Any], name: str) -> NDArray[Any]:
    """A column in the memory of this machine, one value after the other."""
    if name not in columns:
        raise MetricsError(f"columns have no {name}; expected {', '.join(_COLUMNS + _COLUMNS_OF_TARGETS)}.")
    array: NDArray[Any] = np.ascontiguousarray(_host(columns[name]))
    if array.ndim != 1:
        array = array.reshape(-1)
    return array if array.flags.writeable else array.copy()  # one type to Numba, one compiled kernel


def _host(values: Any) -> Any:
    """A copy of what is on a device; other values as they are."""
    return values.get() if is_on_device(values) else values


def _added(values: list[Any]) -> Any:
    if isinstance(values[0], tuple):
        return tuple(map(sum, zip(*values, strict=True)))
    if not isinstance(values[0], np.ndarray):
        return sum(values)
    total = values[0].copy()
    for value in values[1:]:
        total += value
    return total


def _mean(total: int, count: int) -> float | None:
    return total / count if count else None
