"""The chunk and shard files of a local Zarr array: which rows touch which, and are they whole?

Of an array of more than two axes the rows are the places along all but the last, in C order. Where chunks cut the axes
between the first and the last, rows that follow one another lie in several files, as classes do where those are cut.

zarr-python takes a missing chunk, and a shard of no bytes, for fill value. Here they are errors, unless
missing chunks are asked to be read so.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, TypeVar

import numpy as np
import zarr
from numpy.typing import NDArray

from softmax_dask_pipelines.errors import CorruptChunkError, MissingChunkError, PermissionDeniedError
from softmax_dask_pipelines.sources.stamps import digests_of
from softmax_dask_pipelines.sources.zarr_codecs import FileSize
from softmax_dask_pipelines.sources.zarr_files import Files
from softmax_dask_pipelines.sources.zarr_metadata import joined
from softmax_dask_pipelines.sources.zarr_shards import ShardError, ShardIndex

_Part = TypeVar("_Part", int, slice)


@dataclass(frozen=True, slots=True)
class ChunkFiles:
    """Where the chunks of one array are, and what their files must be like."""

    source: str
    """For messages."""
    files: Files
    name: str
    """Of the array in the store."""
    array: "zarr.Array[Any]"
    row_axis: int
    """1 where the array is (classes, rows)."""
    fill_missing: bool
    """Chunks that are not there are fill value, and no error."""
    file_size: FileSize
    index: ShardIndex | None
    axes: int
    """Of the array."""
    inner: tuple[int, ...]
    """Lengths of the axes between the first and the last."""
    inner_chunk: tuple[int, ...]
    """Those of a chunk."""
    inner_file: tuple[int, ...]
    """Those of a file."""
    # What zarr-python works out anew whenever it is asked, which takes longer than to open a file:
    shape: tuple[int, int]
    """(rows, classes)."""
    chunk: tuple[int, int]
    """(rows, classes) that are decoded together."""
    file_chunk: tuple[int, int]
    """(rows, classes) of a file: those of a chunk, or of a shard."""

    @classmethod
    def of(
        cls, array: "zarr.Array[Any]", source: str, files: Files, name: str, *, row_axis: int, fill_missing: bool
    ) -> "ChunkFiles":
        """Those of `array`, which is `name` in the store."""
        return cls(
            source=source,
            files=files,
            name=name,
            array=array,
            row_axis=row_axis,
            fill_missing=fill_missing,
            file_size=FileSize.of(array),
            index=ShardIndex.of(array),
            axes=array.ndim,
            inner=array.shape[1:-1],
            inner_chunk=array.chunks[1:-1],
            inner_file=(array.shards or array.chunks)[1:-1],
            shape=_by_rows(array.shape, row_axis),
            chunk=_by_rows(_with_all_inner(array, array.chunks), row_axis),
            file_chunk=_by_rows(_with_all_inner(array, array.shards or array.chunks), row_axis),
        )

    @property
    def is_by_rows(self) -> bool:
        """Whether the values of a row lie side by side in a chunk."""
        return self.axes == 1 or not self.row_axis

    @property
    def has_whole_rows(self) -> bool:
        """Whether the rows of a chunk follow one another: it holds the axes between whole, and no more than them."""
        return self.inner == self.inner_chunk == self.inner_file

    @property
    def row_chunks(self) -> int:
        """Chunks that the rows of one place along the first axis are cut into."""
        return prod(-(-length // size) for length, size in zip(self.inner, self.inner_chunk, strict=True))

    @property
    def rows_a_place(self) -> int:
        """Rows of one place along the first axis."""
        return prod(self.inner)

    @property
    def layout(self) -> str:
        """For people."""
        shards = self.array.shards
        chunks = f"chunks of {_lengths(self.array.chunks)}"
        order = ", (classes, rows)" if self.row_axis else ""
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
        """The index of these rows and classes in the array as it is stored: of whole places along its first axis."""
        if not self.inner:
            return self._as_stored(rows, classes)
        places = slice(rows.start // self.rows_a_place, -(-rows.stop // self.rows_a_place))
        return (places, *(slice(0, length) for length in self.inner), classes)

    def rows_of(self, stored: NDArray[Any], rows: range) -> NDArray[Any]:
        """What `selection` found of these rows, as (rows, classes)."""
        if self.axes == 2:
            return stored.T if self.row_axis else stored
        first = rows.start % self.rows_a_place
        return stored.reshape(-1, self.shape[1])[first : first + len(rows)]

    def selections(self, rows: range) -> Iterator[tuple[str, tuple[slice, ...]]]:
        """Key of each file that `rows` touch, and the index of what of those places is in it."""
        key_of = self.array.metadata.encode_chunk_key
        for i, inside, k, classes in self._touched(rows):
            for between in self._between:
                selection = self.selection(inside, classes)
                if between:
                    selection = (selection[0], *map(_part, between, self.inner_file, self.inner), selection[-1])
                yield key_of(self._numbers(i, k, between)), selection

    def parts(self, rows: range) -> Iterator[tuple[str, slice, slice]]:
        """Key of each file that `rows` touch, and which of them and which classes are in it; of whole rows."""
        key_of, between = self.array.metadata.encode_chunk_key, (0,) * len(self.inner)
        for i, inside, k, classes in self._touched(rows):
            yield key_of(self._numbers(i, k, between)), inside, classes

    def place_in_shard(self, row: int, column: int) -> tuple[int, ...]:
        """Where the index of a shard has the inner chunk with this number along rows and along classes."""
        assert self.index is not None, "a place in a shard of an array without shards"
        places = zip(self._numbers(row, column, (0,) * len(self.inner)), self.index.grid, strict=True)
        return tuple(number % count for number, count in places)

    def by_rows(self, values: NDArray[Any]) -> NDArray[Any]:
        """The values of a chunk, flat and in stored order, as (rows, classes)."""
        return values.reshape(self.array.chunks).T if self.row_axis else values.reshape(self.chunk)

    def stamps(self) -> NDArray[np.uint64]:
        """How the files of each run of rows look, one digest for all classes."""
        # Not by `parts`: a dump has thousands of files, and each is looked at twice in a run.
        (height, width), key_of = self.file_chunk, self.array.metadata.encode_chunk_key
        count, across = -(-self.shape[0] // height), range(-(-self.shape[1] // width))
        beside = [(between, k) for between in self._between for k in across]
        looks = (
            [self.files.stamp(joined(self.name, key_of(self._numbers(i, k, between)))) for between, k in beside]
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
        """Numbers of the files along the axes between the first and the last."""
        counts = (-(-length // size) for length, size in zip(self.inner, self.inner_file, strict=True))
        return list(product(*map(range, counts)))

    def _touched(self, rows: range) -> Iterator[tuple[int, slice, int, slice]]:
        """Number of each run of files along rows, and which of `rows` are in it; the same along classes."""
        height, width = self.file_chunk
        for i in range(rows.start // height, -(-rows.stop // height)):
            inside = slice(max(rows.start, i * height), min(rows.stop, (i + 1) * height))
            for k in range(-(-self.shape[1] // width)):
                yield i, inside, k, _part(k, width, self.shape[1])

    def _numbers(self, row: int, column: int, between: tuple[int, ...]) -> tuple[int, ...]:
        """Of a chunk or a file along each axis, by those along rows, along classes and between."""
        return (row, *between, column) if between else self._as_stored(row, column)

    def _as_stored(self, rows: _Part, classes: _Part) -> tuple[_Part, ...]:
        if self.axes == 1:
            return (rows,)
        return (classes, rows) if self.row_axis else (rows, classes)

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


def _by_rows(lengths: tuple[int, ...], row_axis: int) -> tuple[int, int]:
    """(rows, classes), of an array with one axis (rows, 1)."""
    if len(lengths) == 1:
        return lengths[0], 1
    return (lengths[1], lengths[0]) if row_axis else (prod(lengths[:-1]), lengths[-1])


def _with_all_inner(array: "zarr.Array[Any]", lengths: tuple[int, ...]) -> tuple[int, ...]:
    """Those of a chunk or a file together with all that lie beside it along the axes between the first and the last."""
    return (lengths[0], *array.shape[1:-1], lengths[-1]) if array.ndim > 2 else lengths


def _part(number: int, size: int, length: int) -> slice:
    """What of an axis is in the chunk of this number."""
    return slice(number * size, min(length, (number + 1) * size))


def _lengths(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
