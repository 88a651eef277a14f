"""Which rows of a dump are wanted: their numbers, searched for where a confidence says which."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event

import numpy as np
from numpy.typing import NDArray

from softmax_dask import decisions
from softmax_dask_pipelines.errors import MemoryBudgetError
from softmax_dask_pipelines.gathering import piece_rows, require_going_on
from softmax_dask_pipelines.runner import run_on_threads
from softmax_dask_pipelines.sources import Source

NUMBER_BYTES = 16
"""Of the number of a chosen row: while those of all pieces are joined there are two of each."""

OnSearch = Callable[[int, int], None]
"""Called with the rows that were just searched, and all that there are to search."""

_PIECES_PER_THREAD = 8
"""Searched before it is looked whether there are enough."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which rows of a source are wanted; numbers of rows in the source."""

    start: int
    stop: int
    """Exclusive."""
    below: float | None
    """Only rows with a confidence below this, which undecidable rows have not."""
    limit: int | None
    """At most so many, the first ones."""


def chosen_rows(
    source: Source,
    choice: Choice,
    *,
    temperature: float,
    threads: int,
    most: int,
    stop: Event,
    on_search: OnSearch | None = None,
) -> NDArray[np.int64]:
    """The numbers of the wanted rows, rising. With `below` logits are read until there are `limit` of them.

    Raises
    ------
    MemoryBudgetError
        There are more than `most`.
    """
    if choice.below is not None:
        search = _Search(source, choice, choice.below, temperature, most, stop, on_search)
        return search.run(threads)[: choice.limit]
    wanted = choice.stop if choice.limit is None else min(choice.stop, choice.start + choice.limit)
    _require_few(wanted - choice.start, most)
    return np.arange(choice.start, wanted, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class _Found:
    """What a piece came to."""

    number: int
    searched: int
    rows: NDArray[np.int64]


class _Search:
    """Rows of low confidence, piece by piece."""

    def __init__(
        self,
        source: Source,
        choice: Choice,
        below: float,
        temperature: float,
        most: int,
        stop: Event,
        on_search: OnSearch | None,
    ) -> None:
        self._source, self._choice, self._below, self._temperature = source, choice, below, temperature
        self._most, self._stop = most, stop
        self._on_search = on_search or (lambda rows, total: None)
        self._step = piece_rows(source.facts)
        self._found: dict[int, NDArray[np.int64]] = {}
        self._count = 0

    def run(self, threads: int) -> NDArray[np.int64]:
        choice, step = self._choice, self._step
        self._on_search(0, choice.stop - choice.start)
        pieces = range(choice.start // step, -(-choice.stop // step))
        wave = threads * _PIECES_PER_THREAD
        for first in range(0, len(pieces), wave):
            numbers = pieces[first : first + wave]
            run_on_threads(self._search, numbers, threads=threads, take=self._take, stop=self._stop)
            if choice.limit is not None and self._count >= choice.limit:
                break
        return np.concatenate([np.empty(0, np.int64), *(self._found[number] for number in sorted(self._found))])

    def _search(self, number: int) -> _Found:
        start, stop = max(self._choice.start, number * self._step), min(self._choice.stop, (number + 1) * self._step)
        found, row = [np.empty(0, np.int64)], start
        for block in self._source.read(start, stop):
            require_going_on(self._stop)
            confidence = decisions(block.logits, ("confidence",), temperature=self._temperature)["confidence"]
            found.append(row + np.flatnonzero(confidence < self._below))
            row += len(block.logits)
        return _Found(number, row - start, np.concatenate(found))

    def _take(self, found: _Found) -> None:
        self._found[found.number] = found.rows
        self._count += len(found.rows)
        _require_few(self._count, self._most)
        self._on_search(found.searched, self._choice.stop - self._choice.start)


def _require_few(count: int, most: int) -> None:
    if count > most:
        raise MemoryBudgetError(
            f"memory_limit: {count:,} rows are chosen or more, and their numbers alone take {NUMBER_BYTES} bytes each; "
            f"expected at most {most:,} rows. Choose fewer with rows or limit, or raise the limit."
        )
