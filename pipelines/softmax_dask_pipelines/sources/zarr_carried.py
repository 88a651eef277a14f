"""Zarr arrays beside the logits, ids and targets: a value a row, or one for each place of the first axes of rows.

Missing chunks follow Zarr's fill rule.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from softmax_dask_pipelines.errors import CorruptChunkError, PermissionDeniedError, SchemaMismatchError, TemporaryError
from softmax_dask_pipelines.sources.carried import array_of_numpy, type_of_numpy
from softmax_dask_pipelines.sources.stamps import digests_of
from softmax_dask_pipelines.sources.zarr_codecs import FileSize
from softmax_dask_pipelines.sources.zarr_files import Files
from softmax_dask_pipelines.sources.zarr_metadata import has, joined
from softmax_dask_pipelines.sources.zarr_texts import TextLane

_TEXT_BYTES = 400
"""Of a text while it is decoded: as Zarr gives it, as Python's text and bytes, and as Arrow holds it.
Of 18 letters 310 were measured, and 400 when other texts had been decoded before; see benchmarks/memory.py."""


@dataclass(frozen=True, slots=True)
class CarriedArray:
    """An array with one value a row."""

    name: str
    where: str
    """The source and the name, for messages."""
    array: "zarr.Array[Any]"
    files: Files
    file_size: FileSize
    type: Any
    """pyarrow.DataType of the values."""
    texts: TextLane | None
    """What reads these, where they are text and plain."""
    repeats: int
    """Rows that share a value."""
    values_a_place: int
    """Values of one place along the array's first axis."""

    @classmethod
    def of(
        cls, array: "zarr.Array[Any]", files: Files, *, name: str, where: str, places: tuple[int, ...]
    ) -> "CarriedArray":
        """`array`, once it has one value for each row, and of a type that can be carried.

        `places`: along each axis of the rows. An array of the first of them has one value for all rows of a place.
        """
        has_one_a_place = array.ndim > 0 and array.shape == places[: array.ndim]
        if not has_one_a_place and array.shape != (prod(places),):
            remedy = "Name another array, or write this one again"
            if len(places) > 1:
                remedy = f"Give class_axis, if the classes are along another axis; else {remedy.lower()}"
            raise SchemaMismatchError(
                f"{where}: has shape {array.shape}; expected {places}, one value a row of the logits. {remedy}."
            )
        carried_type = type_of_numpy(np.dtype(array.dtype), where=where)
        file_size = FileSize.of(array)
        texts = TextLane.of(array, files, name=name, file_size=file_size) if array.ndim == 1 else None
        repeats = prod(places[array.ndim :]) if has_one_a_place else 1
        return cls(name, where, array, files, file_size, carried_type, texts, repeats, prod(array.shape[1:]))

    def decoding_bytes(self, rows: int) -> int:
        """Memory that decoding the chunks of so many rows takes; numbers are decoded, widened and held."""
        chunk = self.chunk_rows
        width = 3 * 8 if self.array.dtype.kind in "iu" else _TEXT_BYTES
        return -(-rows // chunk) * chunk * width

    def reader(self, stop: int) -> "CarriedReader":
        """Something to read rows from, in order, up to `stop`."""
        return CarriedReader(self, stop)

    def decode(self, start: int, stop: int) -> Any:
        """Those of rows start..stop-1 as an Arrow array."""
        if self.repeats == 1:
            return self._decode(start, stop)
        first = start // self.repeats
        values = self._decode(first, -(-stop // self.repeats))
        return values.take(array_of_numpy(np.arange(start, stop) // self.repeats - first, where=self.where))

    @property
    def chunk_rows(self) -> int:
        """Rows that are decoded together."""
        return int(self.array.chunks[0]) * self.values_a_place * self.repeats

    @property
    def height(self) -> int:
        """Rows of a file, or of the files side by side."""
        return self._places_a_file * self.values_a_place * self.repeats

    def stamps(self) -> NDArray[np.uint64]:
        """How each file looks; of more than one axis, those side by side."""
        count = -(-int(self.array.shape[0]) // self._places_a_file)
        if self.array.ndim == 1:  # one look and no list of one, as the records of earlier runs have it
            return digests_of((self.files.stamp(key) for number in range(count) for key in self._keys(number)), count)
        return digests_of(([self.files.stamp(key) for key in self._keys(number)] for number in range(count)), count)

    @property
    def _places_a_file(self) -> int:
        return int((self.array.shards or self.array.chunks)[0])

    def _keys(self, number: int) -> Iterator[str]:
        """Of the files with this number along the first axis."""
        lengths = (self.array.shards or self.array.chunks)[1:]
        beside = (range(-(-length // size)) for length, size in zip(self.array.shape[1:], lengths, strict=True))
        for others in product(*beside):
            yield joined(self.name, self.array.metadata.encode_chunk_key((number, *others)))

    def _decode(self, start: int, stop: int) -> Any:
        """The values start..stop-1, in C order."""
        places = slice(start // self.values_a_place, -(-stop // self.values_a_place))
        self._require_sizes(places)
        if self.texts is not None and (texts := self.texts.decode(start, stop)) is not None:
            return texts
        try:
            values = self._stored(places).reshape(-1)
        except (MemoryError, PermissionDeniedError, TemporaryError):
            raise
        except PermissionError as error:
            raise PermissionDeniedError(
                f"{self.where}: {error}; expected read permission. Check the owner and mode of its files."
            ) from error
        except Exception as error:  # every codec raises its own
            raise CorruptChunkError(
                f"{self.where}: values {start} to {stop - 1} do not decode ({error}); expected whole chunks. "
                "Copy or write the array again."
            ) from error
        first = start - places.start * self.values_a_place
        return array_of_numpy(values[first : first + stop - start], where=self.where)

    def _stored(self, places: slice) -> NDArray[Any]:
        try:
            return np.asarray(self.array[places])
        except (MemoryError, PermissionError, TemporaryError):
            raise
        except Exception:  # the storage may have failed, and not the chunk: the second time it counts
            return np.asarray(self.array[places])

    def _require_sizes(self, places: slice) -> None:
        """Refuse files that are empty or too long; those that are not there are fill value."""
        for number in range(places.start // self._places_a_file, -(-places.stop // self._places_a_file)):
            for key in self._keys(number):
                fault = self.file_size.fault(self.files.size(key)) if has(self.files, key) else None
                if fault:
                    raise CorruptChunkError(
                        f"{self.where}: chunk {key} {fault}; expected a whole chunk. Copy or write the array again."
                    )


class CarriedReader:
    """Reads whole chunks and holds the last: chunks of ids are often far longer than blocks of logits."""

    def __init__(self, carried: CarriedArray, stop: int) -> None:
        self._carried = carried
        self._stop = stop
        self._held = range(0)
        self._values: Any = None

    def values(self, rows: range) -> Any:
        """The values of `rows`, which follow the rows asked for before."""
        if self._values is None or rows.start < self._held.start or rows.stop > self._held.stop:
            chunk = self._carried.chunk_rows
            self._held = range(rows.start, min(self._stop, -(-rows.stop // chunk) * chunk))
            self._values = self._carried.decode(self._held.start, self._held.stop)
        first = rows.start - self._held.start
        return self._values[first : first + len(rows)]
