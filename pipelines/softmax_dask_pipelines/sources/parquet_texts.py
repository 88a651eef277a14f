"""How much memory the texts of a Parquet column take once they are decoded: a text that repeats is stored once.

No header says it. What a page takes at most follows from its size where texts stand one by one, from the dictionary
where they are numbers of its entries, and from their lengths where each is what it does not share with the last one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softmax_dask_pipelines.sources.parquet_delta import shared_lengths
from softmax_dask_pipelines.sources.parquet_footer import Chunk
from softmax_dask_pipelines.sources.parquet_pages import Page
from softmax_dask_pipelines.sources.parquet_places import File, read_at

_PLAIN, _OLD_DICTIONARY, _DELTA_LENGTHS, _DELTA, _DICTIONARY = 0, 2, 6, 7, 8
_CODECS = {1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}
"""Those that pyarrow decompresses by themselves, by Parquet's number."""


@dataclass(frozen=True, slots=True)
class TextChunk:
    """A column of text in one row group."""

    file: File
    chunk: Chunk
    is_nullable: bool
    """So that a page begins with levels, which say where nulls are."""

    def largest(self, pages: Iterable[Page], *, rows: int, allowed_bytes: int) -> int:
        """Bytes of a row: so many rows take no more than that, and the pages that they touch.

        Dictionaries and lengths are looked at only where the size of the page does not say that `rows` take no more
        than `allowed_bytes`.
        """
        enough = allowed_bytes // max(1, rows)
        largest, entry = 0, 0
        dictionary: Page | None = None
        for page in pages:
            if page.encoding in (_DICTIONARY, _OLD_DICTIONARY):
                if dictionary is not None:
                    entry, dictionary = max(entry, self._longest_entry(dictionary, enough)), None
                largest = max(largest, entry)
            elif page.encoding == -1:
                dictionary = page
            elif page.values:
                largest = max(largest, self._row_bytes(page, enough))
        return largest

    def mean(self, pages: Iterable[Page]) -> float:
        """Bytes of a row, on average of these pages; of a dictionary as if all entries were used alike."""
        total, values, entry = 0.0, 0, 0.0
        for page in pages:
            if page.encoding == -1:
                entry = page.uncompressed_bytes / max(1, page.entries)
            elif page.encoding in (_DICTIONARY, _OLD_DICTIONARY):
                total += page.values * entry
            elif page.encoding == _DELTA:
                total += self._shared(page)[0] + page.uncompressed_bytes
            else:
                total += page.uncompressed_bytes
            values += page.values
        return total / max(1, values)

    def _row_bytes(self, page: Page, enough: int) -> int:
        alone = ceil(page.uncompressed_bytes / page.values)
        if page.encoding in (_PLAIN, _DELTA_LENGTHS):
            return alone
        if page.encoding == _DELTA and page.uncompressed_bytes > enough:
            return alone + self._shared(page)[1]
        # One text may take all of the page, again and again.
        return page.uncompressed_bytes

    def _shared(self, page: Page) -> tuple[int, int]:
        """Bytes that texts share with the ones before, in all and at most; all of the page where it cannot be said."""
        try:
            data = self._content(page)
            has_levels = page.levels_bytes is None and self.is_nullable
            shared = shared_lengths(data, 4 + int.from_bytes(data[:4], "little") if has_levels else 0)
        except (ValueError, LookupError, OSError, pa.ArrowException):
            return page.uncompressed_bytes, page.uncompressed_bytes
        return int(shared.sum()), int(shared.max(initial=0))

    def _longest_entry(self, dictionary: Page, enough: int) -> int:
        """Bytes of the longest entry, or a bound of it that is at most `enough`."""
        bound = dictionary.uncompressed_bytes - 4 * max(0, dictionary.entries)
        if bound <= enough:
            return max(0, bound)
        try:
            return _longest(self._content(dictionary))
        except (ValueError, LookupError, OSError, pa.ArrowException):
            return dictionary.uncompressed_bytes

    def _content(self, page: Page) -> bytes:
        """The page, decompressed; of a page v2 without its levels."""
        levels = page.levels_bytes or 0
        if not 0 <= levels <= page.stored_bytes:
            raise ValueError(f"levels of {levels} bytes")
        stored = read_at(self.file, page.stored_bytes - levels, page.start + levels)
        if self.chunk.codec == 0 or not page.is_compressed:
            return stored
        size = page.uncompressed_bytes - levels
        content: bytes = pa.decompress(stored, decompressed_size=size, codec=_CODECS[self.chunk.codec], asbytes=True)
        return content


def _longest(entries: bytes) -> int:
    """Of texts that stand one by one, each after its length."""
    longest = _common_length(entries) or _longest_of_short(np.frombuffer(entries, np.uint8))
    if longest is not None:
        return longest
    longest = at = 0
    while at < len(entries):
        length = int.from_bytes(entries[at : at + 4], "little")
        if length > longest:
            longest = length
        at += 4 + length
    return longest


def _common_length(entries: bytes) -> int | None:
    """That of the first text if it is that of all, as of hashes; otherwise None."""
    first = int.from_bytes(entries[:4], "little")
    count, rest = divmod(len(entries), 4 + first)
    if rest:
        return None
    lengths = np.ndarray(count, "<u4", entries, strides=(4 + first,))
    return first if (lengths == first).all() else None


def _longest_of_short(entries: NDArray[np.uint8]) -> int | None:
    """The same at a third of the time, if the texts are shorter than 256 bytes and hold no zeros; otherwise None."""
    zero = entries == 0
    starts = np.flatnonzero(zero[1:-2] & zero[2:-1] & zero[3:])
    lengths = entries[starts].astype(np.int64)
    ends = starts + 4 + lengths
    follow = bool(len(starts)) and starts[0] == 0 and np.array_equal(starts[1:], ends[:-1]) and ends[-1] == len(zero)
    return int(lengths.max()) if follow else None
