"""The files of a Parquet source: which they are, and what their footers say."""

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from softmax_dask_pipelines.config_store import StorageOptions
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
from softmax_dask_pipelines.sources.parquet_paths import MAGIC
from softmax_dask_pipelines.sources.parquet_places import File, Place, arrow_source, place_at, read_at
from softmax_dask_pipelines.sources.parquet_thrift import ThriftError
from softmax_dask_pipelines.sources.parquet_types import require_distinct_names

FOOTER_BYTES = 16 * 2**20
"""Largest footer that is parsed; in memory it takes several times as much."""


@dataclass(frozen=True, slots=True)
class Part:
    """One file: its footer, and where its rows stand in the source."""

    place: Place
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

    def leaves_of(self, columns: Iterable[str]) -> list[int]:
        """All that Arrow reads for these columns: a name stands for all leaves below it."""
        named = set(columns)
        return [leaf for leaf, path in enumerate(self.leaves) if any(above in named for above in _above(path))]

    def opened(self, *, small: bool = False) -> AbstractContextManager[File]:
        """The file; `small`: for no more than a few bytes here and there."""
        return self.place.opened(self.path, small=small)


def open_parts(
    path: str, options: StorageOptions | None = None, *, settle_s: float = 0.0, by_content: bool = False
) -> list[Part]:
    """The footers of the file `path`, or of all files of that folder or pattern: part-2 before part-10.

    Of several files, one that is not whole and was changed in the last `settle_s` seconds is left out, and a warning
    says so: the footer comes last, so it is still being written.
    """
    parts: list[Part] = []
    first_row = 0
    place = place_at(path, options, by_content=by_content)
    names = place.files()
    for name in names:
        try:
            part = _open_part(place, name, first_row)
        except CorruptFileError:
            if names == [path] or not place.is_younger(name, settle_s):
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
    except (MemoryError, PipelineError):
        raise
    except FileNotFoundError as error:
        raise SourceNotFoundError(
            f"{path}: is not there any more; expected it to stay while it is read. Put it back."
        ) from error
    except PermissionError as error:
        raise PermissionDeniedError(
            f"{path}: cannot be read; expected read permission. Check its owner and mode."
        ) from error
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


def _above(path: str) -> Iterator[str]:
    """`a.b.c`: `a`, `a.b` and itself."""
    return accumulate(path.split("."), "{}.{}".format)


def _open_part(place: Place, path: str, first_row: int) -> Part:
    with plain_errors(path), place.opened(path, small=True) as opened:
        file_bytes, footer_bytes = _footer_bytes(path, opened)
        with pq.ParquetFile(arrow_source(path, opened), page_checksum_verification=True) as file:
            metadata, schema = file.metadata, file.schema_arrow
        require_distinct_names(schema, where=path)
        leaves = tuple(metadata.schema.column(i).path for i in range(len(metadata.schema)))
        footer = parse_footer(footer_bytes, leaves=leaves, file_bytes=file_bytes)
    starts = tuple(accumulate(footer.group_rows, initial=0))
    digest = blake2b(footer_bytes, digest_size=16).hexdigest()
    return Part(place, path, metadata, schema, first_row, starts, leaves, footer.chunks, place.hive_keys(path), digest)


def _footer_bytes(path: str, file: File) -> tuple[int, bytes]:
    """Size of the file, and its footer, once that is not too long; none where pyarrow will say what is wrong."""
    size = file.seek(0, os.SEEK_END)
    tail = read_at(file, 8, max(0, size - 8))
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or length > size - 8:
        return size, b""
    if length > FOOTER_BYTES:
        raise MetadataLimitError(
            f"{path}: its footer has {length} bytes; expected at most {FOOTER_BYTES}. Write larger row groups, or "
            "one column of lists instead of one column a class."
        )
    return size, read_at(file, length, size - 8 - length)
