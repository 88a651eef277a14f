"""The files of a Parquet source: which they are, and what their footers say."""

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
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
    SourceNotReadyError,
)
from softmax_dask_pipelines.notices import NoteWarning
from softmax_dask_pipelines.sources.parquet_footer import parse_footer
from softmax_dask_pipelines.sources.parquet_paths import MAGIC, hive_keys, source_files
from softmax_dask_pipelines.sources.parquet_thrift import ThriftError
from softmax_dask_pipelines.sources.parquet_types import require_distinct_names

FOOTER_BYTES = 16 * 2**20
"""Largest footer that is parsed; in memory it takes several times as much."""


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
    footer_digest: str = ""

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return self.group_starts[-1]

    def look(self) -> tuple[int, int, str] | None:
        """Its size and time of modification now, and its footer when it was opened; None where it is gone."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return None
        return status.st_size, status.st_mtime_ns, self.footer_digest


def open_parts(path: str, *, settle_s: float = 0.0) -> list[Part]:
    """The footers of the file `path`, or of all files of that folder or pattern: part-2 before part-10.

    Of several files, one that is not whole and was changed in the last `settle_s` seconds is left out, and a warning
    says so: the footer comes last, so it is still being written.
    """
    parts: list[Part] = []
    first_row = 0
    names = source_files(Path(path))
    for name in names:
        try:
            part = _open_part(name, first_row, hive_keys(name, Path(path)))
        except CorruptFileError:
            if names == [path] or not _is_younger(name, settle_s):
                raise
            text = f"{name}: is still being written, or was cut short in the last {settle_s:g} seconds; left out."
            warnings.warn(text, NoteWarning, stacklevel=4)
            continue
        parts.append(part)
        first_row += part.rows
    if not parts:
        raise SourceNotReadyError(
            f"{path}: none of its {len(names)} files is whole yet; expected at least one. Run the same command again."
        )
    return parts


@contextmanager
def plain_errors(path: str) -> Iterator[None]:
    """Errors of pyarrow, of the system and of the footer as ours, with a remedy."""
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


def _is_younger(name: str, seconds: float) -> bool:
    return time.time() - os.stat(name).st_mtime < seconds


def _open_part(path: str, first_row: int, keys: tuple[tuple[str, str | None], ...]) -> Part:
    with plain_errors(path):
        file_bytes, footer_bytes = _footer_bytes(path)
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            metadata, schema = file.metadata, file.schema_arrow
        require_distinct_names(schema, where=path)
        leaves = tuple(metadata.schema.column(i).path for i in range(len(metadata.schema)))
        footer = parse_footer(footer_bytes, leaves=leaves, file_bytes=file_bytes)
    starts = tuple(accumulate(footer.group_rows, initial=0))
    digest = blake2b(footer_bytes, digest_size=16).hexdigest()
    return Part(path, metadata, schema, first_row, starts, leaves, footer.chunks, keys, digest)


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
