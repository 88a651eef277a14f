"""What the footer of a Parquet file says of each piece of each column, read by ourselves.

pyarrow's object for such a piece ends the process where a damaged footer contradicts itself: its constructor throws
where no Python error can be made of it. So that object is never asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_dask_pipelines.sources.parquet_thrift import (
    I32,
    I64,
    TEXTS,
    Found,
    Struct,
    Structs,
    ThriftError,
    Wanted,
    read_struct,
)

_CODECS = ("uncompressed", "snappy", "gzip", "lzo", "brotli", "lz4 of Hadoop", "zstd", "lz4")
"""By Parquet's number."""

# Field numbers: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
_COLUMN: Wanted = {3: TEXTS, 4: I32, 5: I64, 6: I64, 7: I64, 9: I64, 11: I64}
_PATH, _CODEC, _VALUES, _UNCOMPRESSED, _COMPRESSED, _DATA_PAGE, _DICTIONARY_PAGE = _COLUMN
_COLUMN_OF_CHUNK, _CHUNKS, _ROWS_OF_GROUP, _ROWS, _GROUPS = 3, 1, 3, 3, 4
_GROUP: Wanted = {_CHUNKS: Structs({_COLUMN_OF_CHUNK: Struct(_COLUMN)}), _ROWS_OF_GROUP: I64}
_FOOTER: Wanted = {_ROWS: I64, _GROUPS: Structs(_GROUP)}


class Chunk(NamedTuple):
    """A column in one row group: what its pages hold in all. -1: not said."""

    codec: int
    values: int
    """Nulls and empty lists among them."""
    uncompressed_bytes: int
    compressed_bytes: int
    start: int
    """Where in the file the first page is."""

    @property
    def codec_name(self) -> str:
        """For people."""
        return _CODECS[self.codec] if 0 <= self.codec < len(_CODECS) else f"unknown codec {self.codec}"


@dataclass(frozen=True, slots=True)
class Footer:
    """Row groups, and the pieces of columns in them."""

    group_rows: tuple[int, ...]
    chunks: NDArray[np.int64]
    """(row groups, columns, fields of Chunk); the columns are the leaves of the schema, in its order."""


def parse_footer(data: bytes, *, leaves: Sequence[str], file_bytes: int) -> Footer:
    """The footer in these bytes; ThriftError if it contradicts itself, its file, or the leaves of the schema."""
    found, _ = read_struct(data, _FOOTER)
    groups = found.get(_GROUPS, [])
    rows = tuple(group.get(_ROWS_OF_GROUP, -1) for group in groups)
    if any(count < 0 for count in rows) or sum(rows) != found.get(_ROWS):
        raise ThriftError(f"its row groups have {sum(rows)} rows, the file {found.get(_ROWS)}")
    # Not an object a chunk: there may be a hundred thousand, and they travel to other processes.
    chunks = np.empty((len(groups), len(leaves), len(Chunk._fields)), np.int64)
    paths = [leaf.encode() for leaf in leaves]
    for index, group in enumerate(groups):
        columns = [chunk.get(_COLUMN_OF_CHUNK, {}) for chunk in group.get(_CHUNKS, [])]
        # Each name stands twice: one that was damaged would be another column, and its logits left out.
        if [b".".join(column.get(_PATH, [])) for column in columns] != paths:
            raise ThriftError(f"row group {index} has other columns than the schema")
        chunks[index] = [_chunk(column, file_bytes) for column in columns]
    return Footer(rows, chunks)


def _chunk(found: Found, file_bytes: int) -> Chunk:
    get = found.get
    start, dictionary = get(_DATA_PAGE, -1), get(_DICTIONARY_PAGE, 0)
    if 0 < dictionary < start:  # some writers say that the dictionary is at 0, where there is none
        start = dictionary
    chunk = Chunk(get(_CODEC, -1), get(_VALUES, -1), get(_UNCOMPRESSED, -1), get(_COMPRESSED, -1), start)
    if start + chunk.compressed_bytes > file_bytes:
        raise ThriftError(f"a column ends at byte {start + chunk.compressed_bytes}, the file at {file_bytes}")
    return chunk
