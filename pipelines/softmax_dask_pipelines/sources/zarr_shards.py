"""The index of a shard: where its inner chunks are. Read to find those that are not there.

Only indexes as nearly every writer makes them (little-endian, crc32c) are looked into; other
shards are decoded unchecked.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

_ABSENT = np.uint64(2**64 - 1)
_CHECKSUM_BYTES = 4


class ShardError(ValueError):
    """What is wrong with a shard; becomes an error that names the file."""


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """How the shards of one array keep their index."""

    chunk: tuple[int, int]
    """(rows, classes) of an inner chunk."""
    grid: tuple[int, int]
    """Inner chunks of a shard, along rows and classes."""
    at_end: bool

    @classmethod
    def of(cls, array: "zarr.Array[Any]") -> "ShardIndex | None":
        """That of `array`, or None where it has no shards or an index of another kind."""
        codec = _sharding(array)
        if codec is None or array.shards is None:
            return None
        plain = [type(part) for part in codec.index_codecs] == [BytesCodec, Crc32cCodec]
        if not plain or _endian(codec.index_codecs[0]) != "little":
            return None
        height, width = array.chunks
        grid = (array.shards[0] // height, array.shards[1] // width)
        return cls((height, width), grid, codec.index_location.value == "end")

    def absent_chunk(self, path: Path, size: int, rows: slice, classes: slice) -> tuple[int, int] | None:
        """The first inner chunk with any of these rows and classes that the shard does not have."""
        index = self._read(path, size)
        first = (rows.start // self.chunk[0] % self.grid[0], classes.start // self.chunk[1] % self.grid[1])
        count = (_spanned(rows, self.chunk[0]), _spanned(classes, self.chunk[1]))
        wanted = index[first[0] : first[0] + count[0], first[1] : first[1] + count[1]]
        self._require_inside(wanted, size)
        absent = np.argwhere(wanted[..., 0] == _ABSENT)
        return None if not len(absent) else (int(absent[0][0]) + first[0], int(absent[0][1]) + first[1])

    def _read(self, path: Path, size: int) -> NDArray[np.uint64]:
        index_bytes = 16 * self.grid[0] * self.grid[1] + _CHECKSUM_BYTES
        if size < index_bytes:
            raise ShardError(f"is shorter than its index of {index_bytes} bytes")
        with open(path, "rb") as file:
            file.seek(size - index_bytes if self.at_end else 0)
            data = file.read(index_bytes)
        body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
        if google_crc32c.value(body) != int.from_bytes(checksum, "little"):
            raise ShardError("has an index whose checksum is wrong")
        return np.frombuffer(body, "<u8").reshape(*self.grid, 2)

    def _require_inside(self, index: NDArray[np.uint64], size: int) -> None:
        there = index[index[..., 0] != _ABSENT]
        if there.size and int(there.sum(axis=1).max()) > size:
            raise ShardError("is shorter than its index says")


def _sharding(array: "zarr.Array[Any]") -> ShardingCodec | None:
    if array.metadata.zarr_format == 2 or len(array.metadata.codecs) != 1:
        return None
    codec = array.metadata.codecs[0]
    return codec if isinstance(codec, ShardingCodec) else None


def _endian(codec: object) -> str | None:
    endian = getattr(codec, "endian", None)
    return None if endian is None else str(endian.value)


def _spanned(part: slice, step: int) -> int:
    return -(-int(part.stop) // step) - int(part.start) // step
