"""Some rows of a Parquet file, and their columns as Arrow decodes them.

Nothing here looks at what pages claim: `parquet_stream` does, before it asks.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pyarrow.parquet as pq

from softmax_dask_pipelines.sources.parquet_files import Part, plain_errors
from softmax_dask_pipelines.sources.parquet_footer import Chunk
from softmax_dask_pipelines.sources.parquet_places import File, arrow_source

_BUFFERS_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Span:
    """Rows of one file that are read together."""

    part: Part
    file: File
    rows: range
    """In the file; at least one."""
    batch_rows: int
    """Rows of a batch, at most."""

    @property
    def groups(self) -> range:
        """The row groups that the rows are in."""
        starts = self.part.group_starts
        return range(bisect_right(starts, self.rows.start) - 1, bisect_right(starts, self.rows.stop - 1))

    def by_group(self) -> Iterator["Span"]:
        """The same rows, those of each row group by themselves."""
        for start, stop in pairwise(self.part.group_starts):
            if max(start, self.rows.start) < min(stop, self.rows.stop):
                yield self.of(range(max(start, self.rows.start), min(stop, self.rows.stop)))

    def of(self, rows: range) -> "Span":
        """Some of the rows."""
        return replace(self, rows=rows)

    def chunks(self, leaves: Sequence[int]) -> list[list[Chunk]]:
        """For each row group what the footer says of these leaves."""
        groups = self.groups
        found = self.part.chunks[groups.start : groups.stop, leaves].tolist()
        return [[Chunk._make(fields) for fields in row] for row in found]

    def by_arrow(self, columns: Sequence[str], *, batch_rows: int | None = None) -> Iterator[tuple[int, Any]]:
        """Record batches of these columns, each with its first row in the file."""
        stream = self._stream(columns, batch_rows or self.batch_rows)
        row = self.part.group_starts[self.groups.start]
        with plain_errors(self.part.path):
            for batch in stream:
                first, last = max(row, self.rows.start), min(row + batch.num_rows, self.rows.stop)
                if first < last:
                    yield first, batch.slice(first - row, last - first)
                row += batch.num_rows
                if row >= self.rows.stop:
                    return
            raise OSError(f"its rows end at {row} of {self.rows.stop}")

    def _stream(self, columns: Sequence[str], batch_rows: int) -> Iterator[Any]:
        """Whole row groups."""
        with pq.ParquetFile(
            arrow_source(self.part.path, self.file),
            metadata=self.part.metadata,
            buffer_size=buffer_bytes(len(columns)),
            pre_buffer=False,
            page_checksum_verification=True,
        ) as reader:
            yield from reader.iter_batches(
                batch_size=batch_rows, row_groups=list(self.groups), columns=list(columns), use_threads=False
            )


def buffer_bytes(columns: int) -> int:
    """Read-ahead of one column. Without it Arrow takes the column's part of a row group into memory whole."""
    return max(2**14, min(2**20, _BUFFERS_BYTES // max(1, columns)))
