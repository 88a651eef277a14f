"""The chunk and shard files of a local Zarr array: which rows touch which, and are they whole?

Of an array of more than two axes the rows are the places along all axes but that of the classes, in C order; a place is
one along the first axis of rows. Where chunks cut the other ones, rows of a place lie in several files, as classes do
where those are cut.

zarr-python takes a missing chunk, and a shard of no bytes, for fill value. Here they are errors, unless
missing chunks are asked to be read so.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from softmax_dask_pipelines.errors import CorruptChunkError, MissingChunkError, PermissionDeniedError
from softmax_dask_pipelines.sources.stamps import digests_of
from softmax_dask_pipelines.sources.zarr_axes import Axes
from softmax_dask_pipelines.sources.zarr_codecs import FileSize
from softmax_dask_pipelines.sources.zarr_files import Files
from softmax_dask_pipelines.sources.zarr_metadata import joined
from softmax_dask_pipelines.sources.zarr_shards import ShardError, ShardIndex


@dataclass(frozen=True, slots=True)
class ChunkFiles:
    """Where the chunks of one array are, and what their files must be like."""

    source: str
    """For messages."""
    files: Files
    name: str
    """Of the array in the store."""
    array: "zarr.Array[Any]"
    axes: Axes
    fill_missing: bool
    """Chunks that are not there are fill value, and no error."""
    file_size: FileSize
    index: ShardIndex | None
    inner: tuple[int, ...]
    """Lengths of the axes of rows but the first."""
    inner_chunk: tuple[int, ...]
    """Those of a chunk."""
    inner_file: tuple[int, ...]
    """Those of a file."""
    # What zarr-python works out anew whenever it is asked, which takes longer than to open a file:
    shape: tuple[int, int]
    """(rows, classes)."""
    chunk: tuple[int, int]
    """(rows, classes) that are decoded together: in one chunk, or in those that have the rows of the same places."""
    file_chunk: tuple[int, int]
    """The same of files: of chunks, or of shards."""

    @classmethod
    def of(
        cls, array: "zarr.Array[Any]", source: str, files: Files, name: str, *, class_axis: int, fill_missing: bool
    ) -> "ChunkFiles":
        """Those of `array`, which is `name` in the store."""
        axes, in_file = Axes.of(array.ndim, class_axis), array.shards or array.chunks
        (first, *inner), classes = axes.lengths(array.shape)
        (chunk_first, *inner_chunk), chunk_classes = axes.lengths(array.chunks)
        (file_first, *inner_file), file_classes = axes.lengths(in_file)
        a_place = prod(inner)
        return cls(
            source=source,
            files=files,
            name=name,
            array=array,
            axes=axes,
            fill_missing=fill_missing,
            file_size=FileSize.of(array),
            index=ShardIndex.of(array),
            inner=tuple(inner),
            inner_chunk=tuple(inner_chunk),
            inner_file=tuple(inner_file),
            shape=(first * a_place, classes),
            chunk=(chunk_first * a_place, chunk_classes),
            file_chunk=(file_first * a_place, file_classes),
        )

    @property
    def has_whole_rows(self) -> bool:
        """Whether the rows of a chunk follow one another: it holds whole places, and no more than them."""
        return self.inner == self.inner_chunk == self.inner_file

    @property
    def row_chunks(self) -> int:
        """Chunks that the rows of a place are cut into."""
        return prod(-(-length // size) for length, size in zip(self.inner, self.inner_chunk, strict=True))

    @property
    def rows_a_place(self) -> int:
        """Rows of a place."""
        return prod(self.inner)

    @property
    def layout(self) -> str:
        """For people."""
        shards = self.array.shards
        chunks = f"chunks of {_lengths(self.array.chunks)}"
        order = "" if self.axes.has_classes_last else f", classes along axis {self.axes.classes}"
        return (chunks if shards is None else f"shards of {_lengths(shards)}, {chunks}") + order

    def require(self, rows: range) -> None:
        """Refuse rows whose files are not there, empty, or of another size than they must have."""
        for key, selection in self.selections(rows):
            try:
                self._require_file(key, selection)
            except PermissionDeniedError:
                raise
            except PermissionError as error:
                raise PermissionDeniedError(
                    f"{self.files.shown(joined(self.name, key))}: cannot be read; expected read permission. "
                    "Check its owner and mode."
                ) from error

    def selection(self, rows: slice, classes: slice) -> tuple[slice, ...]:
        """The index of these rows and classes in the array as it is stored: of whole places."""
        return self.axes.as_stored((self._places(rows), *(slice(0, length) for length in self.inner)), classes)

    def rows_of(self, stored: NDArray[Any], rows: range) -> NDArray[Any]:
        """What `selection` found of these rows, as (rows, classes)."""
        first = rows.start % self.rows_a_place
        return self.axes.as_rows(stored)[first : first + len(rows)]

    def selections(self, rows: range) -> Iterator[tuple[str, tuple[slice, ...]]]:
        """Key of each file that `rows` touch, and the index of what of those places is in it."""
        key_of = self.array.metadata.encode_chunk_key
        for i, inside, k, classes in self._touched(rows):
            for between in self._between:
                parts = map(_part, between, self.inner_file, self.inner)
                index = self.axes.as_stored((self._places(inside), *parts), classes)
                yield key_of(self.axes.as_stored((i, *between), k)), index

    def parts(self, rows: range) -> Iterator[tuple[str, slice, slice]]:
        """Key of each file that `rows` touch, and which of them and which classes are in it; of whole rows."""
        key_of, between = self.array.metadata.encode_chunk_key, (0,) * len(self.inner)
        for i, inside, k, classes in self._touched(rows):
            yield key_of(self.axes.as_stored((i, *between), k)), inside, classes

    def place_in_shard(self, row: int, column: int) -> tuple[int, ...]:
        """Where the index of a shard has the inner chunk with this number along rows and along classes."""
        assert self.index is not None, "a place in a shard of an array without shards"
        numbers = self.axes.as_stored((row, *((0,) * len(self.inner))), column)
        return tuple(number % count for number, count in zip(numbers, self.index.grid, strict=True))

    def by_rows(self, values: NDArray[Any]) -> NDArray[Any]:
        """The values of a chunk, flat and in stored order, as (rows, classes)."""
        return self.axes.as_rows(values.reshape(self.array.chunks))

    def stamps(self) -> NDArray[np.uint64]:
        """How the files of each run of rows look, one digest for all classes."""
        # Not by `parts`: a dump has thousands of files, and each is looked at twice in a run.
        (height, width), key_of, stored = self.file_chunk, self.array.metadata.encode_chunk_key, self.axes.as_stored
        count, across = -(-self.shape[0] // height), range(-(-self.shape[1] // width))
        beside = [(between, k) for between in self._between for k in across]
        looks = (
            [self.files.stamp(joined(self.name, key_of(stored((i, *between), k)))) for between, k in beside]
            for i in range(count)
        )
        return digests_of(looks, count)

    def corrupt(self, key: str, what: str) -> CorruptChunkError:
        """The error for the file `key` of this array."""
        return CorruptChunkError(
            f"{self.source}: chunk {joined(self.name, key)} {what} ({self._size(key)} bytes on disk); expected a "
            "whole chunk. Copy it again from where the dump was made, or write the dump again."
        )

    def stored_bytes(self) -> int:
        """Size of all files of the array."""
        return self.files.stored_bytes(self.name)

    def decoded_values(self, rows: int) -> int:
        """Numbers in the chunks that a block of so many rows decodes, beyond the array's edge included."""
        height, width = self.chunk
        chunks = -(-rows // height) * -(-self.shape[1] // width)
        padded = prod(-(-length // size) * size for length, size in zip(self.inner, self.inner_chunk, strict=True))
        return chunks * height // self.rows_a_place * padded * width

    @property
    def _between(self) -> list[tuple[int, ...]]:
        """Numbers of the files along the axes of rows but the first."""
        counts = (-(-length // size) for length, size in zip(self.inner, self.inner_file, strict=True))
        return list(product(*map(range, counts)))

    def _touched(self, rows: range) -> Iterator[tuple[int, slice, int, slice]]:
        """Number of each run of files along rows, and which of `rows` are in it; the same along classes."""
        height, width = self.file_chunk
        for i in range(rows.start // height, -(-rows.stop // height)):
            inside = slice(max(rows.start, i * height), min(rows.stop, (i + 1) * height))
            for k in range(-(-self.shape[1] // width)):
                yield i, inside, k, _part(k, width, self.shape[1])

    def _places(self, rows: slice) -> slice:
        return slice(rows.start // self.rows_a_place, -(-rows.stop // self.rows_a_place))

    def _require_file(self, key: str, selection: tuple[slice, ...]) -> None:
        size = self._size(key)
        if size is None:
            if not self.fill_missing:
                raise self._missing(key)
            return
        fault = self.file_size.fault(size)
        if fault:
            raise self.corrupt(key, fault)
        if self.index:
            self._require_inner(self.index, key, size, selection)

    def _size(self, key: str) -> int | None:
        try:
            return self.files.size(joined(self.name, key))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _require_inner(self, index: ShardIndex, key: str, size: int, selection: tuple[slice, ...]) -> None:
        try:
            absent = index.absent_chunk(self.files, joined(self.name, key), size, selection)
        except ShardError as fault:
            raise self.corrupt(key, str(fault)) from fault
        if absent is not None and not self.fill_missing:
            raise self._missing(key, f"inner chunk {absent} of ")

    def _missing(self, key: str, part: str = "") -> MissingChunkError:
        fill = self.array.fill_value
        return MissingChunkError(
            f"{self.source}: {part}chunk {joined(self.name, key)} of the logits is not there; expected every "
            f"chunk, since a missing one would read as {fill}. Copy the dump again; if its rows really are all "
            f"{fill}, write it with write_empty_chunks=True, or read it with missing_chunks: fill."
        )


def _part(number: int, size: int, length: int) -> slice:
    """What of an axis is in the chunk of this number."""
    return slice(number * size, min(length, (number + 1) * size))


def _lengths(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
