"""Reads of a whole dump that come to sums: partitions on threads, each looked at in pieces that fit the caches."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from softmax_dask_pipelines.errors import InterruptedRunError
from softmax_dask_pipelines.plan import Plan
from softmax_dask_pipelines.retrying import Retrying
from softmax_dask_pipelines.row_keys import Keys, keys_of
from softmax_dask_pipelines.runner import Stop, run_on_threads
from softmax_dask_pipelines.sources import Source


class Counter(Protocol):
    """Counts something of some rows that can be added to that of others, in any order."""

    def add(self, logits: NDArray[Any], targets: NDArray[np.int64], keys: Keys) -> None:
        """Count a block of rows."""

    def total(self) -> Any:
        """What was counted."""


class Added:
    """A counter of what a function finds in each block."""

    def __init__(self, look: Callable[[NDArray[Any], NDArray[np.int64], Keys], Any]) -> None:
        self._look, self._total = look, None

    def add(self, logits: NDArray[Any], targets: NDArray[np.int64], keys: Keys) -> None:
        """As a counter does."""
        self._total = _added(self._total, self._look(logits, targets, keys))

    def total(self) -> Any:
        """The sum; None of no rows."""
        return self._total


@dataclass(frozen=True, slots=True)
class Glance:
    """What a partition came to."""

    rows: int
    found: Any


@dataclass(frozen=True, slots=True)
class Sweep:
    """Goes through all rows of a source, as often as it is asked to. Memory does not grow with the rows."""

    source: Source
    plan: Plan
    retries: int
    on_receipt: Callable[[Glance], None] | None = None

    def over(self, begin: Callable[[], Counter], runs: Sequence[range] | None = None) -> Any:
        """The sum of what a counter of each partition counts, in all rows or in runs of them, rising and apart.

        Raises
        ------
        DataError, TemporaryError
            As `score` raises them of the same source.
        """
        stop, sums = Stop(), _Sums(self.on_receipt)
        again = Retrying(_Task(self.source, self.plan, begin, runs, stop), retries=self.retries, stop=stop)
        numbers = self.plan.numbers if runs is None else _partitions_of(runs, self.plan)
        run_on_threads(again, numbers, threads=self.plan.threads, take=sums.take, stop=stop)
        return sums.total


@dataclass(frozen=True, slots=True)
class _Task:
    source: Source
    plan: Plan
    begin: Callable[[], Counter]
    runs: Sequence[range] | None
    stop: Stop

    def __call__(self, number: int) -> Glance:
        partition, counter = self.plan.partition(number), self.begin()
        whole = range(partition.start, partition.stop)
        parts = [whole] if self.runs is None else list(_within(whole, self.runs))
        for rows in parts:
            self._count(rows, counter)
        return Glance(sum(map(len, parts)), counter.total())

    def _count(self, rows: range, counter: Counter) -> None:
        row = rows.start
        for block in self.source.read(rows.start, rows.stop):
            keys = keys_of(block, row, self.source.facts)
            assert block.targets is not None, "a dump without targets is refused before it is read"
            for start in range(0, len(keys), self.plan.chunk_rows):
                if self.stop.is_set():
                    raise InterruptedRunError("stopped between two blocks, because the run ends.")
                part = slice(start, start + self.plan.chunk_rows)
                counter.add(block.logits[part], block.targets[part], keys[part])
            row += len(keys)


class _Sums:
    def __init__(self, on_receipt: Callable[[Glance], None] | None) -> None:
        self.total: Any = None
        self._on_receipt = on_receipt

    def take(self, glance: Glance) -> None:
        self.total = _added(self.total, glance.found)
        if self._on_receipt is not None:
            self._on_receipt(glance)


def _partitions_of(runs: Sequence[range], plan: Plan) -> list[int]:
    """Numbers of the partitions that these rows lie in."""
    length = plan.partition_rows
    return sorted({number for run in runs for number in range(run.start // length, -(-run.stop // length))})


def _within(rows: range, runs: Sequence[range]) -> Iterator[range]:
    """What of each run lies in `rows`."""
    parts = (range(max(run.start, rows.start), min(run.stop, rows.stop)) for run in runs)
    return (part for part in parts if part)


def _added(one: Any, other: Any) -> Any:
    return other if one is None else one if other is None else one + other
