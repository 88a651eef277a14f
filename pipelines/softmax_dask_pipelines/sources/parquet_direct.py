"""The direct lane: lists of one length, read from their pages, without a level being unpacked.

Arrow makes two numbers of each logit's levels before it looks at the logit, which takes longer than all else. Here
levels are compared with those of full rows, as they are stored. This lane knows the usual encodings and explains
nothing: whatever is not as it should be ends it, and then Arrow reads the same rows, or says what is wrong with them.
"""

import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softmax_dask_pipelines import arrow
from softmax_dask_pipelines.errors import PipelineError
from softmax_dask_pipelines.sources.blocks import aligned
from softmax_dask_pipelines.sources.parquet_arrow import Span
from softmax_dask_pipelines.sources.parquet_codecs import DECODED, LZ4, decompress
from softmax_dask_pipelines.sources.parquet_columns import ListColumn
from softmax_dask_pipelines.sources.parquet_encodings import (
    Bytes,
    join_streams,
    look_up,
    row_pattern,
    rows_begin,
    run_header,
)
from softmax_dask_pipelines.sources.parquet_footer import Chunk
from softmax_dask_pipelines.sources.parquet_pages import Page
from softmax_dask_pipelines.sources.parquet_places import File, read_at

_PLAIN, _OLD_DICTIONARY, _DICTIONARY, _SPLIT = 0, 2, 8, 9
_PHYSICAL: Mapping[tuple[str, int], str] = MappingProxyType(
    {("FLOAT", 0): "float32", ("DOUBLE", 0): "float64", ("FIXED_LEN_BYTE_ARRAY", 2): "float16", ("INT32", 0): "int32"}
)
"""What a value is in a page. Integers of fewer bits take 32 there, and so does bfloat16."""
_LEAST_PAGE_BYTES = 2**16
"""Of smaller pages, on average, Arrow is as fast: here each page costs some Python."""
_MOST_LOOKED_UP_BYTES = 4 * 2**20
"""Values that a page of a few bytes may stand for; the memory that is planned for Arrow's levels holds them."""
_MOST_LZ4_BYTES = 8 * 2**20
"""Of a page, which is in memory three times while it is decompressed; planned are two, and Arrow's levels."""


def list_blocks(span: Span, column: ListColumn, pages: Sequence[Page]) -> Iterator[NDArray[Any]]:
    """The logits of these rows, (rows, classes), in memory of their own. Fewer: ask Arrow for the rest.

    Parameters
    ----------
    span : of one row group; a block ends where a multiple of `batch_rows` rows of the row group does
    pages : of the column in this row group, as `sound_pages` found them
    """
    first = span.part.group_starts[span.groups.start]
    start, stop = span.rows.start - first, span.rows.stop - first
    try:
        lengths = (len(block) for block in aligned(start, stop, span.batch_rows))
        yield from _ListChunk.of(span, column, pages).blocks(start, lengths)
    except (MemoryError, PipelineError):
        raise
    except Exception:  # every codec raises errors of its own
        return


def compile_kernels(column: ListColumn) -> None:
    """Compile, or load, what looks at the values of this column."""
    dtype = column.numbers.stored
    itemsize = 4 if dtype.kind in "iu" else dtype.itemsize
    nothing, values = _fixed(np.zeros(1, np.uint8)), np.empty(0, f"u{itemsize}")
    rows_begin(nothing, 0, column.classes, _pattern(column.classes), 0)
    run_header(nothing, 0)
    look_up(nothing, _fixed(values.copy()), values)
    join_streams(nothing[:0], values)


def as_batch(logits: NDArray[Any], column: ListColumn) -> Any:
    """A record batch of this column alone, in the memory of `logits`."""
    values = arrow.numbers(logits.reshape(-1))
    return pa.RecordBatch.from_arrays([pa.FixedSizeListArray.from_arrays(values, column.classes)], [column.name])


class _NotPlainError(Exception):
    """Something is not as this lane needs it."""


