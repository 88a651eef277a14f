"""Some rows of a dump by their numbers: their logits and what stands beside them, as one block in memory."""

from collections.abc import Iterator, Sequence
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softmax_dask_pipelines import arrow
from softmax_dask_pipelines.errors import InterruptedRunError
from softmax_dask_pipelines.runner import run_on_threads
from softmax_dask_pipelines.sources import Source, SourceBlock, SourceFacts

_GAP_BYTES = 64 << 10
"""Of logits that nobody wants: reading them takes less than another call does."""


def read_rows(source: Source, rows: NDArray[np.int64], *, threads: int, stop: Event) -> SourceBlock:
    """Rows of a source by their numbers, rising, at least one. What is decoded together is decoded once."""
    facts = source.facts
    pieces = np.split(rows, np.flatnonzero(np.diff(rows // piece_rows(facts))) + 1)
    starts = np.cumsum([0, *map(len, pieces)])
    logits = np.empty((len(rows), facts.classes), facts.dtype)
    beside: dict[int, list[SourceBlock]] = {}

    def read(number: int) -> tuple[int, list[SourceBlock]]:
        place, found = int(starts[number]), []
        for block, places in _blocks_with(source, pieces[number], stop):
            logits[place : place + len(places)] = block.logits[places]
            place += len(places)
            found.append(_beside(block, places))
        return number, found

    run_on_threads(read, range(len(pieces)), threads=threads, take=lambda read: beside.update([read]), stop=stop)
    return _joined(logits, [block for number in range(len(pieces)) for block in beside[number]])


def piece_rows(facts: SourceFacts) -> int:
    """Rows that one task reads: nothing is decoded twice, where the source's own layout is regular."""
    # A boundary may be every row, as in a .npy file.
    return max(1, facts.boundary_rows, facts.read_rows)


def require_going_on(stop: Event) -> None:
    """Leave off, where the run is to end."""
    if stop.is_set():
        raise InterruptedRunError("stopped between two blocks, because the run ends.")


def _blocks_with(source: Source, rows: NDArray[np.int64], stop: Event) -> Iterator[tuple[SourceBlock, NDArray[Any]]]:
    """Blocks with some of the rows, and the places of these in the block."""
    facts = source.facts
    # Rows further apart than the largest row group or chunk lie in two of them: no read decodes what another did.
    gap = max(facts.chunk_rows or 1, _GAP_BYTES // max(1, facts.classes * facts.dtype.itemsize))
    for run in np.split(rows, np.flatnonzero(np.diff(rows) > gap) + 1):
        first, places = int(run[0]), run - run[0]
        for block in source.read(first, int(run[-1]) + 1):
            require_going_on(stop)
            inside = int(np.searchsorted(places, len(block.logits)))
            if inside:
                yield block, places[:inside]
            places = places[inside:] - len(block.logits)


def _beside(block: SourceBlock, places: NDArray[Any]) -> SourceBlock:
    """All but the logits, of the rows at `places`."""
    carried = {name: values.take(arrow.numbers(places)) for name, values in block.carried.items()}
    return SourceBlock(block.logits[:0], carried, None if block.targets is None else block.targets[places])


def _joined(logits: NDArray[Any], blocks: Sequence[SourceBlock]) -> SourceBlock:
    """One block of these logits, and of what stands beside them in `blocks`."""
    targets = [block.targets for block in blocks if block.targets is not None]
    return SourceBlock(
        logits=logits,
        carried={name: pa.concat_arrays([block.carried[name] for block in blocks]) for name in blocks[0].carried},
        targets=np.concatenate(targets) if targets else None,
    )
