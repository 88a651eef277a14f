"""Dumps that are scored: N(0, 4) float32 logits of 1000 classes, chunks or row groups of 4 MB, in one format each."""

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

_CHUNKS_OF_A_SHARD = 16


def zarr_dump(folder: Path, codec: str, size_bytes: int) -> Path:
    """A Zarr array of about so many bytes of logits, a whole number of chunks or shards."""
    path, sharded = folder / f"{codec.replace(' ', '-')}.zarr", codec.startswith("sharded")
    rows = chunk_rows(size_bytes)
    whole = rows * (_CHUNKS_OF_A_SHARD if sharded else 1)
    count = max(1, rows_of(size_bytes, CLASSES) // whole)
    array = zarr.create_array(
        path,
        shape=(count * whole, CLASSES),
        chunks=(rows, CLASSES),
        shards=(whole, CLASSES) if sharded else None,
        dtype="float32",
        compressors=_CODECS[codec],
    )
    for number in range(count):
        array[number * whole : (number + 1) * whole] = normal((whole, CLASSES), scale=4.0, seed=number)
    return path


def parquet_dump(folder: Path, codec: str, size_bytes: int) -> Path:
    """A Parquet file of about so many bytes of logits, as lists of fixed size."""
    path, rows = folder / f"{codec}.parquet", chunk_rows(size_bytes)
    schema = pa.schema([("logits", pa.list_(pa.float32(), CLASSES))])
    with pq.ParquetWriter(path, schema, use_dictionary=False, compression=codec) as file:
        for number in range(max(1, rows_of(size_bytes, CLASSES) // rows)):
            values = pa.array(normal((rows, CLASSES), scale=4.0, seed=number).ravel())
            file.write_table(pa.table([pa.FixedSizeListArray.from_arrays(values, CLASSES)], schema=schema))
    return path


def chunk_rows(size_bytes: int) -> int:
    """Rows of a chunk: four or more chunks, however small the dump."""
    return int(np.clip(rows_of(size_bytes, CLASSES) // 4, 1, CHUNK_ROWS))
