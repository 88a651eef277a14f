"""Reads of a whole dump that come to sums: partitions on threads, each looked at in pieces that fit the caches."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_dask_pipelines.errors import InterruptedRunError
from softmax_dask_pipelines.plan import Plan
from softmax_dask_pipelines.retrying import Retrying
from softmax_dask_pipelines.row_keys import Keys, keys_of
from softmax_dask_pipelines.runner import Stop, run_on_threads
from softmax_dask_pipelines.sources import Source

Look = Callable[[NDArray[Any], NDArray[np.int64], Keys], Any]
"""From logits, targets and keys of some rows to something that can be added to that of others, in any order."""


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

    def over(self, look: Look) -> Any:
        """The sum of what `look` finds; None of no rows.

        Raises
        ------
        DataError, TemporaryError
            As `score` raises them of the same source.
        """
        stop, sums = Stop(), _Sums(self.on_receipt)
        again = Retrying(_Task(self.source, self.plan, look, stop), retries=self.retries, stop=stop)
        run_on_threads(again, self.plan.numbers, threads=self.plan.threads, take=sums.take, stop=stop)
        return sums.total


@dataclass(frozen=True, slots=True)
class _Task:
    source: Source
    plan: Plan
    look: Look
    stop: Stop

    def __call__(self, number: int) -> Glance:
        rows = self.plan.partition(number)
        row, total = rows.start, None
        for block in self.source.read(rows.start, rows.stop):
            keys = keys_of(block, row, self.source.facts)
            assert block.targets is not None, "a dump without targets is refused before it is read"
            for start in range(0, len(keys), self.plan.chunk_rows):
                if self.stop.is_set():
                    raise InterruptedRunError("stopped between two blocks, because the run ends.")
                part = slice(start, start + self.plan.chunk_rows)
                total = _added(total, self.look(block.logits[part], block.targets[part], keys[part]))
            row += len(keys)
        return Glance(rows.stop - rows.start, total)


class _Sums:
    def __init__(self, on_receipt: Callable[[Glance], None] | None) -> None:
        self.total: Any = None
        self._on_receipt = on_receipt

    def take(self, glance: Glance) -> None:
        self.total = _added(self.total, glance.found)
        if self._on_receipt is not None:
            self._on_receipt(glance)


def _added(one: Any, other: Any) -> Any:
    return other if one is None else one if other is None else one + other
