"""What Parquet's pages are compressed with, undone: as many bytes as a page says it has, or an error."""

import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
from numcodecs import lz4
from numpy.typing import NDArray

from softmax_dask_pipelines.sources.parquet_encodings import run_header

_NONE, _SNAPPY, _GZIP, _ZSTD = 0, 1, 2, 6
LZ4 = 7
"""Parquet's number of it, as those above."""


def decompress(stored: NDArray[np.uint8], size: int, codec: int) -> Any:
    """The `size` bytes that `stored` stands for, as a buffer; `codec` is one of `DECODED`.

    Raises
    ------
    ValueError, or an error of the codec
        It does not stand for so many bytes.
    """
    content = _DECOMPRESS[codec](stored, size)
    if memoryview(content).nbytes != size:
        raise ValueError(f"{memoryview(content).nbytes} bytes instead of {size}")
    return content


def _as_it_is(stored: NDArray[np.uint8], size: int) -> Any:
    del size
    return stored


def _snappy(stored: NDArray[np.uint8], size: int) -> Any:
    # Arrow takes more memory than there are bytes for an answer. The stream begins with how many there are.
    stated, _ = run_header(stored, 0)
    if stated != size:
        raise ValueError(f"{stated} bytes instead of {size}")
    return pa.decompress(stored, size, codec="snappy")


def _gzip(stored: NDArray[np.uint8], size: int) -> bytes:
    stream = zlib.decompressobj(wbits=31)
    content = stream.decompress(stored.data, size + 1)
    if not stream.eof or stream.unused_data:
        raise ValueError("more than one stream")
    return content


def _zstd(stored: NDArray[np.uint8], size: int) -> Any:
    return pa.decompress(stored, size, codec="zstd")


def _lz4(stored: NDArray[np.uint8], size: int) -> Any:
    # Arrow does not say how many bytes there were; numcodecs requires as many as stand before them.
    return lz4.decompress(b"".join((size.to_bytes(4, "little"), stored.data)))


_DECOMPRESS: Mapping[int, Callable[[NDArray[np.uint8], int], Any]] = MappingProxyType(
    {_NONE: _as_it_is, _SNAPPY: _snappy, _GZIP: _gzip, _ZSTD: _zstd, LZ4: _lz4}
)
DECODED = frozenset(_DECOMPRESS)
"""Brotli, LZO and the LZ4 of Hadoop are left to Arrow."""
