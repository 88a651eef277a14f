"""Between NumPy and Arrow, by buffers. pyarrow's ways copy, and load pandas at their first use, a quarter of a second.

These are `pyarrow.array`, `pyarrow.scalar` (so also a Python value given to `pyarrow.compute`) and `to_numpy`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def numbers(values: NDArray[Any]) -> pa.Array:
    """An array of the memory of `values`, which are contiguous and in native byte order."""
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def texts(values: Sequence[str]) -> pa.StringArray:
    """Text of fewer than 2 GiB in all."""
    joined = "".join(values)
    # Of ASCII nothing is done for each text but to ask its length.
    encoded = values if joined.isascii() else [text.encode() for text in values]
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, encoded), np.int32, len(values)), dtype=np.int32, out=offsets[1:])
    return pa.StringArray.from_buffers(len(values), pa.py_buffer(offsets), pa.py_buffer(joined.encode()))


def stored(values: pa.Array) -> NDArray[Any]:
    """The numbers of an array as they lie in memory; whatever lies there where one is null."""
    lying: NDArray[Any] = np.frombuffer(values.buffers()[1] or b"", values.type.to_pandas_dtype())
    return lying[values.offset : values.offset + len(values)]


def is_known(values: pa.Array) -> NDArray[np.bool_]:
    """Which are not null."""
    bitmap = values.buffers()[0]
    if bitmap is None or not values.null_count:
        return np.ones(len(values), np.bool_)
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), count=values.offset + len(values), bitorder="little")
    return bits[values.offset :].view(np.bool_)
