"""The rows of a Parquet file as a stream of record batches, once its page headers are found to be sound.

Texts may be far more in memory than in the file, see `parquet_texts`: where they may be, they are read apart from the
logits, a few rows at a time, so that whoever takes them can stop.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from softmax_dask_pipelines.errors import MetadataLimitError
from softmax_dask_pipelines.sources.parquet_columns import ListColumn
from softmax_dask_pipelines.sources.parquet_files import Part, plain_errors
from softmax_dask_pipelines.sources.parquet_footer import Chunk
from softmax_dask_pipelines.sources.parquet_pages import Page, sound_pages
from softmax_dask_pipelines.sources.parquet_places import File, arrow_source
from softmax_dask_pipelines.sources.parquet_texts import TextChunk
from softmax_dask_pipelines.sources.range_file import RangeFile

TEXT_BATCH_BYTES = 16 * 2**20
"""Text that is decoded at once, at most, beside the pages that it is in."""

_BUFFERS_BYTES = 8 * 2**20


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
        if not isinstance(file, RangeFile):
            yield from _batches(part, file, rows, columns, batch_rows)
            return
        # What is far away is looked at and decoded a row group at a time, so that each is fetched once.
        leaves = part.leaves_of((*columns.numbers, *columns.texts))
        file.blocks.expect(place for group in _groups(part, rows) for place in _places(part, group, leaves))
        for span in _by_group(part, rows):
            file.blocks.fetch_ahead(min(_places(part, _groups(part, span).start, leaves), default=(0, 0))[0])
            yield from _batches(part, file, span, columns, batch_rows)


def _places(part: Part, group: int, leaves: Sequence[int]) -> list[tuple[int, int]]:
    """Where columns of a row group begin in the file, and their bytes."""
    chunks = (Chunk._make(fields) for fields in part.chunks[group, leaves].tolist())
    return [(chunk.start, chunk.compressed_bytes) for chunk in chunks]


def _groups(part: Part, rows: range) -> range:
    return range(bisect_right(part.group_starts, rows.start) - 1, bisect_right(part.group_starts, rows.stop - 1))


def _batches(part: Part, file: File, rows: range, columns: Columns, batch_rows: int) -> Iterator[Batch]:
    with plain_errors(part.path):
        seen = _checked(part, file, columns, _groups(part, rows), batch_rows)
    if not columns.texts or seen.text_rows >= batch_rows:
        together = (*columns.numbers, *columns.texts)
        for first, batch in _numbers(part, file, rows, columns.lists, together, seen.pages, batch_rows):
            yield Batch(first, batch, [batch])
        return
    texts = _Rows(batch for _, batch in _by_arrow(part, file, rows, columns.texts, seen.text_rows))
    for first, batch in _numbers(part, file, rows, columns.lists, columns.numbers, seen.pages, batch_rows):
        yield Batch(first, batch, texts.take(batch.num_rows))


def _numbers(
    part: Part,
    file: File,
    rows: range,
    lists: ListColumn | None,
    names: Sequence[str],
    pages: Mapping[int, Sequence[Page]],
    batch_rows: int,
) -> Iterator[tuple[int, Any]]:
    """Batches of these columns, each with its first row."""
    if lists is None:
        yield from _by_arrow(part, file, rows, names, batch_rows)
        return
    found = _lists(part, file, rows, lists, pages, batch_rows)
    others = tuple(name for name in names if name != lists.name)
    if not others:
        yield from found
        return
    beside = _Rows(batch for _, batch in _by_arrow(part, file, rows, others, batch_rows))
    for first, batch in found:
        yield first, _joined(batch, list(beside.take(batch.num_rows)))


def _lists(
    part: Part, file: File, rows: range, lists: ListColumn, pages: Mapping[int, Sequence[Page]], batch_rows: int
) -> Iterator[tuple[int, Any]]:
    """Batches of that column alone; by Arrow from where a row group is not as the direct lane needs it."""
    from softmax_dask_pipelines.sources.parquet_direct import as_batch, list_blocks  # late: it brings Numba

    for span in _by_group(part, rows):
        group, row = _groups(part, span).start, span.start
        blocks = list_blocks(part, file, lists, group=group, pages=pages[group], rows=span, batch_rows=batch_rows)
        for block in blocks:
            yield row, as_batch(block, lists)
            row += len(block)
        if row < span.stop:
            yield from _by_arrow(part, file, range(row, span.stop), (lists.name,), batch_rows)


def _joined(batch: Any, others: Sequence[Any]) -> Any:
    """One batch of the columns of `batch` and of those of `others`, which follow one another."""
    beside = pa.Table.from_batches(others).combine_chunks().to_batches()[0] if len(others) > 1 else others[0]
    return pa.RecordBatch.from_arrays(
        [*batch.columns, *beside.columns], names=[*batch.schema.names, *beside.schema.names]
    )


@contextmanager
def _opened(part: Part) -> Iterator[File]:
    with ExitStack() as stack:
        with plain_errors(part.path):
            file = stack.enter_context(part.opened())
        yield file


def _by_group(part: Part, rows: range) -> Iterator[range]:
    for start, stop in pairwise(part.group_starts):
        if max(start, rows.start) < min(stop, rows.stop):
            yield range(max(start, rows.start), min(stop, rows.stop))


def buffer_bytes(columns: int) -> int:
    """Read-ahead of one column. Without it Arrow takes the column's part of a row group into memory whole."""
    return max(2**14, min(2**20, _BUFFERS_BYTES // max(1, columns)))


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


def _checked(part: Part, file: File, columns: Columns, groups: range, batch_rows: int) -> _Seen:
    """Refuses pages that lie, or that no memory is planned for."""
    texts, lists = set(part.leaves_of(columns.texts)), part.leaves_of([columns.lists.name] if columns.lists else [])
    fewest, found = batch_rows, {}
    leaves = part.leaves_of((*columns.numbers, *columns.texts))
    chunks = part.chunks[groups.start : groups.stop, leaves].tolist()
    for group, row in zip(groups, chunks, strict=True):
        for leaf, fields in zip(leaves, row, strict=True):
            chunk = Chunk._make(fields)
            pages = _planned_pages(file, chunk, where_is(part, leaf, group), columns.page_bytes)
            if leaf in texts:
                rows = min(batch_rows, part.group_starts[group + 1] - part.group_starts[group])
                text = text_chunk(file, part, leaf, chunk)
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


def _by_arrow(
    part: Part, file: File, rows: range, columns: Sequence[str], batch_rows: int
) -> Iterator[tuple[int, Any]]:
    return _cut(part, rows, _stream(part, file, _groups(part, rows), columns, batch_rows))


def _stream(part: Part, file: File, groups: range, columns: Sequence[str], batch_rows: int) -> Iterator[Any]:
    with pq.ParquetFile(
        arrow_source(part.path, file),
        metadata=part.metadata,
        buffer_size=buffer_bytes(len(columns)),
        pre_buffer=False,
        page_checksum_verification=True,
    ) as reader:
        yield from reader.iter_batches(
            batch_size=batch_rows, row_groups=list(groups), columns=list(columns), use_threads=False
        )


def _cut(part: Part, rows: range, stream: Iterator[Any]) -> Iterator[tuple[int, Any]]:
    """Only `rows` of a stream that begins with the row group of the first of them; each with its first row."""
    row = part.group_starts[bisect_right(part.group_starts, rows.start) - 1]
    with plain_errors(part.path):
        for batch in stream:
            first, last = max(row, rows.start), min(row + batch.num_rows, rows.stop)
            if first < last:
                yield first, batch.slice(first - row, last - first)
            row += batch.num_rows
            if row >= rows.stop:
                return
        raise OSError(f"its rows end at {row} of {rows.stop}")


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
