"""Row ids as NumPy arrays. pyarrow's own conversions load pandas at their first use."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softmax_dask_pipelines.errors import SchemaMismatchError


def id_numbers(ids: pa.ChunkedArray, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Integer ids; a missing one is refused, for Zarr's integers have no null."""
    if ids.null_count:
        raise SchemaMismatchError(
            f"{name}: {ids.null_count} ids are missing; expected an id in every row, "
            "for Zarr's integers have no null. Fill them in, or write Parquet."
        )
    whole = ids.cast(pa.from_numpy_dtype(dtype))
    return np.concatenate([_numbers(chunk, dtype) for chunk in whole.chunks])


def id_texts(ids: pa.ChunkedArray) -> NDArray[np.object_]:
    """Ids as text; a missing one is empty."""
    texts = ids.cast(pa.large_string()).to_pylist()
    return np.array([text or "" for text in texts], dtype=object)


def _numbers(chunk: pa.Array, dtype: np.dtype[Any]) -> NDArray[Any]:
    values = chunk.buffers()[1]
    if values is None:
        return np.empty(0, dtype)
    stored: NDArray[Any] = np.frombuffer(values, dtype, len(chunk), chunk.offset * dtype.itemsize)
    return stored
