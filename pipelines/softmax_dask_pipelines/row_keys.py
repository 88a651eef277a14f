"""The keys of rows that a source yields: from their ids if there are any, else from their numbers."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softmax_dask import byte_keys, number_keys
from softmax_dask_pipelines.sources import SourceBlock, SourceFacts

Keys = NDArray[np.uint64]


def keys_of(block: SourceBlock, first_row: int, facts: SourceFacts) -> Keys:
    """Of each row of a block whose first row has that number."""
    if facts.id is None:
        return number_keys(np.arange(first_row, first_row + len(block.logits)))
    return keys_of_values(block.carried[facts.id.name])


def keys_of_values(values: Any) -> Keys:
    """Of a pyarrow.Array of integers or texts, or a dictionary of these; all that are null have one."""
    if pa.types.is_dictionary(values.type):
        places = _stored(values.indices).astype(np.int64)
        known = keys_of_values(values.dictionary)
        return np.append(known, np.uint64(0))[np.where(_is_there(values.indices), places, len(known))]
    if pa.types.is_integer(values.type):
        return number_keys(np.where(_is_there(values), _stored(values), 0))
    texts = values.cast(pa.large_string())
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int64, len(texts) + 1, texts.offset * 8)
    return byte_keys(np.frombuffer(data or b"", np.uint8), ends)


def _stored(values: Any) -> NDArray[Any]:
    dtype = np.dtype(str(values.type))
    return np.frombuffer(values.buffers()[1] or b"", dtype, len(values), values.offset * dtype.itemsize)


def _is_there(values: Any) -> NDArray[np.bool_]:
    if not values.null_count:
        return np.ones(len(values), np.bool_)
    return np.array(values.is_valid().to_pylist(), np.bool_)
