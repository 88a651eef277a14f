"""The keys of rows that a source yields: from their ids if there are any, else from their numbers."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softmax_dask import byte_keys, number_keys
from softmax_dask_pipelines import arrow
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
        places = arrow.stored(values.indices).astype(np.int64)
        known = keys_of_values(values.dictionary)
        return np.append(known, np.uint64(0))[np.where(arrow.is_known(values.indices), places, len(known))]
    if pa.types.is_integer(values.type):
        return number_keys(np.where(arrow.is_known(values), arrow.stored(values), 0))
    texts = values.cast(pa.large_string())
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int64, len(texts) + 1, texts.offset * 8)
    return byte_keys(np.frombuffer(data or b"", np.uint8), ends)
