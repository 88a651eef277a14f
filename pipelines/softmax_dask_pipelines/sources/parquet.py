"""Logits in Parquet: one file or a folder of files, a list column or one column a class.

Rows are streamed: of a row group only the pages of a block are in memory, however large the group.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from softmax_dask.errors import ClassAxisError
from softmax_dask_pipelines.errors import SchemaMismatchError, SourceFormatError
from softmax_dask_pipelines.sources.blocks import aligned, regrouped, rows_per_read
from softmax_dask_pipelines.sources.names import require_class_names
from softmax_dask_pipelines.sources.parquet_carried import CarriedColumns
from softmax_dask_pipelines.sources.parquet_choice import choose
from softmax_dask_pipelines.sources.parquet_columns import Logits, Place, WideColumns
from softmax_dask_pipelines.sources.parquet_files import PAGE_BYTES, Part, batches, buffer_bytes, open_parts
from softmax_dask_pipelines.sources.parquet_metadata import (
    codec_text,
    column_bytes,
    common_group_rows,
    largest_chunk_bytes,
    stored_class_names,
)
from softmax_dask_pipelines.sources.protocol import SourceBlock, SourceFacts, SourceRequest


class ParquetSource:
    """The rows of all files, in the natural order of their names."""

    def __init__(self, request: SourceRequest, path: str) -> None:
        self._parts = open_parts(path)
        self._logits = _logits_of_all(self._parts, request)
        names = self._class_names(request)
        self._carried = CarriedColumns.of(self._parts, request, classes=self._logits.classes, class_names=names)
        self._facts = self._described(path, names)

    @property
    def facts(self) -> SourceFacts:
        """What is known without reading logits."""
        return self._facts

    def read(self, start: int, stop: int) -> Iterator[SourceBlock]:
        """Rows start..stop-1 in order, cut at the multiples of `facts.read_rows`."""
        assert 0 <= start <= stop <= self._facts.rows, f"rows {start}..{stop} of {self._facts.rows}"
        lengths = (len(rows) for rows in aligned(start, stop, self._facts.read_rows))
        return regrouped(self._pieces(start, stop), lengths)

    def _pieces(self, start: int, stop: int) -> Iterator[SourceBlock]:
        columns = [*self._logits.names, *self._carried.names]
        for part in self._parts:
            first, last = max(start, part.first_row), min(stop, part.first_row + part.rows)
            if first < last:
                rows = range(first - part.first_row, last - part.first_row)
                for row, batch in batches(part, rows, columns, batch_rows=self._facts.read_rows):
                    yield self._piece(batch, Place(part.path, row, part.first_row + row))

    def _piece(self, batch: Any, place: Place) -> SourceBlock:
        ids, targets = self._carried.values(batch, first_row=place.source_row)
        return SourceBlock(self._logits.values(batch, place), ids, targets)

    def _class_names(self, request: SourceRequest) -> tuple[str, ...] | None:
        own = self._logits.class_names if isinstance(self._logits, WideColumns) else None
        names = request.class_names or stored_class_names(self._parts) or own
        return None if names is None else require_class_names(names, self._logits.classes, where=self._parts[0].path)

    def _described(self, path: str, class_names: tuple[str, ...] | None) -> SourceFacts:
        rows = self._parts[-1].first_row + self._parts[-1].rows
        row_bytes = self._logits.classes * self._logits.dtype.itemsize
        group_rows = common_group_rows(self._parts)
        read_rows = rows_per_read(unit_rows=1, group_rows=group_rows, row_bytes=row_bytes)
        return SourceFacts(
            path=path,
            format="parquet",
            name=self._logits.name,
            rows=rows,
            classes=self._logits.classes,
            dtype=self._logits.dtype,
            read_rows=max(1, min(rows, read_rows)),
            read_overhead_bytes=self._overhead_bytes(min(rows, read_rows), row_bytes),
            stored_bytes=column_bytes(self._parts, self._logits.names),
            codec=codec_text(self._parts, self._logits.names[0]),
            layout=_layout_text(self._parts),
            class_names=class_names,
            id_name=self._carried.id_name,
            id_type=self._carried.id_type,
            target_name=self._carried.target_name,
            boundary_rows=max(read_rows, group_rows),
        )

    def _overhead_bytes(self, read_rows: int, row_bytes: int) -> int:
        """A batch beside the block it is copied to, its list levels, and a page and a buffer a column."""
        columns = len(self._logits.names) + len(self._carried.names)
        page = min(2 * PAGE_BYTES, largest_chunk_bytes(self._parts, self._logits.names[0]))
        levels = 4 * read_rows * self._logits.classes
        return read_rows * row_bytes + levels + columns * (2 * page + buffer_bytes(columns))


def _logits_of_all(parts: Sequence[Part], request: SourceRequest) -> Logits:
    """The logits' columns, once they are the same in every file."""
    chosen = choose(parts[0].schema, request, where=parts[0].path)
    first: tuple[Part, Logits] | None = None
    for part in parts:
        logits = chosen.in_file(part)
        if logits is None:
            continue
        if first is None:
            first = (part, logits)
        if logits != first[1]:
            raise SchemaMismatchError(
                f"{part.path} holds {logits}, but {first[0].path} holds {first[1]}; expected the same in "
                "every file. Score the files apart, or write one of them again."
            )
    if first is None:
        raise SourceFormatError(
            f"{parts[0].path}: holds no rows, so its lists do not say how many classes there are; expected "
            "fixed-size lists, or at least one row. Write a fixed_size_list column."
        )
    return _with_classes(first[1], first[0].path)


def _with_classes(logits: Logits, path: str) -> Logits:
    if logits.classes == 0:
        raise ClassAxisError(f"{path}: {logits}; expected at least 1 class. Write the logits again.")
    return logits


def _layout_text(parts: Sequence[Part]) -> str:
    groups = sum(part.metadata.num_row_groups for part in parts)
    return f"{len(parts)} file{'s' * (len(parts) != 1)}, {groups} row group{'s' * (groups != 1)}"
