"""The direct lane of text: chunks of `vlen-utf8` become Arrow's text without an object of Python for each.

As of `zarr_direct`: whatever is not as it should be ends it, and then zarr-python's lane reads the same rows, or says
what is wrong with them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import zarr

from softmax_dask_pipelines.sources.zarr_bounds import BoundError
from softmax_dask_pipelines.sources.zarr_codecs import FileSize
from softmax_dask_pipelines.sources.zarr_decoders import limit_bytes
from softmax_dask_pipelines.sources.zarr_files import Files
from softmax_dask_pipelines.sources.zarr_into import Decoder
from softmax_dask_pipelines.sources.zarr_metadata import joined

_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class TextLane:
    """What is the same for all chunks of an array of text."""

    array: "zarr.Array[Any]"
    name: str
    files: Files
    file_size: FileSize
    decoder: Decoder

    @classmethod
    def of(cls, array: "zarr.Array[Any]", files: Files, *, name: str, file_size: FileSize) -> "TextLane | None":
        """For an array of text without shards, whose other codecs are plain, where files are near."""
        decoder = Decoder.of_texts(array.metadata)
        if decoder is None or array.shards is not None or files.is_far:
            return None
        return cls(array, name, files, file_size, decoder)

    def decode(self, start: int, stop: int) -> Any:
        """The texts start..stop-1, a pyarrow.StringArray; None: ask zarr-python."""
        try:
            return self._decode(start, stop)
        except MemoryError:
            raise
        except Exception:  # every codec raises errors of its own
            return None

    def compile(self) -> None:
        """Compile, or load, what takes a chunk apart."""
        texts_of(bytes(_LENGTH_BYTES), 0)

    def _decode(self, start: int, stop: int) -> Any:
        height = int(self.array.chunks[0])
        parts = []
        for number in range(start // height, -(-stop // height)):
            texts, first = self._chunk(number, height), number * height
            inside = slice(max(start - first, 0), min(stop - first, height))
            parts.append(texts[inside])
        return pa.concat_arrays(parts)

    def _chunk(self, number: int, height: int) -> Any:
        key = joined(self.name, self.array.metadata.encode_chunk_key((number,)))
        size = self.files.size(key)
        if self.file_size.fault(size):
            raise BoundError("has a size that cannot be")
        limit = limit_bytes(height, np.dtype(self.array.dtype))
        return texts_of(self.decoder.decoded(self.files.read(key, 0, size), limit), height)


def texts_of(stored: Any, count: int) -> Any:
    """So many texts, each behind its length, and their number before all; BoundError where that does not fit."""
    from softmax_dask_pipelines.sources.zarr_texts_split import split_texts  # late: it brings Numba

    bytes_in = np.frombuffer(stored, np.uint8)
    bytes_in.flags.writeable = False  # so that it is compiled once
    room = len(bytes_in) - _LENGTH_BYTES * (count + 1)
    if room < 0 or int.from_bytes(bytes_in[:_LENGTH_BYTES], "little") != count:
        raise BoundError(f"holds another number of texts than {count}")
    if room > np.iinfo(np.int32).max:
        raise BoundError("holds more text than Arrow's offsets reach")
    ends, texts = np.empty(count + 1, np.int32), np.empty(room, np.uint8)
    if not split_texts(bytes_in[_LENGTH_BYTES:], ends, texts):
        raise BoundError("holds lengths that do not fit")
    array = pa.StringArray.from_buffers(count, pa.py_buffer(ends), pa.py_buffer(texts))
    array.validate(full=True)  # UTF-8
    return array
