"""The rows of a Parquet file as a stream of record batches, once its page headers are found to be sound.

Texts may be far more in memory than in the file, see `parquet_texts`: where they may be, they are read apart from the
logits, a few rows at a time, so that whoever takes them can stop.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from softmax_dask_pipelines.errors import MetadataLimitError
from softmax_dask_pipelines.sources.parquet_arrow import Span
from softmax_dask_pipelines.sources.parquet_columns import ListColumn
from softmax_dask_pipelines.sources.parquet_files import Part, plain_errors
from softmax_dask_pipelines.sources.parquet_footer import Chunk
from softmax_dask_pipelines.sources.parquet_pages import Page, sound_pages
from softmax_dask_pipelines.sources.parquet_places import File
from softmax_dask_pipelines.sources.parquet_texts import TextChunk
from softmax_dask_pipelines.sources.range_file import RangeFile

TEXT_BATCH_BYTES = 16 * 2**20
"""Text that is decoded at once, at most, beside the pages that it is in."""


@dataclass(frozen=True, slots=True)
class Columns:
    """What is read of a file."""

    numbers: tuple[str, ...]
    texts: tuple[str, ...] = ()
    page_bytes: int | None = None
    """Largest page that memory is planned for; None: the plan is yet to be made."""
    lists: ListColumn | None = None
    """One of the numbers, if it may be read by `parquet_direct`."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a file."""

    first_row: int
    """In the file."""
    numbers: Any
    """pyarrow.RecordBatch"""
    texts: Iterable[Any]
    """Record batches, of the same rows in all; decoded when they are taken, and to be taken before the next batch."""


def batches(part: Part, rows: range, columns: Columns, *, batch_rows: int) -> Iterator[Batch]:
    """Batches of at most `batch_rows` rows that cover `rows`."""
    with _opened(part) as file:
        span = Span(part, file, rows, batch_rows)
        if not isinstance(file, RangeFile):
            yield from _batches(span, columns)
            return
        # What is far away is looked at and decoded a row group at a time, so that each is fetched once.
        leaves = part.leaves_of((*columns.numbers, *columns.texts))
        file.blocks.expect((chunk.start, chunk.compressed_bytes) for group in span.chunks(leaves) for chunk in group)
        for one in span.by_group():
            (chunks,) = one.chunks(leaves)
            file.blocks.fetch_ahead(min((chunk.start for chunk in chunks), default=0))
            yield from _batches(one, columns)


@contextmanager
def _opened(part: Part) -> Iterator[File]:
    with ExitStack() as stack:
        with plain_errors(part.path):
            file = stack.enter_context(part.opened())
        yield file


def _batches(span: Span, columns: Columns) -> Iterator[Batch]:
    with plain_errors(span.part.path):
        seen = _checked(span, columns)
    if not columns.texts or seen.text_rows >= span.batch_rows:
        for first, batch in _together(span, columns.lists, (*columns.numbers, *columns.texts), seen.pages):
            yield Batch(first, batch, [batch])
        return
    texts = _Rows(batch for _, batch in span.by_arrow(columns.texts, batch_rows=seen.text_rows))
    for first, batch in _together(span, columns.lists, columns.numbers, seen.pages):
        yield Batch(first, batch, texts.take(batch.num_rows))


def _together(
    span: Span, lists: ListColumn | None, names: Sequence[str], pages: Mapping[int, Sequence[Page]]
) -> Iterator[tuple[int, Any]]:
    """Batches of these columns, each with its first row."""
    if lists is None:
        yield from span.by_arrow(names)
        return
    found = _lists(span, lists, pages)
    others = tuple(name for name in names if name != lists.name)
    if not others:
        yield from found
        return
    beside = _Rows(batch for _, batch in span.by_arrow(others))
    for first, batch in found:
        yield first, _joined(batch, list(beside.take(batch.num_rows)))


