"""1-D Zarr arrays beside the logits: ids, targets, class names. Missing chunks follow Zarr's fill rule."""

from dataclasses import dataclass
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

    @classmethod
    def of(cls, array: "zarr.Array[Any]", files: Files, *, name: str, where: str, rows: int) -> "CarriedArray":
        """`array`, once it has one value for each of `rows` rows, and of a type that can be carried."""
        if array.shape != (rows,):
            raise SchemaMismatchError(
                f"{where}: has shape {array.shape}; expected ({rows},), one value a row of the logits. "
                "Name another array, or write this one again."
            )
        carried_type = type_of_numpy(np.dtype(array.dtype), where=where)
        file_size = FileSize.of(array)
        texts = TextLane.of(array, files, name=name, file_size=file_size)
        return cls(name, where, array, files, file_size, carried_type, texts)

    def decoding_bytes(self, rows: int) -> int:
        """Memory that decoding the chunks of so many rows takes; numbers are decoded, widened and held."""
        chunk = int(self.array.chunks[0])
        width = 3 * 8 if self.array.dtype.kind in "iu" else _TEXT_BYTES
        return -(-rows // chunk) * chunk * width

    def reader(self, stop: int) -> "CarriedReader":
        """Something to read rows from, in order, up to `stop`."""
        return CarriedReader(self, stop)

    def decode(self, start: int, stop: int) -> Any:
        """The values start..stop-1 as an Arrow array."""
        self._require_sizes(start, stop)
        if self.texts is not None and (texts := self.texts.decode(start, stop)) is not None:
            return texts
        try:
            values = self._stored(start, stop)
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
        return array_of_numpy(values, where=self.where)

    @property
    def height(self) -> int:
        """Values of a file."""
        return int((self.array.shards or self.array.chunks)[0])

    def stamps(self) -> NDArray[np.uint64]:
        """How each file looks."""
        count = -(-int(self.array.shape[0]) // self.height)
        keys = (joined(self.name, self.array.metadata.encode_chunk_key((number,))) for number in range(count))
        return digests_of(map(self.files.stamp, keys), count)

    def _stored(self, start: int, stop: int) -> NDArray[Any]:
        try:
            return np.asarray(self.array[start:stop])
        except (MemoryError, PermissionError, TemporaryError):
            raise
        except Exception:  # the storage may have failed, and not the chunk: the second time it counts
            return np.asarray(self.array[start:stop])

    def _require_sizes(self, start: int, stop: int) -> None:
        """Refuse files that are empty or too long; those that are not there are fill value."""
        for number in range(start // self.height, -(-stop // self.height)):
            key = joined(self.name, self.array.metadata.encode_chunk_key((number,)))
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
            chunk = int(self._carried.array.chunks[0])
            self._held = range(rows.start, min(self._stop, -(-rows.stop // chunk) * chunk))
            self._values = self._carried.decode(self._held.start, self._held.stop)
        first = rows.start - self._held.start
        return self._values[first : first + len(rows)]
