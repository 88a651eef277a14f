"""Dumps that are scored: N(0, 4) logits, float32 of 1000 classes or another, chunks or row groups of 4 MB."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from benchmarks.logits import normal, rows_of

CLASSES = 1000
CHUNK_ROWS = 1000

_CODECS: dict[str, Any] = {
    "none": None,
    "lz4": BloscCodec(cname="lz4", shuffle="shuffle"),
    "zstd": ZstdCodec(level=1),
    "sharded lz4": BloscCodec(cname="lz4", shuffle="shuffle"),
}
CODECS = ("lz4", "zstd", "none")
DECODED = tuple(_CODECS)
_PARQUET: dict[str, dict[str, Any]] = {
    "lz4": {"compression": "lz4"},
    "zstd": {"compression": "zstd"},
    "none": {"compression": "none"},
    "defaults": {"use_dictionary": True},
    "byte stream split": {"compression": "zstd", "compression_level": 1, "use_byte_stream_split": True},
}
PARQUET_CODECS = tuple(_PARQUET)

_CHUNKS_OF_A_SHARD = 16
_ROOM = 4
"""Times the logits: what is stored of them, an output with probabilities, and the one that it replaces."""


@contextmanager
def folder_in_memory(size_bytes: int) -> Iterator[Path]:
    """A temporary folder in the machine's memory, where that has room for a dump of this size and what becomes of it.

    So no disk is measured: how fast one syncs changes from minute to minute, and only ours waits for it.
    """
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > _ROOM * size_bytes
    with tempfile.TemporaryDirectory(dir=memory if has_room else None) as folder:
        yield Path(folder)


def zarr_dump(folder: Path, codec: str, size_bytes: int, *, classes: int = CLASSES, dtype: str = "float32") -> Path:
    """A Zarr array of about so many bytes of logits, a whole number of chunks or shards."""
    name = f"{codec.replace(' ', '-')}-{classes}-{dtype}.zarr"
    path, sharded = folder / name, codec.startswith("sharded")
    rows, every = _rows_of(size_bytes, classes, np.dtype(dtype))
    whole = rows * (_CHUNKS_OF_A_SHARD if sharded else 1)
    count = max(1, every // whole)
    array = zarr.create_array(
        path,
        shape=(count * whole, classes),
        chunks=(rows, classes),
        shards=(whole, classes) if sharded else None,
        dtype=dtype,
        compressors=_CODECS[codec],
    )
    for number in range(count):
        array[number * whole : (number + 1) * whole] = normal((whole, classes), scale=4.0, seed=number).astype(dtype)
    return path


def forget(source: Path) -> None:
    """Let the system drop a dump from its page cache, once what was written is on the disk."""
    os.sync()
    for path in [source, *source.rglob("*")]:
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def parquet_dump(folder: Path, codec: str, size_bytes: int) -> Path:
    """A Parquet file of about so many bytes of logits, as lists of fixed size."""
    path, rows = folder / f"{codec}.parquet", chunk_rows(size_bytes)
    schema = pa.schema([("logits", pa.list_(pa.float32(), CLASSES))])
    with pq.ParquetWriter(path, schema, **{"use_dictionary": False} | _PARQUET[codec]) as file:
        for number in range(max(1, rows_of(size_bytes, CLASSES) // rows)):
            values = pa.array(normal((rows, CLASSES), scale=4.0, seed=number).ravel())
            file.write_table(pa.table([pa.FixedSizeListArray.from_arrays(values, CLASSES)], schema=schema))
    return path


def chunk_rows(size_bytes: int) -> int:
    """Rows of a chunk: four or more chunks, however small the dump."""
    return int(np.clip(rows_of(size_bytes, CLASSES) // 4, 1, CHUNK_ROWS))


def _rows_of(size_bytes: int, classes: int, dtype: np.dtype[Any]) -> tuple[int, int]:
    """Rows of a chunk of 4 MB, or of a fourth of the dump; and of all of it."""
    every = max(1, size_bytes // (classes * dtype.itemsize))
    return int(np.clip(every // 4, 1, max(1, CHUNK_ROWS * CLASSES * 4 // (classes * dtype.itemsize)))), every
