"""Which dtypes arithmetic and results have, and how many rows make a block. Knows no values."""

import math
from typing import Any

import ml_dtypes
import numpy as np

from softmax_dask.columns import Column
from softmax_dask.errors import DtypeError

BLOCK_BYTES = 8 << 20
"""Logits of a block on the run path: with its results it fits the caches that cores share."""

DEVICE_BLOCK_BYTES = 1 << 30
"""The same on a GPU, which takes about half a millisecond for it: a hundred times what a launch costs."""

# Beyond these temperatures log2(e) / T, or a logit times it, leaves the range of float32.
_FLOAT32_TEMPERATURES = (1e-35, 1e30)

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_FLOATS = {np.dtype(np.float16), _BFLOAT16, np.dtype(np.float32), np.dtype(np.float64)}
_EXACT_IN_FLOAT32 = {np.dtype(name) for name in ("int8", "int16", "uint8", "uint16")}
_EXACT_IN_FLOAT64 = {np.dtype(name) for name in ("int32", "uint32")}
_TAKEN = _FLOATS | _EXACT_IN_FLOAT32 | _EXACT_IN_FLOAT64


def kernel_dtype(logits: Any, *, dtype: Any = None, temperature: float = 1.0) -> np.dtype[Any]:
    """Dtype in which kernels read logits of dtype `logits`, when results of `dtype` are wanted.

    16-bit floats are read as they are and decoded to float32 inside the kernel.

    Raises
    ------
    DtypeError
        The kernels do not take such logits.
    """
    stored = _native(logits)
    if stored not in _TAKEN:
        raise DtypeError(
            f"logits have dtype {logits}; expected a float of 16 to 64 bits, bfloat16, or an integer of at most 32 "
            "bits. Cast them first, e.g. logits.astype('float32')."
        )
    low, high = _FLOAT32_TEMPERATURES
    wide = dtype is not None and np.dtype(dtype) == np.float64
    if stored in _EXACT_IN_FLOAT64 or wide or not low <= temperature <= high:
        return np.dtype(np.float64)
    return np.dtype(np.float32) if stored in _EXACT_IN_FLOAT32 else stored


def _native(logits: Any) -> np.dtype[Any]:
    try:
        stored: np.dtype[Any] = np.dtype(logits)
    except TypeError:  # another library's dtype
        return np.dtype(object)
    return stored if stored.isnative else stored.newbyteorder("=")


def float_dtype(logits: Any) -> np.dtype[Any]:
    """Dtype of columns with one value a row: float32, of float64 and 32-bit integer logits float64."""
    return np.dtype(np.float64) if kernel_dtype(logits) == np.float64 else np.dtype(np.float32)


def result_dtype(logits: Any, dtype: Any = None) -> np.dtype[Any]:
    """Dtype of columns with one value a class: `dtype`, or else `float_dtype`.

    Raises
    ------
    DtypeError
        `dtype` is no float of 16 to 64 bits.
    """
    if dtype is None:
        return float_dtype(logits)
    try:
        wanted: np.dtype[Any] = np.dtype(dtype)
    except (TypeError, ValueError):
        wanted = np.dtype(object)
    if wanted not in _FLOATS:
        raise DtypeError(f"dtype is {dtype!r}; expected float16, bfloat16, float32 or float64.")
    return wanted


def column_dtype(column: Column, logits: Any, dtype: Any = None) -> np.dtype[Any]:
    """Dtype of a column of `logits`; `dtype` is that of wide columns."""
    if column.kind == "wide":
        return result_dtype(logits, dtype)
    return float_dtype(logits) if column.kind == "float" else np.dtype(column.kind)


def rows_in(bytes_wanted: int, row_bytes: int) -> int:
    """Rows of `row_bytes` each that fit `bytes_wanted`; at least one."""
    return max(1, bytes_wanted // max(1, row_bytes))


def jacobian_tiles(
    rows: tuple[int, ...], classes: int, item_bytes: int, tile_bytes: int
) -> tuple[tuple[int, ...], int]:
    """How a Jacobian is cut into tiles of at most `tile_bytes`: whole matrices while one fits, else squares of one.

    Parameters
    ----------
    rows : lengths of the axes beside that of the classes, in one chunk of the logits

    Returns
    -------
    lengths of these axes in a tile, and its classes along each of the two axes of classes
        The last axes of rows are kept longest, since they lie together in memory.
    """
    fit = rows_in(tile_bytes, classes * classes * item_bytes)
    lengths: list[int] = []
    for length in reversed(rows):
        lengths.insert(0, max(1, min(length, fit)))
        fit //= lengths[0]
    side = min(classes, max(1, math.isqrt(tile_bytes // item_bytes)))
    pieces = -(-classes // side)
    return tuple(lengths), -(-classes // pieces)


def pieces_of(length: int, most: int) -> tuple[int, ...]:
    """`length` in pieces of `most`, the last one shorter."""
    whole, rest = divmod(length, most)
    return (most,) * whole + ((rest,) if rest or not whole else ())
