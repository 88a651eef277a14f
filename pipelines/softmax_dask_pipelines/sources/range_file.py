"""A file of which parts are fetched: in whole blocks, the last few of them held. Knows no store."""

import io
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

BLOCK_BYTES = 4 << 20
SMALL_BLOCK_BYTES = 128 << 10
"""For who looks here and there."""
HELD_BYTES = 32 << 20
"""Of one file while it is read: row groups up to here are fetched once, to be looked at and to be decoded."""

Fetch = Callable[[int, int], bytes]
"""From first byte and length to these bytes."""


class Blocks:
    """The blocks of one file. Used by one thread."""

    def __init__(self, size: int, fetch: Fetch, *, block_bytes: int = BLOCK_BYTES) -> None:
        self.size, self._fetch, self._block_bytes = size, fetch, block_bytes
        self._held: OrderedDict[int, bytes] = OrderedDict()

    def read(self, start: int, length: int) -> bytes:
        """Part of the file; less where it ends."""
        stop = min(self.size, start + length)
        if start >= stop:
            return b""
        step = self._block_bytes
        blocks = range(start // step, -(-stop // step))
        if len(blocks) > HELD_BYTES // step:  # would drive itself out
            return self._fetch(start, stop - start)
        data = b"".join(map(self._block, blocks)) if len(blocks) > 1 else self._block(blocks.start)
        first = start - blocks.start * step
        return data[first : first + stop - start]

    def _block(self, number: int) -> bytes:
        if number in self._held:
            self._held.move_to_end(number)
            return self._held[number]
        start = number * self._block_bytes
        data = self._fetch(start, min(self._block_bytes, self.size - start))
        self._held[number] = data
        if len(self._held) > HELD_BYTES // self._block_bytes:
            self._held.popitem(last=False)
        return data


class RangeFile(io.RawIOBase):
    """The file as pyarrow reads it; many may share their blocks."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self._at = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.blocks.size}[whence]
        return self._at

    def tell(self) -> int:
        """The byte that comes next."""
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """So many bytes; less where the file ends."""
        rest = max(0, self.blocks.size - self._at)
        data = self.blocks.read(self._at, rest if size is None or size < 0 else size)
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """As many bytes as fit."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
