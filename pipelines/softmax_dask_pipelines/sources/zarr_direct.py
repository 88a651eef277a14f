"""The direct lane: whole chunks from local files, decoded in the task's own thread, straight into its block.

zarr-python decodes every chunk into an array of its own and copies it, by way of one event loop for all
threads. This lane knows plain arrays only, fills nothing and explains nothing: whatever is not as it should
be ends it, and then zarr-python's lane reads the same rows, or says what is wrong with them.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from stat import S_ISREG
from threading import local
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_dask_pipelines.sources.read_ahead import read_ahead
from softmax_dask_pipelines.sources.zarr_chunks import ChunkFiles
from softmax_dask_pipelines.sources.zarr_files import FolderFiles
from softmax_dask_pipelines.sources.zarr_into import Decoder


class _NotPlainError(Exception):
    """Something is not as this lane needs it."""


class _Scratch(local):
    """Memory of one thread, for the bytes of a chunk before they are decoded. Pickled, it is another one, and empty.

    Kept from one read to the next: given back, it would leave a hole that a larger chunk does not fit.
    """

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def of(self, length: int) -> memoryview:
        """So many bytes; void when the next are asked for."""
        if len(self._bytes) < length:
            self._bytes = np.empty(length + length // 8, np.uint8)
        return self._bytes.data[:length]

    def free(self) -> None:
        """Give the memory of this thread back: it will read no more, or not soon."""
        self._bytes = np.empty(0, np.uint8)

    def __reduce__(self) -> tuple[type["_Scratch"], tuple[()]]:
        return _Scratch, ()


@dataclass(frozen=True, slots=True)
class DirectLane:
    """What is the same for all chunks of an array."""

    chunks: ChunkFiles
    files: FolderFiles
    decoder: Decoder
    dtype: np.dtype[Any]
    scratch: _Scratch

    @classmethod
    def of(cls, chunks: ChunkFiles) -> "DirectLane | None":
        """For an array of plain codecs in a local folder."""
        array, files = chunks.array, chunks.files
        dtype = np.dtype(array.dtype)
        decoder = Decoder.of(array.metadata)
        is_known = chunks.has_whole_rows and (array.shards is None or chunks.index is not None)
        if not isinstance(files, FolderFiles) or decoder is None or not dtype.isnative or not is_known:
            return None
        return cls(chunks, files, decoder, dtype, _Scratch())

    def reader(self) -> "DirectReader":
        """Something to read blocks with, in one thread."""
        return DirectReader(self)


class DirectReader:
    """Reads blocks."""

    def __init__(self, lane: DirectLane) -> None:
        self._lane, self._chunks, self._decoder = lane, lane.chunks, lane.decoder
        self._scratch = np.empty(0, lane.dtype)
        self._index: tuple[str, NDArray[np.uint64]] | None = None
        self._folder = lane.files.shown(lane.chunks.name)

    def read(self, rows: range) -> NDArray[Any] | None:
        """These rows, (rows, classes), in memory of their own; None: ask zarr-python."""
        try:
            return self._read(rows)
        except MemoryError:
            raise
        except Exception:  # every codec raises errors of its own
            return None

    def expect(self, rows: range) -> None:
        """Have these rows read while others are decoded and computed, unless the first of their files has been."""
        with suppress(Exception):  # what is wrong with them, `read` finds out
            for key, inside, classes in self._chunks.parts(rows):
                with self._open(key) as file:
                    places = [place for _, place in self._places(file, key, inside, classes)]
                    began = [read_ahead(file, start, length) for start, length in _merged(places)]
                if not any(began):
                    return

    def _read(self, rows: range) -> NDArray[Any]:
        height, first = self._chunks.chunk[0], rows.start // self._chunks.chunk[0]
        # Whole chunks, also at the array's edge, so that each is decoded to where it belongs.
        count = -(-rows.stop // height) - first
        block = np.empty((count * height, self._chunks.shape[1]), self._lane.dtype)
        for key, inside, classes in self._chunks.parts(rows):
            with self._open(key) as file:
                for (row, column), (start, length) in self._places(file, key, inside, classes):
                    target = block[(row - first) * height : (row - first + 1) * height]
                    self._decode(file, start, length, target, column)
        return block[rows.start - first * height : rows.stop - first * height]

    def _open(self, key: str) -> FileIO:
        return FileIO(f"{self._folder}/{key}", opener=_open)

    def _places(
        self, file: FileIO, key: str, inside: slice, classes: slice
    ) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        """Number of each chunk along rows and classes, and where in the file it is."""
        size = _regular_size(file)
        _require(self._chunks.file_size.fault(size) is None)
        (height, width), index = self._chunks.chunk, self._chunks.index
        if index is None:
            yield (inside.start // height, classes.start // width), (0, size)
            return
        found = self._index_of(file, key, size)
        for row in range(inside.start // height, -(-inside.stop // height)):
            for column in range(classes.start // width, -(-classes.stop // width)):
                place = found[self._chunks.place_in_shard(row, column)]
                yield (row, column), (int(place[0]), int(place[1]))

    def _index_of(self, file: FileIO, key: str, size: int) -> NDArray[np.uint64]:
        """That of a shard: read once for the blocks that follow one another."""
        if self._index is None or self._index[0] != key:
            index = self._chunks.index
            assert index is not None, "an index of an array without shards"
            start, length = index.span(size)
            file.seek(start)
            self._index = key, index.parsed(file.read(length))
        return self._index[1]

    def _decode(self, file: FileIO, start: int, length: int, target: NDArray[Any], column: int) -> None:
        """Decode a chunk into rows of the block: at once, or where it has not all classes by way of a copy."""
        chunk = self._chunks.chunk
        if self._chunks.axes.has_classes_last and chunk == target.shape:
            self._decode_into(file, start, length, target)
            return
        if not self._scratch.size:
            self._scratch = np.empty(chunk[0] * chunk[1], self._lane.dtype)
        self._decode_into(file, start, length, self._scratch)
        first = column * chunk[1]
        width = min(chunk[1], target.shape[1] - first)
        target[:, first : first + width] = self._chunks.by_rows(self._scratch)[:, :width]

    def _decode_into(self, file: FileIO, start: int, length: int, target: NDArray[Any]) -> None:
        out = target.reshape(-1).view(np.uint8).data
        _require(length <= self._chunks.file_size.largest_chunk)
        if self._chunks.index is not None:  # else it is the first and only chunk of the file
            file.seek(start)
        if self._decoder.is_plain:
            _require(length == len(out) == _filled(file, out))
        elif self._decoder.has_checksum:
            self._decoder.decode(file.read(length), out)
        else:
            encoded = self._lane.scratch.of(length)
            _require(_filled(file, encoded) == length)
            self._decoder.decode(encoded, out)


def _merged(places: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Start and length of what lies side by side, as one."""
    start = stop = 0
    for begin, length in places:
        if begin != stop:
            yield start, stop - start
            start = begin
        stop = begin + length
    yield start, stop - start


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait for its writer


def _regular_size(file: FileIO) -> int:
    status = os.fstat(file.fileno())
    _require(S_ISREG(status.st_mode))
    return status.st_size


def _filled(file: FileIO, out: memoryview) -> int:
    """Bytes read into `out`: all that fit, unless the file ends; the system may give a part at a time."""
    done = 0
    while done < len(out) and (count := file.readinto(out[done:])):
        done += count
    return done


def _require(is_so: bool) -> None:
    if not is_so:
        raise _NotPlainError
