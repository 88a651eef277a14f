"""The files of a Parquet source: which they are, what their footers say, and their rows as a stream."""

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from softmax_dask_pipelines.errors import (
    CorruptFileError,
    MetadataLimitError,
    PermissionDeniedError,
    PipelineError,
    SourceFormatError,
    SourceNotFoundError,
)
from softmax_dask_pipelines.sources.parquet_footer import Chunk, parse_footer
from softmax_dask_pipelines.sources.parquet_pages import require_sound_pages
from softmax_dask_pipelines.sources.parquet_paths import MAGIC, hive_keys, source_files
from softmax_dask_pipelines.sources.parquet_thrift import ThriftError
from softmax_dask_pipelines.sources.parquet_types import require_distinct_names

PAGE_BYTES = 2**20
"""Size of a data page that writers aim at."""

FOOTER_BYTES = 16 * 2**20
"""Largest footer that is parsed; in memory it takes several times as much."""

_BUFFERS_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Part:
    """One file: its footer, and where its rows stand in the source."""

    path: str
    metadata: Any
    """pyarrow.parquet.FileMetaData; kept, so that a read does not parse the footer again."""
    schema: Any
    """pyarrow.Schema"""
    first_row: int
    group_starts: tuple[int, ...]
    """First row of each row group, in this file; then the number of rows."""
    leaves: tuple[str, ...]
    """Dotted paths of the columns that hold numbers or text; below a list `logits` it is `logits.list.element`."""
    chunks: NDArray[np.int64]
    """(row groups, leaves, fields of Chunk)"""
    hive_keys: tuple[tuple[str, str | None], ...] = ()
    """Names and values of the `key=value` folders above the file."""

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return self.group_starts[-1]


def open_parts(path: str) -> list[Part]:
    """The footers of the file `path`, or of all files of that folder or pattern: part-2 before part-10."""
    parts: list[Part] = []
    first_row = 0
    for name in source_files(Path(path)):
        parts.append(_open_part(name, first_row, hive_keys(name, Path(path))))
        first_row += parts[-1].rows
    return parts


def batches(part: Part, rows: range, columns: Sequence[str], *, batch_rows: int) -> Iterator[tuple[int, Any]]:
    """Record batches of at most `batch_rows` rows, each with its first row in the file; they cover `rows`."""
    groups = range(bisect_right(part.group_starts, rows.start) - 1, bisect_right(part.group_starts, rows.stop - 1))
    row = part.group_starts[groups.start]
    with _plain_errors(part.path), _opened(part, len(columns)) as file:
        require_sound_pages(part.path, _read_for(part, columns, groups))
        stream = file.iter_batches(
            batch_size=batch_rows,
            row_groups=list(groups),
            columns=list(columns),
            use_threads=False,
        )
        for batch in stream:
            first, last = max(row, rows.start), min(row + batch.num_rows, rows.stop)
            if first < last:
                yield first, batch.slice(first - row, last - first)
            row += batch.num_rows
            if row >= rows.stop:
                return
        raise OSError(f"its rows end at {row} of {rows.stop}")


def buffer_bytes(columns: int) -> int:
    """Read-ahead of one column. Without it Arrow takes the column's part of a row group into memory whole."""
    return max(2**14, min(2**20, _BUFFERS_BYTES // max(1, columns)))


def _open_part(path: str, first_row: int, keys: tuple[tuple[str, str | None], ...]) -> Part:
    with _plain_errors(path):
        file_bytes, footer_bytes = _footer_bytes(path)
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            metadata, schema = file.metadata, file.schema_arrow
        require_distinct_names(schema, where=path)
        leaves = tuple(metadata.schema.column(i).path for i in range(len(metadata.schema)))
        footer = parse_footer(footer_bytes, leaves=leaves, file_bytes=file_bytes)
    starts = tuple(accumulate(footer.group_rows, initial=0))
    return Part(path, metadata, schema, first_row, starts, leaves, footer.chunks, keys)


def _footer_bytes(path: str) -> tuple[int, bytes]:
    """Size of the file, and its footer, once that is not too long; none where pyarrow will say what is wrong."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        tail = file.read(8)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != MAGIC or length > size - 8:
            return size, b""
        if length > FOOTER_BYTES:
            raise MetadataLimitError(
                f"{path}: its footer has {length} bytes; expected at most {FOOTER_BYTES}. Write larger row groups, or "
                "one column of lists instead of one column a class."
            )
        file.seek(size - 8 - length)
        return size, file.read(length)


def _read_for(part: Part, columns: Sequence[str], groups: range) -> list[tuple[str, int, Chunk]]:
    """All that Arrow reads for these columns: name, row group, chunk. A name stands for all leaves below it."""
    named = set(columns)
    leaves = [j for j, path in enumerate(part.leaves) if any(above in named for above in _above(path))]
    chunks = part.chunks[groups.start : groups.stop, leaves].tolist()
    return [
        (part.leaves[j], group, Chunk._make(chunk))
        for group, row in zip(groups, chunks, strict=True)
        for j, chunk in zip(leaves, row, strict=True)
    ]


def _above(path: str) -> Iterator[str]:
    """`a.b.c`: `a`, `a.b` and itself."""
    return accumulate(path.split("."), "{}.{}".format)


def _opened(part: Part, columns: int) -> Any:
    return pq.ParquetFile(
        part.path,
        metadata=part.metadata,
        buffer_size=buffer_bytes(columns),
        pre_buffer=False,
        page_checksum_verification=True,
    )


@contextmanager
def _plain_errors(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise SourceNotFoundError(
            f"{path}: is not there any more; expected it to stay while it is read. Put it back."
        ) from error
    except PermissionError as error:
        raise PermissionDeniedError(
            f"{path}: cannot be read; expected read permission. Check its owner and mode."
        ) from error
    except (MemoryError, PipelineError):
        raise
    except pa.ArrowNotImplementedError as error:
        raise SourceFormatError(
            f"{path}: uses a part of Parquet that pyarrow does not read ({error}); expected one that it reads. "
            "Write it again, for example with zstd."
        ) from error
    except (pa.ArrowException, OSError, ThriftError, UnicodeDecodeError) as error:
        raise CorruptFileError(
            f"{path}: is no whole Parquet file ({error}); expected one that was written to its end. "
            "Copy it again from where the dump was made, or write it again."
        ) from error
