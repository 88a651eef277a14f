"""Logits in Parquet: a file, a folder or a pattern; lists, bytes, or one column a class.

Rows are streamed: of a row group only the pages of a block are in memory, however large the group.
"""

from collections.abc import Iterator, Sequence

from softmax_dask import ClassAxisError
from softmax_dask_pipelines.errors import ColumnNotFoundError, SchemaMismatchError, SourceFormatError
from softmax_dask_pipelines.sources.blocks import aligned, regrouped, rows_per_read
from softmax_dask_pipelines.sources.names import require_class_names
from softmax_dask_pipelines.sources.parquet_arrow import buffer_bytes
from softmax_dask_pipelines.sources.parquet_carried import CarriedColumns, TextAllowance
from softmax_dask_pipelines.sources.parquet_choice import choose
from softmax_dask_pipelines.sources.parquet_columns import BinaryColumn, ListColumn, Logits, WideColumns
from softmax_dask_pipelines.sources.parquet_files import Part, open_parts
from softmax_dask_pipelines.sources.parquet_kinds import Choice
from softmax_dask_pipelines.sources.parquet_metadata import (
    codec_text,
    column_bytes,
    common_group_rows,
    largest_chunk_bytes,
    largest_group_rows,
    stored_class_names,
)
from softmax_dask_pipelines.sources.parquet_nulls import Place
from softmax_dask_pipelines.sources.parquet_stream import (
    TEXT_BATCH_BYTES,
    Batch,
    Columns,
    batches,
)
from softmax_dask_pipelines.sources.parquet_survey import survey
from softmax_dask_pipelines.sources.protocol import SourceBlock, SourceFacts, SourceRequest
from softmax_dask_pipelines.sources.range_file import BLOCK_BYTES, HELD_BYTES
from softmax_dask_pipelines.sources.sigmoid import classes_of_rows
from softmax_dask_pipelines.sources.stamps import FileStamps, Stamps, digests_of

_USUAL_TEXT_BYTES = 256
"""Texts of a row beyond this make blocks of fewer rows."""


class ParquetSource:
    """The rows of all files, in the natural order of their names."""

    def __init__(self, request: SourceRequest, path: str) -> None:
        self._parts = open_parts(
            path,
            request.storage_options,
            settle_s=request.settle_s,
            by_content=request.verify_input == "content",
        )
        self._logits = _logits_of_all(self._parts, request)
        self._row_classes = classes_of_rows(
            request, self._logits.classes, where=f"{self._parts[0].path}: {self._logits.name}"
        )
        names = self._class_names(request)
        carried = CarriedColumns.of(self._parts, request, classes=self._row_classes, class_names=names)
        self._survey = survey(self._parts, logits=self._logits.names, others=carried.names, texts=carried.texts)
        self._carried = carried.with_text_bytes(self._survey.text_bytes)
        self._text_bytes = sum(self._survey.text_bytes.values())
        self._columns = Columns(
            numbers=(*self._logits.names, *carried.numbers),
            texts=carried.texts,
            page_bytes=self._survey.page_bytes,
            lists=self._logits if isinstance(self._logits, ListColumn) else None,
        )
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

    def compile(self) -> None:
        """What decodes lists."""
        if self._columns.lists is not None:
            from softmax_dask_pipelines.sources.parquet_direct import compile_kernels  # late: it brings Numba

            compile_kernels(self._columns.lists)

    def stamps(self) -> Stamps:
        """How the files look now."""
        place, files = self._parts[0].place, [part.path for part in self._parts]
        looks = zip(place.looks(files), (part.footer_digest for part in self._parts), strict=True)
        # What it was before object stores: a plan of an earlier program must be known again.
        told = (None if look is None else (*look, footer) for look, footer in looks)
        names = tuple(place.name(file) for file in files)
        return Stamps("", files=FileStamps(names, tuple(p.rows for p in self._parts), digests_of(told, len(files))))

    def content(self, name: str, rows: range) -> str:
        """Nothing: a file does not grow."""
        return ""

    def _pieces(self, start: int, stop: int) -> Iterator[SourceBlock]:
        allowance = TextAllowance(self._facts.path, stop - start, self._text_bytes)
        for part in self._parts:
            first, last = max(start, part.first_row), min(stop, part.first_row + part.rows)
            if first < last:
                rows = range(first - part.first_row, last - part.first_row)
                for batch in batches(part, rows, self._columns, batch_rows=self._facts.read_rows):
                    yield self._piece(batch, part, allowance)

    def _piece(self, batch: Batch, part: Part, allowance: TextAllowance) -> SourceBlock:
        place = Place(part.path, batch.first_row, part.first_row + batch.first_row)
        logits = self._logits.values(batch.numbers, place)
        carried, targets = self._carried.values(batch, part, first_row=place.source_row, allowance=allowance)
        return SourceBlock(logits, carried, targets)

    def _class_names(self, request: SourceRequest) -> tuple[str, ...] | None:
        own = self._logits.class_names if isinstance(self._logits, WideColumns) else None
        names = request.class_names or stored_class_names(self._parts) or own
        return None if names is None else require_class_names(names, self._row_classes, where=self._parts[0].path)

    def _described(self, path: str, class_names: tuple[str, ...] | None) -> SourceFacts:
        rows = self._parts[-1].first_row + self._parts[-1].rows
        dtype = self._logits.numbers.block_dtype
        row_bytes = self._row_classes * dtype.itemsize
        group_rows = common_group_rows(self._parts)
        read_rows = rows_per_read(
            unit_rows=1, group_rows=group_rows, row_bytes=row_bytes + max(0, self._text_bytes - _USUAL_TEXT_BYTES)
        )
        return SourceFacts(
            path=path,
            format="parquet",
            name=self._logits.name,
            rows=rows,
            classes=self._logits.classes,
            dtype=dtype,
            read_rows=max(1, min(rows, read_rows)),
            read_overhead_bytes=self._overhead_bytes(min(rows, read_rows), row_bytes),
            stored_bytes=column_bytes(self._parts, self._logits.names),
            codec=codec_text(self._parts, self._logits.names[0], self._survey.has_checksums),
            layout=_layout_text(self._parts, self._logits),
            class_names=class_names,
            carried=self._carried.carried,
            target_name=self._carried.target_name,
            boundary_rows=max(read_rows, group_rows),
            chunk_rows=largest_group_rows(self._parts),
            has_checksum=self._survey.has_checksums,
            row_kind=self._logits.kind,
        )

    def _overhead_bytes(self, read_rows: int, row_bytes: int) -> int:
        """A batch beside the block it is copied to, its list levels, its texts, and a page and a buffer a column."""
        columns = [*self._columns.numbers, *self._columns.texts]
        pages = (min(self._survey.page_bytes, largest) for largest in largest_chunk_bytes(self._parts, columns))
        levels = 4 * read_rows * self._logits.classes
        if self._logits.numbers.abstain:
            levels += read_rows * (row_bytes + 2 * self._logits.classes)  # a copy without the nulls, and their bits
        texts = min(TEXT_BATCH_BYTES, read_rows * self._text_bytes)
        buffers = sum(2 * page + buffer_bytes(len(columns)) for page in pages)
        if self._parts[0].place.is_far:
            buffers += HELD_BYTES + BLOCK_BYTES
        return read_rows * row_bytes + levels + texts + buffers


