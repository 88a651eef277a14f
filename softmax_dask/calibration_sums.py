"""What one read of the rows of a dump finds out for its calibration, as sums of blocks."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from softmax_dask.arrays import decisions
from softmax_dask.metrics import Metrics, MetricsCounter, metric_columns
from softmax_dask.nll_sums import NllSums, nll_sums, shifted
from softmax_dask.split_keys import Keys

FitOn = Literal["half", "all"]

_HALVES = np.uint64(63)


@dataclass(frozen=True, slots=True)
class CalibrationRead:
    """What one read of the rows is to find out."""

    rows: tuple[range, ...] | None
    """Which rows it goes through, by their numbers, rising; None: all."""
    fit_on: FitOn
    betas: tuple[float, ...]
    """Values of 1/T at which the rows of the fit are tried; none: they are left out."""
    report_at: float | None
    """Temperature at which the rows of the report are looked at."""
    shift: NDArray[np.float64] | None
    """Of the rows of the fit."""
    report_shift: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class CalibrationSums:
    """What was found out of some rows; those of all rows are their sum, in any order."""

    sums: NllSums = field(default_factory=NllSums)
    metrics: Metrics | None = None

    def __add__(self, other: "CalibrationSums") -> "CalibrationSums":
        parts = [each.metrics for each in (self, other) if each.metrics is not None]
        return CalibrationSums(self.sums + other.sums, Metrics.merged(parts) if parts else None)


class CalibrationCounter:
    """Sums while blocks are looked at, one after the other."""

    def __init__(self, read: CalibrationRead, classes: int) -> None:
        self._read = read
        self._sums = NllSums()
        self._counter = None if read.report_at is None else MetricsCounter(classes)
        self._room = np.empty(0, np.uint8)
        """For copies of rows: fresh pages for each block would cost as much as copying."""

    def add(self, logits: NDArray[Any], targets: NDArray[np.int64], keys: Keys) -> None:
        """Of a block in memory, (rows, classes), of at most a few MiB; which rows of a dump it has is the caller's."""
        held_out = keys >> _HALVES != 0 if self._read.fit_on == "half" else None
        if self._read.betas:
            rows, truth = self._only(None if held_out is None else ~held_out, logits, targets)
            self._sums += nll_sums(rows, truth, self._read.betas, self._read.shift)
        if self._read.report_at is not None:
            self._report(*self._only(held_out, logits, targets), self._read.report_at)

    def total(self) -> CalibrationSums:
        """Of what was looked at so far."""
        return CalibrationSums(self._sums, None if self._counter is None else self._counter.metrics())

    def _report(self, logits: NDArray[Any], targets: NDArray[np.int64], temperature: float) -> None:
        assert self._counter is not None, "a read with a report has a counter"
        if len(logits):
            moved = shifted(logits, self._read.report_shift, temperature)
            columns = metric_columns(with_targets=True)
            self._counter.add(decisions(moved, columns, targets=targets, temperature=temperature), targets)

    def _only(
        self, chosen: NDArray[np.bool_] | None, logits: NDArray[Any], targets: NDArray[np.int64]
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """These rows, in the room; as they are where they are all."""
        if chosen is None or chosen.all():
            return logits, targets
        numbers = np.flatnonzero(chosen)
        size = len(numbers) * logits.shape[1] * logits.itemsize
        if self._room.size < size:
            self._room = np.empty(size, np.uint8)
        rows = self._room[:size].view(logits.dtype).reshape(len(numbers), logits.shape[1])
        np.take(logits, numbers, axis=0, out=rows, mode="clip")  # any other mode goes through a copy
        return rows, targets[numbers]


def sums_of_blocks(blocks: Any, read: CalibrationRead, classes: int) -> CalibrationSums:
    """Of logits, targets and keys of parts of an array, the class axis last, of however many axes."""
    counter = CalibrationCounter(read, classes)
    for logits, targets, keys in blocks:
        counter.add(logits.reshape(-1, classes), targets.reshape(-1), keys.reshape(-1))
    return counter.total()
