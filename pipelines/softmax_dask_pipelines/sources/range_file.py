"""A file of which parts are fetched: in whole blocks, the last few of them held. Knows no store."""

import io
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

BLOCK_BYTES = 4 << 20
SMALL_BLOCK_BYTES = 128 << 10
"""For who looks here and there."""
HELD_BYTES = 32 << 20
"""Of one file while it is read: row groups up to here are fetched once, to be looked at and to be decoded."""
_AT_A_TIME = 8

Fetch = Callable[[int, int], bytes]
"""From first byte and length to these bytes."""


class Blocks:
    """The blocks of one file. Used by one thread, which has others fetch what it expects."""

    def __init__(self, size: int, fetch: Fetch, *, block_bytes: int = BLOCK_BYTES) -> None:
        self.size, self._fetch, self._block_bytes = size, fetch, block_bytes
        self._held: OrderedDict[int, Future[bytes]] = OrderedDict()
        self._pool: ThreadPoolExecutor | None = None
        self._expected: Iterator[int] = iter(())
        self._next: int | None = None

    def read(self, start: int, length: int) -> bytes:
        """Part of the file; less where it ends."""
        stop = min(self.size, start + length)
        if start >= stop:
            return b""
        blocks = self._numbers(start, stop)
        if len(blocks) > self._most:  # would drive itself out
            return self._fetch(start, stop - start)
        data = b"".join(map(self._block, blocks)) if len(blocks) > 1 else self._block(blocks.start)
        first = start - blocks.start * self._block_bytes
        return data[first : first + stop - start]

    def expect(self, parts: Iterable[tuple[int, int]]) -> None:
        """Parts that will be read, in this order: where each begins, and its length. See `fetch_ahead`."""
        self._expected = self._numbers_of(parts)
        self._next = next(self._expected, None)

    def fetch_ahead(self, done: int) -> None:
        """Fetch what is expected and there is room for, several blocks at a time. Nobody reads again what is before
        the byte `done`.
        """
        for number in [number for number in self._held if self._end(number) <= done]:
            del self._held[number]
        while self._next is not None and (self._end(self._next) <= done or self._begin(self._next)):
            self._next = next(self._expected, None)

    def close(self) -> None:
        """Fetch no more."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self, number: int) -> bool:
        """Begin to fetch a block that is not there yet; False where there is no room."""
        if number in self._held:
            return True
        if len(self._held) >= self._most:
            return False
        self._pool = self._pool or ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="softmax-dask-read")
        self._held[number] = self._pool.submit(self._fetched, number)
        return True

    def _end(self, number: int) -> int:
        return (number + 1) * self._block_bytes

    def _numbers_of(self, parts: Iterable[tuple[int, int]]) -> Iterator[int]:
        for start, length in parts:
            stop = min(self.size, start + length)
            if 0 <= start < stop:
                yield from self._numbers(start, stop)

    @property
    def _most(self) -> int:
        return HELD_BYTES // self._block_bytes

    def _numbers(self, start: int, stop: int) -> range:
        return range(start // self._block_bytes, -(-stop // self._block_bytes))

    def _block(self, number: int) -> bytes:
        held = self._held.get(number)
        if held is None:
            held = Future[bytes]()
            held.set_result(self._fetched(number))
            self._held[number] = held
            if len(self._held) > self._most:
                self._held.popitem(last=False)
        self._held.move_to_end(number)
        return held.result()

    def _fetched(self, number: int) -> bytes:
        start = number * self._block_bytes
        return self._fetch(start, min(self._block_bytes, self.size - start))


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
