"""How many rows are read at once, and how pieces of any size become blocks of that size."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from softmax_dask import BLOCK_BYTES
from softmax_dask_pipelines.sources.protocol import SourceBlock

READ_BYTES = BLOCK_BYTES // 2
"""Logits a block: they stay in the cache from decoding to encoding. Blocks twice as large take no less time and more
memory, see benchmarks/growth.py."""

_PARTS_TRIED = 10_000
"""A shard of an absurd size is cut unevenly rather than searched for ever."""


def rows_per_read(*, unit_rows: int, group_rows: int, row_bytes: int) -> int:
    """Rows of a block of about `READ_BYTES`, at least one unit.

    Parameters
    ----------
    unit_rows : rows that are decoded together whatever is asked for: a chunk; 1 in Parquet
    group_rows : a multiple of `unit_rows` that reads should not straddle: a shard or a row group
    """
    units = max(1, READ_BYTES // max(1, row_bytes) // unit_rows)
    group = max(1, group_rows // unit_rows)
    if group <= units:
        return units // group * group * unit_rows
    return _even_part(group, units) * unit_rows


def aligned(start: int, stop: int, step: int) -> Iterator[range]:
    """The rows start..stop-1, cut at the multiples of `step`."""
    while start < stop:
        end = min(stop, (start // step + 1) * step)
        yield range(start, end)
        start = end


def regrouped(pieces: Iterator[SourceBlock], lengths: Iterator[int]) -> Iterator[SourceBlock]:
    """The rows of `pieces` in blocks of these lengths; one that lies within a piece is a view of it."""
    stream = _Stream(pieces)
    for length in lengths:
        yield _joined(list(stream.take(length)))


def part_of(piece: SourceBlock, rows: slice) -> SourceBlock:
    """Some of its rows, as views."""
    return SourceBlock(
        logits=piece.logits[rows],
        carried={name: values[rows] for name, values in piece.carried.items()},
        targets=None if piece.targets is None else piece.targets[rows],
    )


def _even_part(whole: int, limit: int) -> int:
    """Largest part of `whole` up to `limit` that divides it; or equal shares if below half of it."""
    least = -(-whole // limit)
    candidates = range(least, min(2 * least, least + _PARTS_TRIED) + 1)
    parts = next((n for n in candidates if whole % n == 0), least)
    return -(-whole // parts)


class _Stream:
    """Pieces from which any number of rows can be taken."""

    def __init__(self, pieces: Iterator[SourceBlock]) -> None:
        self._pieces = pieces
        self._rest: SourceBlock | None = None

    def take(self, rows: int) -> Iterator[SourceBlock]:
        while rows:
            piece = self._rest if self._rest is not None else next(self._pieces, None)
            assert piece is not None, f"the source ended with {rows} rows missing"
            head, self._rest = _split(piece, rows)
            rows -= len(head.logits)
            yield head


def _split(piece: SourceBlock, rows: int) -> tuple[SourceBlock, SourceBlock | None]:
    total = len(piece.logits)
    if total <= rows:
        return piece, None
    return part_of(piece, slice(0, rows)), part_of(piece, slice(rows, total))


def _joined(pieces: Sequence[SourceBlock]) -> SourceBlock:
    if len(pieces) == 1:
        return pieces[0]
    return SourceBlock(
        logits=np.concatenate([piece.logits for piece in pieces]),
        carried=_joined_carried([piece.carried for piece in pieces]),
        targets=_joined_targets([piece.targets for piece in pieces if piece.targets is not None]),
    )


def _joined_carried(pieces: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: pa.concat_arrays([piece[name] for piece in pieces]) for name in pieces[0]}


def _joined_targets(targets: Sequence[Any]) -> Any:
    return np.concatenate(targets) if targets else None