@dataclass(frozen=True, slots=True)
class _ListChunk:
    """The column of logits in one row group."""

    file: File
    chunk: Chunk
    pages: Sequence[Page]
    classes: int
    dtype: np.dtype[Any]
    """Of the blocks: that of the column, uint16 for bfloat16."""
    stored_dtype: np.dtype[Any]
    """In the pages."""
    full_level: int
    """Definition level of a logit that is there."""

    @classmethod
    def of(cls, span: Span, column: ListColumn, pages: Sequence[Page]) -> "_ListChunk":
        """If it is as this lane knows it."""
        part, group = span.part, span.groups.start
        (leaf,) = part.leaves_of((column.name,))
        ((chunk,),) = span.chunks([leaf])
        described = part.metadata.schema.column(leaf)
        rows = part.group_starts[group + 1] - part.group_starts[group]
        dtype = column.numbers.stored
        stored = np.dtype(_PHYSICAL[described.physical_type, max(0, described.length)])
        _require(sys.byteorder == "little" and column.classes > 0 and described.max_repetition_level == 1)
        _require(stored == dtype or (stored == np.int32 and dtype.kind in "iu" and dtype.itemsize <= 4))
        _require(chunk.codec in DECODED and chunk.values == rows * column.classes)
        _require(chunk.uncompressed_bytes >= _LEAST_PAGE_BYTES * len(pages) or len(pages) <= 2)
        _require(chunk.codec != LZ4 or all(page.uncompressed_bytes <= _MOST_LZ4_BYTES for page in pages))
        return cls(span.file, chunk, pages, column.classes, dtype, stored, described.max_definition_level)

    def blocks(self, first_row: int, lengths: Iterable[int]) -> Iterator[NDArray[Any]]:
        """Blocks of so many rows, from `first_row` of the row group on, each (rows, classes) in memory of its own."""
        values = self._values(first_row * self.classes)
        rest = np.empty(0, self.stored_dtype)
        for length in lengths:
            block = np.empty(length * self.classes, self.dtype)
            filled = 0
            while filled < len(block):
                if not len(rest):
                    del rest  # or the page before would stay beside the next one
                    rest = next(values)
                count = min(len(rest), len(block) - filled)
                block[filled : filled + count] = rest[:count]
                filled, rest = filled + count, rest[count:]
            yield block.reshape(length, self.classes)

    def _values(self, first: int) -> Iterator[NDArray[Any]]:
        """The logits page by page, from that one on; pages before it are not read."""
        dictionary: Bytes | None = None
        at = 0
        for page in self.pages:
            if page.encoding == -1:
                _require(dictionary is None and at == 0)
                dictionary = self._dictionary(page)
            elif page.values and at + page.values > first:
                yield self._page_values(page, at % self.classes, dictionary)[max(0, first - at) :]
            at += page.values
        raise _NotPlainError

    def _dictionary(self, page: Page) -> Bytes:
        _require(page.levels_bytes is None)
        content = self._decompressed(self._stored(page), page.uncompressed_bytes)
        _require(len(content) == page.entries * self.stored_dtype.itemsize)
        return content

    def _page_values(self, page: Page, place: int, dictionary: Bytes | None) -> NDArray[Any]:
        """Of a page whose first logit is of class `place`."""
        repetition, definition, content = self._split(page)
        _require(rows_begin(repetition, page.values, self.classes, _pattern(self.classes), place))
        _require(_are_all(definition, page.values, self.full_level))
        if page.encoding in (_PLAIN, _SPLIT):
            _require(len(content) == page.values * self.stored_dtype.itemsize)
        if page.encoding == _PLAIN:
            return content.view(self.stored_dtype)
        return self._decoded(page, content, dictionary).view(self.stored_dtype)

    def _decoded(self, page: Page, content: Bytes, dictionary: Bytes | None) -> NDArray[Any]:
        """Values as unsigned integers."""
        unsigned = np.dtype(f"u{self.stored_dtype.itemsize}")
        if page.encoding == _SPLIT:
            values = np.empty(page.values, unsigned)
            join_streams(content, values)
            return values
        _require(page.encoding in (_DICTIONARY, _OLD_DICTIONARY))
        _require(page.values * self.stored_dtype.itemsize <= _MOST_LOOKED_UP_BYTES)
        values = np.empty(page.values, unsigned)
        entries = np.empty(0, unsigned) if dictionary is None else dictionary.view(unsigned)
        _require(look_up(content, entries, values))
        return values

    def _split(self, page: Page) -> tuple[Bytes, Bytes, Bytes]:
        """Repetition levels, definition levels, and what is encoded."""
        stored, size = self._stored(page), page.uncompressed_bytes
        if page.levels_bytes is None:
            repetition, content = _after_length(self._decompressed(stored, size))
            return repetition, *_after_length(content)
        _require(0 <= page.repetition_bytes <= page.levels_bytes <= min(size, len(stored)))
        repetition, definition, content = np.split(stored, [page.repetition_bytes, page.levels_bytes])
        if page.is_compressed:
            content = self._decompressed(content, size - page.levels_bytes)
            repetition, definition = repetition.copy(), definition.copy()  # not views, which would keep what is stored
        return _fixed(repetition), _fixed(definition), content

    def _stored(self, page: Page) -> Bytes:
        stored = read_at(self.file, page.stored_bytes, page.start)
        _require(len(stored) == page.stored_bytes)
        _require(page.checksum is None or zlib.crc32(stored) == page.checksum)
        return np.frombuffer(stored, np.uint8)

    def _decompressed(self, stored: Bytes, size: int) -> Bytes:
        return _fixed(np.frombuffer(decompress(stored, size, self.chunk.codec), np.uint8))


@lru_cache(maxsize=4)
def _pattern(classes: int) -> Bytes:
    return row_pattern(classes)


def _fixed(content: NDArray[Any]) -> NDArray[Any]:
    """The same, which nobody may write to: as the compiled parts take it."""
    content.flags.writeable = False
    return content


def _after_length(content: Bytes) -> tuple[Bytes, Bytes]:
    """Levels, and what follows them; before them stands how many bytes they take."""
    end = 4 + int.from_bytes(content[:4].tobytes(), "little")
    _require(end <= len(content))
    return content[4:end], content[end:]


def _are_all(levels: Bytes, count: int, level: int) -> bool:
    """Whether so many levels are all this one, which is the largest."""
    bits, at = level.bit_length(), 0
    while count > 0:
        header, at = run_header(levels, at)
        length = header >> 1
        if length <= 0:
            return False
        if header & 1:  # as some writers do with the last few
            length, size = 8 * length, bits * length
            mask = (1 << bits * min(length, count)) - 1
            if int.from_bytes(levels[at : at + size].tobytes(), "little") & mask != mask // ((1 << bits) - 1) * level:
                return False
            at += size
        else:
            if levels[at] != level:
                return False
            at += 1
        count -= length
    return True


def _require(is_so: bool) -> None:
    if not is_so:
        raise _NotPlainError