def _logits_of_all(parts: Sequence[Part], request: SourceRequest) -> Logits:
    """The logits' columns, once they are the same in every file."""
    # Files without rows often have columns without types.
    typical = next((part for part in parts if part.rows), parts[0])
    chosen = choose(typical.schema, request, where=typical.path)
    first: tuple[Part, Logits] | None = None
    for part in parts:
        logits = _logits_of(part, chosen, typical)
        if logits is None:
            continue
        first = first or (part, logits)
        if not logits.fits(first[1]):
            raise SchemaMismatchError(
                f"{part.path} holds {logits}, but {first[0].path} holds {first[1]}; expected the same in "
                "every file. Score the files apart, or write one of them again."
            )
    if first is None:
        raise SourceFormatError(
            f"{parts[0].path}: {_no_rows(parts)}; expected fixed-size lists, or a row of logits. "
            "Write a fixed_size_list column."
        )
    return _with_classes(first[1], first[0].path)


def _logits_of(part: Part, chosen: Choice, typical: Part) -> Logits | None:
    if part is typical:
        return chosen.in_file(part)
    try:
        return chosen.in_file(part)
    except (ColumnNotFoundError, SourceFormatError) as error:
        raise SchemaMismatchError(
            f"{error} But {typical.path} has {chosen}; expected the same in every file. Score the files apart."
        ) from error


def _no_rows(parts: Sequence[Part]) -> str:
    if any(part.rows for part in parts):
        return "no row says how many classes there are, for all are null"
    return "holds no rows, so its lists do not say how many classes there are"


def _with_classes(logits: Logits, path: str) -> Logits:
    if logits.classes == 0:
        raise ClassAxisError(f"{path}: {logits}; expected at least 1 class. Write the logits again.")
    return logits


def _layout_text(parts: Sequence[Part], logits: Logits) -> str:
    groups = sum(part.metadata.num_row_groups for part in parts)
    read_as = f", bytes read as {logits.numbers.dtype}" if isinstance(logits, BinaryColumn) else ""
    return f"{len(parts)} file{'s' * (len(parts) != 1)}, {groups} row group{'s' * (groups != 1)}{read_as}"
