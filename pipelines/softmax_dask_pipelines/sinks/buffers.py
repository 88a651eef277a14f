"""The arrays into which one partition's results are computed, and the count of what is filled."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softmax_dask import COLUMNS, Column
from softmax_dask_pipelines.sinks import CarriedColumn, OutputSpec, partition_row_range

_WITH_LABEL = frozenset({"label_name", "conformal_set"})
"""Columns whose values are written with an eye on `label`."""


class PartitionBuffers:
    """Buffers of one partition, allocated once.

    Columns of one value a row, or a few, are kept for the whole partition; columns of one value a row
    and class for one chunk, which is written when it is full and then used again.
    """

    def __init__(self, spec: OutputSpec, number: int) -> None:
        self.rows = partition_row_range(spec, number)
        self.filled = 0
        """Rows of the partition that are filled."""
        self.chunk_start = 0
        """The first of them that the current chunk holds."""
        self.narrow, self.wide = _allocate(spec)
        self.targets = np.empty(spec.partition_rows, np.int64) if spec.has_targets else None
        self._carried: dict[str, list[Any]] = {column.source_name: [] for column in spec.carried}
        self._chunk_rows = spec.chunk_rows if self.wide else spec.partition_rows

    def reserve(self, rows: int) -> dict[str, NDArray[Any]]:
        """Views of the next rows: at most `rows`, and no more than the chunk and the partition have left."""
        stop = min(self.filled + rows, self.chunk_start + self._chunk_rows, len(self.rows))
        assert stop > self.filled, f"no rows to reserve: asked {rows}, filled {self.filled} of {len(self.rows)}"
        views = {name: buffer[self.filled : stop] for name, buffer in self.narrow.items()}
        start = self.filled - self.chunk_start
        views |= {name: buffer[start : stop - self.chunk_start] for name, buffer in self.wide.items()}
        return views

    def advance(self, rows: int, carried: Mapping[str, Any], targets: NDArray[np.int64] | None) -> None:
        """Count `rows` more as filled, and keep what is carried beside them."""
        stop = self.filled + rows
        assert stop <= min(self.chunk_start + self._chunk_rows, len(self.rows)), (
            f"{rows} rows at {self.filled} pass the end of the chunk or of the partition's {len(self.rows)}"
        )
        for name, pieces in self._carried.items():
            assert len(carried[name]) == rows, f"{len(carried[name])} values of {name} for {rows} rows"
            pieces.append(carried[name])
        if self.targets is not None:
            assert targets is not None, "no targets for rows of an output with targets"
            self.targets[self.filled : stop] = targets
        self.filled = stop

    def is_complete(self) -> bool:
        """Whether all rows of the partition are filled."""
        return self.filled == len(self.rows)

    def chunk_is_ready(self) -> bool:
        """Whether the current chunk holds rows and takes no more."""
        pending = self.filled - self.chunk_start
        return pending > 0 and (pending == self._chunk_rows or self.is_complete())

    def next_chunk(self) -> None:
        """The current chunk is written: its buffers may be filled again."""
        self.chunk_start = self.filled

    def release_wide(self) -> None:
        """No chunk is to come: the memory of the wide columns is given back."""
        self.wide = {}

    def take(self, column: CarriedColumn) -> Any:
        """Its values handed over since they were last taken, at least one, as one pyarrow.ChunkedArray."""
        pieces, self._carried[column.source_name] = self._carried[column.source_name], []
        return pa.chunked_array(pieces)


def computed_columns(spec: OutputSpec) -> tuple[Column, ...]:
    """The columns that are computed: all but `label_name`, which is looked up by `label`."""
    names = [name for name in spec.columns if name != "label_name"]
    # Of a row that is undecidable there is no set, not an empty one.
    if not _WITH_LABEL.isdisjoint(spec.columns) and "label" not in names:
        names.append("label")
    return tuple(COLUMNS[name] for name in names)


def column_dtype(spec: OutputSpec, column: Column) -> np.dtype[Any]:
    """Dtype of a computed column in memory."""
    by_kind = {"float": spec.float_dtype, "wide": spec.wide_dtype}
    return np.dtype(by_kind.get(column.kind, column.kind))


def _allocate(spec: OutputSpec) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    narrow: dict[str, NDArray[Any]] = {}
    wide: dict[str, NDArray[Any]] = {}
    for column in computed_columns(spec):
        dtype = column_dtype(spec, column)
        group, rows = (wide, spec.chunk_rows) if column.is_large else (narrow, spec.partition_rows)
        group[column.name] = np.empty((rows, *column.tail(spec.classes, spec.top_k, spec.members)), dtype)
    return narrow, wide
