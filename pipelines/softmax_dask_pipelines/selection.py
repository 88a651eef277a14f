"""Some rows of a dump: which ones are wanted, and their logits, read block by block."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softmax_dask import decisions
from softmax_dask_pipelines.errors import InterruptedRunError
from softmax_dask_pipelines.runner import run_on_threads
from softmax_dask_pipelines.sources import Source, SourceBlock

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


def chosen_rows(source: Source, choice: Choice, *, temperature: float, threads: int, stop: Event) -> NDArray[np.int64]:
    """The numbers of the wanted rows, rising. With `below` logits are read until there are `limit` of them."""
    if choice.below is None:
        most = choice.stop if choice.limit is None else choice.start + choice.limit
        return np.arange(choice.start, min(choice.stop, most), dtype=np.int64)
    return _less_confident(source, choice, choice.below, temperature, threads, stop)[: choice.limit]


def read_rows(source: Source, rows: NDArray[np.int64]) -> SourceBlock:
    """Rows of a source by their numbers, rising, at least one. Only blocks that hold some of them are read."""
    blocks = list(_blocks_with(source, rows.tolist()))
    names = blocks[0].carried
    return SourceBlock(
        logits=np.concatenate([block.logits for block in blocks]),
        carried={name: pa.concat_arrays([block.carried[name] for block in blocks]) for name in names},
        targets=None,
    )


def _less_confident(
    source: Source, choice: Choice, below: float, temperature: float, threads: int, stop: Event
) -> NDArray[np.int64]:
    # A boundary may be every row, as in a .npy file.
    step = max(1, source.facts.boundary_rows, source.facts.read_rows)
    found: list[NDArray[np.int64]] = []

    def search(number: int) -> NDArray[np.int64]:
        start, end = max(choice.start, number * step), min(choice.stop, (number + 1) * step)
        return _searched(source, start, end, below, temperature, stop)

    pieces = range(choice.start // step, -(-choice.stop // step))
    wave = threads * _PIECES_PER_THREAD
    for first in range(0, len(pieces), wave):
        run_on_threads(search, pieces[first : first + wave], threads=threads, take=found.append, stop=stop)
        if choice.limit is not None and sum(map(len, found)) >= choice.limit:
            break
    return np.sort(np.concatenate([np.empty(0, np.int64), *found]))


def _searched(
    source: Source, start: int, stop: int, below: float, temperature: float, ended: Event
) -> NDArray[np.int64]:
    found, row = [np.empty(0, np.int64)], start
    for block in source.read(start, stop):
        if ended.is_set():
            raise InterruptedRunError("stopped between two blocks, because the run ends.")
        confidence = decisions(block.logits, ("confidence",), temperature=temperature)["confidence"]
        found.append(row + np.flatnonzero(confidence < below))
        row += len(block.logits)
    return np.concatenate(found)


def _blocks_with(source: Source, rows: Sequence[int]) -> Iterator[SourceBlock]:
    """The wanted rows of each block that has some."""
    read_rows = max(1, source.facts.read_rows)
    for _, group in groupby(rows, lambda row: row // read_rows):
        wanted = list(group)
        for block in source.read(wanted[0], wanted[-1] + 1):  # one: they lie in one block
            yield _taken(block, np.array(wanted) - wanted[0])


def _taken(block: SourceBlock, places: NDArray[Any]) -> SourceBlock:
    carried = {name: values.take(pa.array(places)) for name, values in block.carried.items()}
    return SourceBlock(block.logits[places], carried, None)
