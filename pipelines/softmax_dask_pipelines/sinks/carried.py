"""What is carried, as Zarr stores it."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softmax_dask_pipelines import arrow
from softmax_dask_pipelines.errors import SchemaMismatchError

_NOTHING = arrow.texts([""]).cast(pa.large_binary())[0]


def carried_numbers(values: pa.ChunkedArray, name: str) -> NDArray[Any]:
    """Integers, or a dictionary of them; a missing one is refused, for Zarr's integers have no null."""
    if values.null_count:
        raise SchemaMismatchError(
            f"{name}: {values.null_count} ids are missing; expected an id in every row, "
            "for Zarr's integers have no null. Fill them in, or write Parquet."
        )
    return np.concatenate([_numbers(chunk) for chunk in values.chunks])


def carried_texts(values: pa.ChunkedArray, name: str) -> list[pa.Array]:
    """Text, as `vlen-utf8` has it; a missing one is empty. What is not UTF-8 is refused: nobody could read it."""
    try:
        return [with_lengths(chunk.cast(pa.large_binary()).cast(pa.large_string())) for chunk in values.chunks]
    except pa.ArrowInvalid as error:
        raise SchemaMismatchError(
            f"{name}: holds text that is not UTF-8; expected UTF-8, which Zarr's text is. Mend it, or write Parquet."
        ) from error


def with_lengths(texts: pa.Array) -> pa.Array:
    """Binary: each text's UTF-8 behind the length of that in 4 bytes. In Arrow's memory: as objects of Python, texts
    took five times as long, one thread at a time."""
    import pyarrow.compute as pc  # late: few runs carry text

    items = pc.fill_null(texts.cast(pa.large_binary()), _NOTHING)
    ends: NDArray[np.int64] = np.frombuffer(items.buffers()[1], np.int64, len(items) + 1, items.offset * 8)
    fours = np.arange(0, 4 * len(items) + 1, 4, dtype=np.int64)
    buffers = [None, pa.py_buffer(fours), pa.py_buffer(np.diff(ends).astype("<u4"))]
    lengths = pa.Array.from_buffers(pa.large_binary(), len(items), buffers)
    return pc.binary_join_element_wise(lengths, items, _NOTHING)


def repeated_texts(values: pa.ChunkedArray) -> Iterator[tuple[str, int]]:
    """A dictionary of text or integers as runs, each a text and its length; a missing one is empty."""
    for chunk in values.chunks:
        known = [*map(str, chunk.dictionary.to_pylist()), ""]
        positions = np.where(arrow.is_known(chunk.indices), arrow.stored(chunk.indices), len(known) - 1)
        starts = [0, *(np.flatnonzero(np.diff(positions)) + 1).tolist(), len(positions)]
        yield from ((known[positions[start]], stop - start) for start, stop in pairwise(starts))


def _numbers(chunk: pa.Array) -> NDArray[Any]:
    if pa.types.is_dictionary(chunk.type):
        known: NDArray[Any] = arrow.stored(chunk.dictionary)[arrow.stored(chunk.indices)]
        return known
    return arrow.stored(chunk)
