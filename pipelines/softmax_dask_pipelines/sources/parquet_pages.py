"""Headers of Parquet pages: what a page says it decompresses to and holds, looked at before anything is decoded.

Arrow believes a page's header: a kilobyte that claims two gigabytes gets them. The footer says how much a column may
take in all, and is bounded itself, see `parquet_limits`.
"""

import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import BinaryIO, NamedTuple

from softmax_dask_pipelines.errors import CorruptFileError
from softmax_dask_pipelines.sources.parquet_footer import Chunk
from softmax_dask_pipelines.sources.parquet_thrift import (
    I32,
    Found,
    Struct,
    ThriftEndError,
    ThriftError,
    Wanted,
    read_i32,
    read_struct,
)

# Field numbers: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
_UNCOMPRESSED, _COMPRESSED, _CRC, _DATA_V1, _DATA_V2 = 2, 3, 4, 5, 8
_NUM_VALUES = 1
_HOLDS = Struct({_NUM_VALUES: I32})
_HEADER: Wanted = {_UNCOMPRESSED: I32, _COMPRESSED: I32, _CRC: I32, _DATA_V1: _HOLDS, _DATA_V2: _HOLDS}

_I32 = rb"[\x80-\xff]{0,4}[\x00-\x7f]"
_NUMBER_STATISTICS = (
    rb"\x1c(?:[\x18\x28\x38\x48\x58\x68](?:\x04.{4}|\x08.{8})|[\x16\x26\x36]" + _I32 + rb"|[\x11\x12\x21\x22])*\x00"
)
_USUAL_HEADER = re.compile(
    rb"\x15%(i)b\x15(%(i)b)\x15(%(i)b)(?:(\x15)%(i)b(?=[\x1c\x3c])|(?=[\x2c\x4c]))"
    rb"(?:[\x1c\x2c]\x15(%(i)b)\x15%(i)b\x15%(i)b\x15%(i)b(?:%(s)b)?|[\x3c\x4c]\x15%(i)b\x15%(i)b[\x11\x12]?)\x00\x00"
    % {b"i": _I32, b"s": _NUMBER_STATISTICS},
    re.DOTALL,
)
"""A data page v1 of numbers, or a dictionary, with the fields in their order: what most are. It finds what
`read_struct` would find, at half the cost: a file of one column a class has a page for each of them."""

_HEADER_BYTES = 256
"""As much as most headers are long."""
_LONGEST_HEADER_BYTES = 16 * 2**20
"""As much as Arrow reads."""
_SLACK_BYTES = 2**16
"""Some writers count a little less than they write."""


class Page(NamedTuple):
    """What a page says of itself."""

    uncompressed_bytes: int
    values: int
    """0 for a dictionary."""
    has_checksum: bool


def first_pages(path: str, chunk: Chunk, count: int, *, where: str) -> list[Page]:
    """At most so many pages of a column in one row group, `chunk` in the footer; CorruptFileError if they lie."""
    with open(path, "rb") as file:
        return list(islice(_pages(file, chunk, where), count))


def require_sound_pages(path: str, columns: Sequence[tuple[str, int, Chunk]]) -> None:
    """Refuse columns with a page that claims more than the footer says of the whole; each: name, row group, chunk."""
    with open(path, "rb") as file:
        for name, group, chunk in columns:
            for _ in _pages(file, chunk, f"{path}: column {name!r} of row group {group}"):
                pass


def _pages(file: BinaryIO, chunk: Chunk, where: str) -> Iterator[Page]:
    """The pages that Arrow would read, until they hold all values."""
    at, seen = chunk.start, 0
    while seen < chunk.values and at < chunk.start + chunk.compressed_bytes:
        page, stored, at = _header(file.fileno(), at, where)
        allowed = chunk.uncompressed_bytes + _SLACK_BYTES
        if not (0 <= page.uncompressed_bytes <= allowed and 0 <= stored <= chunk.compressed_bytes):
            raise _lie(where, f"decompresses from {stored} to {page.uncompressed_bytes} bytes", chunk)
        if not 0 <= page.values <= chunk.values:
            raise _lie(where, f"holds {page.values} values", chunk)
        yield page
        seen += page.values
        at += stored


def _header(descriptor: int, at: int, where: str) -> tuple[Page, int, int]:
    """What the header at that place says, the bytes of its page at rest, and where they begin."""
    data = os.pread(descriptor, _HEADER_BYTES, at)
    usual = _USUAL_HEADER.match(data)
    if usual is not None:
        values = 0 if usual[4] is None else read_i32(usual[4])
        return Page(read_i32(usual[1]), values, usual[3] is not None), read_i32(usual[2]), at + usual.end()
    found, start = _any_header(descriptor, at, where)
    page = Page(found.get(_UNCOMPRESSED, -1), _values(found), _CRC in found)
    return page, found.get(_COMPRESSED, -1), start


def _any_header(descriptor: int, at: int, where: str) -> tuple[Found, int]:
    """The header at that place, and where the page begins."""
    size = _HEADER_BYTES
    while True:
        data = os.pread(descriptor, size, at)
        try:
            found, length = read_struct(data, _HEADER)
        except ThriftEndError as error:
            if len(data) == size < _LONGEST_HEADER_BYTES:
                size *= 16
                continue
            raise _no_page(where, at, error) from error
        except ThriftError as error:
            raise _no_page(where, at, error) from error
        return found, at + length


def _values(found: Found) -> int:
    holds = found.get(_DATA_V1) or found.get(_DATA_V2) or {}
    values: int = holds.get(_NUM_VALUES, 0)
    return values


def _no_page(where: str, at: int, error: ThriftError) -> CorruptFileError:
    return CorruptFileError(
        f"{where}: there is no page at byte {at} ({error}); expected one where the footer and the pages before it say. "
        "Copy the file again from where the dump was made, or write it again."
    )


def _lie(where: str, claim: str, chunk: Chunk) -> CorruptFileError:
    return CorruptFileError(
        f"{where}: a page says that it {claim}; expected at most what the footer says of all pages: from "
        f"{chunk.compressed_bytes} to {chunk.uncompressed_bytes} bytes, {chunk.values} values. "
        "Write the file again, and do not trust where it came from."
    )