def _lists(span: Span, lists: ListColumn, pages: Mapping[int, Sequence[Page]]) -> Iterator[tuple[int, Any]]:
    """Batches of that column alone; by Arrow from where a row group is not as the direct lane needs it."""
    from softmax_dask_pipelines.sources.parquet_direct import as_batch, list_blocks  # late: it brings Numba

    for one in span.by_group():
        row = one.rows.start
        for block in list_blocks(one, lists, pages[one.groups.start]):
            yield row, as_batch(block, lists)
            row += len(block)
        if row < one.rows.stop:
            yield from one.of(range(row, one.rows.stop)).by_arrow((lists.name,))


def _joined(batch: Any, others: Sequence[Any]) -> Any:
    """One batch of the columns of `batch` and of those of `others`, which follow one another."""
    beside = pa.Table.from_batches(others).combine_chunks().to_batches()[0] if len(others) > 1 else others[0]
    return pa.RecordBatch.from_arrays(
        [*batch.columns, *beside.columns], names=[*batch.schema.names, *beside.schema.names]
    )


def text_chunk(file: File, part: Part, leaf: int, chunk: Chunk) -> TextChunk:
    """A column of text in one row group; `leaf` is its place among the leaves."""
    # Of the schema, which pyarrow has read whole, not of a row group: see `parquet_footer`.
    return TextChunk(file, chunk, is_nullable=part.metadata.schema.column(leaf).max_definition_level > 0)


def where_is(part: Part, leaf: int, group: int) -> str:
    """For messages."""
    return f"{part.path}: column {part.leaves[leaf]!r} of row group {group}"


class _Seen(NamedTuple):
    """What the headers of pages say."""

    text_rows: int
    """Rows of text that can be decoded at once."""
    pages: Mapping[int, Sequence[Page]]
    """Of the column of lists, by row group."""


def _checked(span: Span, columns: Columns) -> _Seen:
    """Refuses pages that lie, or that no memory is planned for."""
    part = span.part
    texts, lists = part.leaves_of(columns.texts), part.leaves_of([columns.lists.name] if columns.lists else [])
    leaves = part.leaves_of((*columns.numbers, *columns.texts))
    fewest, found = span.batch_rows, {}
    for group, chunks in zip(span.groups, span.chunks(leaves), strict=True):
        for leaf, chunk in zip(leaves, chunks, strict=True):
            pages = _planned_pages(span.file, chunk, where_is(part, leaf, group), columns.page_bytes)
            if leaf in texts:
                rows = min(span.batch_rows, part.group_starts[group + 1] - part.group_starts[group])
                text = text_chunk(span.file, part, leaf, chunk)
                largest = text.largest(pages, rows=rows, allowed_bytes=TEXT_BATCH_BYTES)
                fewest = min(fewest, max(1, TEXT_BATCH_BYTES // max(1, largest)))
            if leaf in lists:
                found[group] = list(pages)
            for _ in pages:
                pass
    return _Seen(fewest, found)


def _planned_pages(file: File, chunk: Chunk, where: str, page_bytes: int | None) -> Iterator[Page]:
    for page in sound_pages(file, chunk, where):
        if page_bytes is not None and page.uncompressed_bytes > page_bytes:
            raise MetadataLimitError(
                f"{where}: a page decompresses to {page.uncompressed_bytes} bytes; expected at most {page_bytes}, "
                "as the memory for it is planned from other pages. Write the file again, with pages of about 1 MiB."
            )
        yield page


class _Rows:
    """Record batches from which any number of rows can be taken."""

    def __init__(self, batches: Iterator[Any]) -> None:
        self._batches = batches
        self._rest: Any = None

    def take(self, rows: int) -> Iterator[Any]:
        while rows:
            batch = self._rest if self._rest is not None else next(self._batches)
            head, rest = batch.slice(0, rows), batch.slice(rows)
            self._rest = rest if rest.num_rows else None
            rows -= head.num_rows
            yield head
