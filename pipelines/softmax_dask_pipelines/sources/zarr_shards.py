"""The index of a shard: where its inner chunks are. Read to find those that are not there.

Only indexes as nearly every writer makes them (little-endian, crc32c) are looked into; other
shards are decoded unchecked.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

from softmax_dask_pipelines.sources.zarr_files import Files
from softmax_dask_pipelines.sources.zarr_metadata import byte_order, settings_of

_ABSENT = np.uint64(2**64 - 1)
_CHECKSUM_BYTES = 4


class ShardError(ValueError):
    """What is wrong with a shard; becomes an error that names the file."""


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """How the shards of one array keep their index."""

    chunk: tuple[int, ...]
    """Shape of an inner chunk."""
    grid: tuple[int, ...]
    """Inner chunks of a shard, along each axis."""
    at_end: bool

    @classmethod
    def of(cls, array: "zarr.Array[Any]") -> "ShardIndex | None":
        """That of `array`, or None where it has no shards or an index of another kind."""
        codec = _sharding(array)
        if codec is None or array.shards is None:
            return None
        plain = [type(part) for part in codec.index_codecs] == [BytesCodec, Crc32cCodec]
        if not plain or byte_order(codec.index_codecs[0]) != "little":
            return None
        grid = tuple(shard // chunk for shard, chunk in zip(array.shards, array.chunks, strict=True))
        return cls(array.chunks, grid, settings_of(codec)["index_location"] == "end")

    def absent_chunk(self, files: Files, key: str, size: int, selection: tuple[slice, ...]) -> tuple[int, ...] | None:
        """The first inner chunk with any of this selection that the shard does not have."""
        start, length = self.span(size)
        index = self.parsed(files.read(key, start, length))
        first = [part.start // step % n for part, step, n in zip(selection, self.chunk, self.grid, strict=True)]
        count = [_spanned(part, step) for part, step in zip(selection, self.chunk, strict=True)]
        wanted = index[tuple(slice(start, start + n) for start, n in zip(first, count, strict=True))]
        self._require_inside(wanted, size)
        absent = np.argwhere(wanted[..., 0] == _ABSENT)
        return None if not len(absent) else tuple(int(i) + start for i, start in zip(absent[0], first, strict=True))

    def span(self, size: int) -> tuple[int, int]:
        """Where in a shard of `size` bytes the index is: start and length."""
        index_bytes = 16 * prod(self.grid) + _CHECKSUM_BYTES
        if size < index_bytes:
            raise ShardError(f"is shorter than its index of {index_bytes} bytes")
        return size - index_bytes if self.at_end else 0, index_bytes

    def parsed(self, data: bytes) -> NDArray[np.uint64]:
        """Offset and length of each inner chunk, from the bytes of the index."""
        body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
        if google_crc32c.value(body) != int.from_bytes(checksum, "little"):
            raise ShardError("has an index whose checksum is wrong")
        return np.frombuffer(body, "<u8").reshape(*self.grid, 2)

    def _require_inside(self, index: NDArray[np.uint64], size: int) -> None:
        there = index[index[..., 0] != _ABSENT]
        # Each alone first: a sum of two may wrap around.
        if there.size and (int(there.max()) > size or int(there.sum(axis=1).max()) > size):
            raise ShardError("is shorter than its index says")


def _sharding(array: "zarr.Array[Any]") -> ShardingCodec | None:
    if array.metadata.zarr_format == 2 or len(array.metadata.codecs) != 1:
        return None
    codec = array.metadata.codecs[0]
    return codec if isinstance(codec, ShardingCodec) else None


def _spanned(part: slice, step: int) -> int:
    return -(-int(part.stop) // step) - int(part.start) // step
