"""What is carried, as NumPy arrays. pyarrow's own conversions load pandas at their first use."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softmax_dask_pipelines.errors import SchemaMismatchError


def carried_numbers(values: pa.ChunkedArray, name: str) -> NDArray[Any]:
    """Integers, or a dictionary of them; a missing one is refused, for Zarr's integers have no null."""
    if values.null_count:
        raise SchemaMismatchError(
            f"{name}: {values.null_count} ids are missing; expected an id in every row, "
            "for Zarr's integers have no null. Fill them in, or write Parquet."
        )
    return np.concatenate([_numbers(chunk) for chunk in values.chunks])


def carried_texts(values: pa.ChunkedArray) -> NDArray[np.object_]:
    """Text; a missing one is empty."""
    return np.array([text or "" for text in values.to_pylist()], dtype=object)


def repeated_texts(values: pa.ChunkedArray) -> Iterator[tuple[str, int]]:
    """A dictionary of text or integers as runs, each a text and its length; a missing one is empty."""
    for chunk in values.chunks:
        known = [*map(str, chunk.dictionary.to_pylist()), ""]
        positions = np.where(_present(chunk.indices), _stored(chunk.indices), len(known) - 1)
        starts = [0, *(np.flatnonzero(np.diff(positions)) + 1).tolist(), len(positions)]
        yield from ((known[positions[start]], stop - start) for start, stop in pairwise(starts))


def _numbers(chunk: pa.Array) -> NDArray[Any]:
    if pa.types.is_dictionary(chunk.type):
        known: NDArray[Any] = _stored(chunk.dictionary)[_stored(chunk.indices)]
        return known
    return _stored(chunk)


def _stored(chunk: pa.Array) -> NDArray[Any]:
    """The numbers as they lie in memory; whatever lies there where one is null."""
    dtype, values = np.dtype(str(chunk.type)), chunk.buffers()[1]
    if values is None:
        return np.empty(0, dtype)
    stored: NDArray[Any] = np.frombuffer(values, dtype, len(chunk), chunk.offset * dtype.itemsize)
    return stored


def _present(chunk: pa.Array) -> NDArray[np.bool_]:
    bitmap = chunk.buffers()[0]
    if bitmap is None or not chunk.null_count:
        return np.ones(len(chunk), np.bool_)
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), count=chunk.offset + len(chunk), bitorder="little")
    return bits[chunk.offset :].view(np.bool_)
