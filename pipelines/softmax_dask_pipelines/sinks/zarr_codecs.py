"""The codecs of our Zarr arrays: as Zarr names them in its metadata, and as we run them.

Chunks are encoded by numcodecs in the calling thread: Zarr's own pipeline goes through
one event loop and does not scale with threads.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numcodecs import Blosc, Zstd
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec, VLenUTF8Codec, ZstdCodec

from softmax_dask_pipelines.checksums import with_checksum

LEVEL = 1

_BLOCK_ITEMS = 128 * 1024
"""Items of a Blosc block. The shuffle gathers the first bytes of all items, then the second ones, ...:
with 128 Ki of each, every byte plane is one block of Zstandard's with a Huffman table of its own.
With Blosc's own block size the shuffle gained next to nothing over plain Zstandard on probabilities."""

_BIT_PLANES_LEVEL = 5

_SHUFFLES: dict[Any, int] = {"shuffle": Blosc.SHUFFLE, "bitshuffle": Blosc.BITSHUFFLE}


def number_codecs(dtype: np.dtype[Any], axes: int) -> dict[str, Any]:
    """Arguments of `zarr.create_array` for what `encode_numbers` writes of arrays with so many axes."""
    return {"compressors": [BloscCodec(typesize=dtype.itemsize, **_settings(dtype, axes)), Crc32cCodec()]}


def encode_numbers(values: NDArray[Any]) -> list[bytes]:
    """The bytes of one chunk of numbers, in parts."""
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    settings = _settings(little.dtype, little.ndim)
    return with_checksum(Blosc(**settings | {"shuffle": _SHUFFLES[settings["shuffle"]]}).encode(little))


def _settings(dtype: np.dtype[Any], axes: int) -> dict[str, Any]:
    """Of Blosc, by its names.

    A label has few bits and a confidence has some that never change: a value a row is as small by planes of bits and
    LZ4 as by planes of bytes and Zstandard, in half of the time. Not so probabilities, nor ids that follow each other.
    """
    blocksize, is_id = _BLOCK_ITEMS * dtype.itemsize, dtype.kind in "iu" and dtype.itemsize == 8
    if axes == 1 and not is_id:
        return {"cname": "lz4", "clevel": _BIT_PLANES_LEVEL, "shuffle": "bitshuffle", "blocksize": blocksize}
    return {"cname": "zstd", "clevel": LEVEL, "shuffle": "shuffle", "blocksize": blocksize}


def string_codecs() -> dict[str, Any]:
    """Arguments of `zarr.create_array` for what `encode_strings` writes."""
    return {
        "serializer": VLenUTF8Codec(),
        "compressors": [ZstdCodec(level=LEVEL, checksum=False), Crc32cCodec()],
    }


def encode_strings(texts: Sequence[pa.Array], rows: int) -> list[bytes]:
    """The bytes of one chunk of texts, in parts, each behind its length (see `carried`); empty ones fill it."""
    stored = [_bytes_of(text) for text in texts if len(text)]
    missing = bytes(4 * (rows - sum(map(len, texts))))
    return with_checksum(Zstd(level=LEVEL).encode(b"".join([rows.to_bytes(4, "little"), *stored, missing])))


def _bytes_of(items: pa.Array) -> pa.Buffer:
    """Those of all items of a large binary array, one behind the other."""
    _, ends, stored = items.buffers()
    first, last = np.frombuffer(ends, np.int64, len(items) + 1, items.offset * 8)[[0, -1]].tolist()
    return stored.slice(first, last - first)


def encode_string_runs(runs: Iterable[tuple[str, int]]) -> list[bytes]:
    """The bytes of one chunk of texts, given as runs of a text and its length; no loop over rows."""
    encoded = [(text.encode(), rows) for text, rows in runs]
    rows = sum(rows for _, rows in encoded)
    items = [(len(text).to_bytes(4, "little") + text) * rows for text, rows in encoded]
    return with_checksum(Zstd(level=LEVEL).encode(b"".join([rows.to_bytes(4, "little"), *items])))
