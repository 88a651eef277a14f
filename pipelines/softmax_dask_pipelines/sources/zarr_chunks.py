"""The chunk and shard files of a local Zarr array: which rows touch which, and are they whole?

zarr-python takes a missing chunk, and a shard of no bytes, for fill value. Here they are errors.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr

from softmax_dask_pipelines.errors import CorruptChunkError, MissingChunkError, PermissionDeniedError
from softmax_dask_pipelines.sources.zarr_codecs import FileSize
from softmax_dask_pipelines.sources.zarr_shards import ShardError, ShardIndex


@dataclass(frozen=True, slots=True)
class ChunkFiles:
    """Where the chunks of one array are, and what their files must be like."""

    source: Path
    """What keys are relative to."""
    folder: Path
    array: "zarr.Array[Any]"
    chunk: tuple[int, int]
    """(rows, classes) that are decoded together."""
    file_chunk: tuple[int, int]
    """(rows, classes) of a file: those of a chunk, or of a shard."""
    file_size: FileSize
    index: ShardIndex | None

    @classmethod
    def of(cls, array: "zarr.Array[Any]", source: Path, folder: Path) -> "ChunkFiles":
        """Those of `array`, which lies in `folder`."""
        chunk = (array.chunks[0], array.chunks[1])
        shards = array.shards or chunk
        file_chunk = (shards[0], shards[1])
        return cls(source, folder, array, chunk, file_chunk, FileSize.of(array), ShardIndex.of(array))

    @property
    def layout(self) -> str:
        """For people."""
        chunks = "chunks of {} x {}".format(*self.chunk)
        return chunks if self.array.shards is None else "shards of {} x {}, ".format(*self.file_chunk) + chunks

    def require(self, rows: range) -> None:
        """Refuse rows whose files are not there, empty, or of another size than they must have."""
        for key, (file_rows, classes) in self.selections(rows):
            try:
                self._require_file(key, file_rows, classes)
            except PermissionError as error:
                raise PermissionDeniedError(
                    f"{self.folder / key}: cannot be read; expected read permission. Check its owner and mode."
                ) from error

    def selections(self, rows: range) -> Iterator[tuple[str, tuple[slice, slice]]]:
        """Key of each file that `rows` touch, and which of those rows and classes are in it."""
        height, width = self.file_chunk
        for i in range(rows.start // height, -(-rows.stop // height)):
            inside = slice(max(rows.start, i * height), min(rows.stop, (i + 1) * height))
            for k in range(-(-self.array.shape[1] // width)):
                classes = slice(k * width, min(self.array.shape[1], (k + 1) * width))
                yield self.array.metadata.encode_chunk_key((i, k)), (inside, classes)

    def corrupt(self, key: str, what: str) -> CorruptChunkError:
        """The error for the file `key` of this array."""
        return CorruptChunkError(
            f"{self.source}: chunk {self._shown(key)} {what} ({self._size(key)} bytes on disk); expected a "
            "whole chunk. Copy it again from where the dump was made, or write the dump again."
        )

    def stored_bytes(self) -> int:
        """Size of all files of the array."""
        return _size_of_files(self.folder)

    def decoded_values(self, rows: int) -> int:
        """Numbers in the chunks that a block of so many rows decodes, beyond the array's edge included."""
        height, width = self.chunk
        return -(-rows // height) * height * -(-self.array.shape[1] // width) * width

    def _require_file(self, key: str, rows: slice, classes: slice) -> None:
        size = self._size(key)
        if size == 0:
            raise self.corrupt(key, "is empty")
        expected = self.file_size.expected(self.folder / key)
        if expected not in (None, size):
            raise self.corrupt(key, f"has {size} bytes instead of {expected}")
        if self.index:
            self._require_inner(key, size, rows, classes)

    def _size(self, key: str) -> int:
        try:
            return os.stat(self.folder / key).st_size
        except FileNotFoundError as error:
            raise self._missing(key) from error

    def _require_inner(self, key: str, size: int, rows: slice, classes: slice) -> None:
        assert self.index is not None, key
        try:
            absent = self.index.absent_chunk(self.folder / key, size, rows, classes)
        except ShardError as fault:
            raise self.corrupt(key, str(fault)) from fault
        if absent is not None:
            raise self._missing(key, f"inner chunk {absent} of ")

    def _missing(self, key: str, part: str = "") -> MissingChunkError:
        fill = self.array.fill_value
        return MissingChunkError(
            f"{self.source}: {part}chunk {self._shown(key)} of the logits is not there; expected every "
            "chunk, since a missing "
            f"one would read as {fill}. Copy the dump again; if its rows really are all {fill}, write it "
            "with write_empty_chunks=True."
        )

    def _shown(self, key: str) -> str:
        return (self.folder / key).relative_to(self.source).as_posix()


def _size_of_files(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            status = os.stat(os.path.join(parent, name))
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total
