"""Headers of Parquet pages: what a page says it decompresses to and holds, looked at before anything is decoded.

Arrow believes a page's header: a kilobyte that claims two gigabytes gets them. The footer says how much a column may
take in all, and is bounded itself, see `parquet_limits`.
"""

import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from softmax_dask_pipelines.errors import CorruptFileError
from softmax_dask_pipelines.sources.parquet_footer import Chunk
from softmax_dask_pipelines.sources.parquet_places import File, read_at
from softmax_dask_pipelines.sources.parquet_thrift import (
    BOOL,
    I32,
    Found,
    Struct,
    ThriftEndError,
    ThriftError,
    Wanted,
    read_i32,
    read_struct,
)

# Numbers of fields, types and encodings: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
_TYPE, _UNCOMPRESSED, _COMPRESSED, _CRC, _DATA_V1, _DICTIONARY, _DATA_V2 = 1, 2, 3, 4, 5, 7, 8
_V1_TYPE, _DICTIONARY_TYPE, _V2_TYPE = 0, 2, 3
_NUM_VALUES, _ENCODING, _ENCODING_V2, _DEFINITION_BYTES, _REPETITION_BYTES, _IS_COMPRESSED = 1, 2, 4, 5, 6, 7
_HEADER: Wanted = {
    _TYPE: I32,
    _UNCOMPRESSED: I32,
    _COMPRESSED: I32,
    _CRC: I32,
    _DATA_V1: Struct({_NUM_VALUES: I32, _ENCODING: I32}),
    _DICTIONARY: Struct({_NUM_VALUES: I32}),
    _DATA_V2: Struct(
        {_NUM_VALUES: I32, _ENCODING_V2: I32, _DEFINITION_BYTES: I32, _REPETITION_BYTES: I32, _IS_COMPRESSED: BOOL}
    ),
}

_I32 = rb"[\x80-\xff]{0,4}[\x00-\x7f]"
_NUMBER_STATISTICS = (
    rb"\x1c(?:[\x18\x28\x38\x48\x58\x68](?:\x04.{4}|\x08.{8})|[\x16\x26\x36]" + _I32 + rb"|[\x11\x12\x21\x22])*\x00"
)
_USUAL_HEADER = re.compile(
    rb"\x15(?:(\x00)|\x04)\x15(%(i)b)\x15(%(i)b)(?:\x15(%(i)b)(?=[\x1c\x3c])|(?=[\x2c\x4c]))"
    rb"(?(1)[\x1c\x2c]\x15(%(i)b)\x15(%(i)b)\x15%(i)b\x15%(i)b(?:%(s)b)?"
    rb"|[\x3c\x4c]\x15(%(i)b)\x15%(i)b[\x11\x12]?)\x00\x00" % {b"i": _I32, b"s": _NUMBER_STATISTICS},
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
    """What a page says of itself, and where it is. -1: not said."""

    uncompressed_bytes: int
    values: int
    """0 for a dictionary."""
    checksum: int | None
    """CRC-32 of what is stored."""
    stored_bytes: int
    start: int
    """Where in the file its content begins, after the header."""
    encoding: int
    """Of its values, by Parquet's number; -1 where it is no page of data."""
    entries: int = 0
    """Of a dictionary."""
    levels_bytes: int | None = None
    """Of a page v2: these come first, and are never compressed. None: a page v1, whose levels say how long they are."""
    repetition_bytes: int = 0
    """The first of them."""
    is_compressed: bool = True


def first_pages(path: str, chunk: Chunk, count: int, *, where: str) -> list[Page]:
    """At most so many pages of a column in one row group, `chunk` in the footer; CorruptFileError if they lie."""
    with open(path, "rb") as file:
        return list(islice(sound_pages(file, chunk, where), count))


def sound_pages(file: File, chunk: Chunk, where: str) -> Iterator[Page]:
    """The pages that Arrow would read, until they hold all values.

    Raises
    ------
    CorruptFileError
        A page claims more than the footer says of the whole.
    """
    at, seen = chunk.start, 0
    while seen < chunk.values and at < chunk.start + chunk.compressed_bytes:
        page = _page(file, at, where)
        allowed = chunk.uncompressed_bytes + _SLACK_BYTES
        if not (0 <= page.uncompressed_bytes <= allowed and 0 <= page.stored_bytes <= chunk.compressed_bytes):
            raise _lie(where, f"decompresses from {page.stored_bytes} to {page.uncompressed_bytes} bytes", chunk)
        if not 0 <= page.values <= chunk.values:
            raise _lie(where, f"holds {page.values} values", chunk)
        yield page
        seen += page.values
        at = page.start + page.stored_bytes


def _page(file: File, at: int, where: str) -> Page:
    """What the header at that place says."""
    data = read_at(file, _HEADER_BYTES, at)
    usual = _USUAL_HEADER.match(data)
    if usual is None:
        return _page_of(*_any_header(file, at, where))
    is_data, uncompressed, stored, crc, values, encoding, entries = usual.groups()
    return Page(
        uncompressed_bytes=read_i32(uncompressed),
        values=read_i32(values) if is_data else 0,
        checksum=None if crc is None else _unsigned(read_i32(crc)),
        stored_bytes=read_i32(stored),
        start=at + usual.end(),
        encoding=read_i32(encoding) if is_data else -1,
        entries=0 if is_data else read_i32(entries),
    )


def _page_of(found: Found, start: int) -> Page:
    """The same of a header of any shape; as in Arrow, its type says which of the structs counts."""
    kind = found.get(_TYPE, -1)
    v1, v2 = found.get(_DATA_V1, {}), found.get(_DATA_V2, {})
    data = {_V1_TYPE: v1, _V2_TYPE: v2}.get(kind, {})
    entries = found.get(_DICTIONARY, {}).get(_NUM_VALUES, 0) if kind == _DICTIONARY_TYPE else 0
    repetition = data.get(_REPETITION_BYTES, 0)
    levels = data.get(_DEFINITION_BYTES, 0) + repetition
    return Page(
        uncompressed_bytes=found.get(_UNCOMPRESSED, -1),
        values=data.get(_NUM_VALUES, 0),
        checksum=_unsigned(found[_CRC]) if _CRC in found else None,
        stored_bytes=found.get(_COMPRESSED, -1),
        start=start,
        encoding=data.get(_ENCODING_V2 if kind == _V2_TYPE else _ENCODING, -1),
        entries=entries,
        levels_bytes=levels if kind == _V2_TYPE else None,
        repetition_bytes=repetition,
        is_compressed=data.get(_IS_COMPRESSED, True),
    )


def _unsigned(number: int) -> int:
    """A checksum, which Thrift has as a number with a sign."""
    return number & 0xFFFFFFFF


def _any_header(file: File, at: int, where: str) -> tuple[Found, int]:
    """The header at that place, and where the page begins."""
    size = _HEADER_BYTES
    while True:
        data = read_at(file, size, at)
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
