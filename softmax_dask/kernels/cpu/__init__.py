"""Row kernels on the CPU, in Numba with explicit vectors.

Here is the door: which integers stand for 16-bit floats, how rows that lie apart are passed,
and which of the two structures runs. `tile` (a row a lane) and `row` (along the row) each
give the same bits for any number of rows; the choice hangs on the number of classes alone, so
the result does not depend on how rows are chunked.
"""

import ctypes
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from softmax_dask.kernels.cpu.exp2 import Inverse, Scale, inverse_of, scale_of
from softmax_dask.kernels.cpu.finish import Outputs
from softmax_dask.kernels.cpu.jacobian import Part, jacobian_row, jacobian_tile
from softmax_dask.kernels.cpu.products import jvp_row, log_jvp_row, log_vjp_row
from softmax_dask.kernels.cpu.row import decision_row, softmax_row
from softmax_dask.kernels.cpu.simd import FLOAT32_LANES
from softmax_dask.kernels.cpu.tile import decision_tile, softmax_tile
from softmax_dask.kernels.cpu.topk import top_k_row

ARITHMETIC = 1
"""Version of the arithmetic: raised by hand with any change that may change a bit of a result."""

NAME = f"cpu-{FLOAT32_LANES}-lanes-v{ARITHMETIC}"
"""Kernels of one name give the same bits, with one C library (log1p is its). Sums along a row have a part a lane."""

_SOFTMAX_TILE_CLASSES = 128
_DECISION_TILE_CLASSES = 256
_JACOBIAN_TILE_CLASSES = 24

# Numba knows neither 16-bit float on the CPU; `simd` decodes these integers.
_BITS: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(np.float16): np.dtype(np.uint16),
    np.dtype(ml_dtypes.bfloat16): np.dtype(np.int16),
}

_TOP_K = ("top_k_labels", "top_k_probabilities")

_Rows = NDArray[Any]


def softmax_rows(logits: _Rows, out: _Rows, temperature: float) -> None:
    """Fill `out`, (rows, classes), C order, float32 or for float64 logits float64, with probabilities."""
    rows, classes = logits.shape
    if rows == 0:
        return
    run = softmax_tile if classes <= _SOFTMAX_TILE_CLASSES else softmax_row
    flat, stride = _flat(logits)
    run(flat, stride, rows, classes, _scales(temperature, out.dtype)[0], out.reshape(-1))


def decision_rows(
    logits: _Rows, targets: NDArray[np.int64] | None, out: Mapping[str, NDArray[Any]], temperature: float
) -> None:
    """Fill each array of `out`, C order, by its column's name; `targets` is (rows,), -1 where unlabelled."""
    rows, classes = logits.shape
    if rows == 0:
        return
    flat, stride = _flat(logits)
    floats = np.dtype(np.float64 if logits.dtype == np.float64 else np.float32)
    scale, inverse, inverse64 = _scales(temperature, floats)
    narrow = _with_confidence(out, rows, floats)
    outputs, truth = _outputs(narrow, floats), np.empty(0, np.int64) if targets is None else targets
    if classes <= _DECISION_TILE_CLASSES:
        decision_tile(flat, stride, rows, classes, scale, inverse, truth, outputs)
    else:
        decision_row(flat, stride, rows, classes, scale, inverse, inverse64, truth, outputs)
    if not set(_TOP_K).isdisjoint(out):
        _top_k(flat, stride, classes, scale, narrow["confidence"], out)


def jacobian_rows(logits: _Rows, out: _Rows, temperature: float, first: int = 0, second: int = 0) -> None:
    """Fill `out`, (rows, height, breadth), C order, with entries first.., second.. of each row's Jacobian."""
    rows, classes = logits.shape
    if out.size == 0:
        return
    run = jacobian_tile if classes <= _JACOBIAN_TILE_CLASSES else jacobian_row
    flat, stride = _flat(logits)
    part = Part(first, out.shape[1], second, out.shape[2])
    scale = _scales(temperature, out.dtype)[0]
    run(flat, stride, rows, classes, scale, _root(temperature, out.dtype), part, out.reshape(-1))


def jvp_rows(logits: _Rows, vectors: _Rows, out: _Rows, temperature: float) -> None:
    """Fill `out`, (rows, classes), C order, with s * (v - <s, v>) / T of each row; `vectors` has the dtype of `out`."""
    _multiply(jvp_row, logits, vectors, out, temperature)


def log_jvp_rows(logits: _Rows, vectors: _Rows, out: _Rows, temperature: float) -> None:
    """As `jvp_rows`, with (v - <s, v>) / T."""
    _multiply(log_jvp_row, logits, vectors, out, temperature)


def log_vjp_rows(logits: _Rows, vectors: _Rows, out: _Rows, temperature: float) -> None:
    """As `jvp_rows`, with (g - s * sum(g)) / T."""
    _multiply(log_vjp_row, logits, vectors, out, temperature)


def _multiply(run: Any, logits: _Rows, vectors: _Rows, out: _Rows, temperature: float) -> None:
    rows, classes = logits.shape
    if rows == 0:
        return
    scale, root = _scales(temperature, out.dtype)[0], _root(temperature, out.dtype)
    run(*_flat(logits), *_flat(vectors), rows, classes, scale, root, out.reshape(-1))


def _root(temperature: float, floats: np.dtype[Any]) -> Any:
    """The square root of 1 / temperature, in the kernel's arithmetic."""
    return floats.type(math.sqrt(1 / temperature))


def _with_confidence(out: Mapping[str, NDArray[Any]], rows: int, floats: np.dtype[Any]) -> dict[str, NDArray[Any]]:
    """The arrays of `out` but those of top_k, which needs the confidence."""
    narrow = {name: array for name, array in out.items() if name not in _TOP_K}
    if not set(_TOP_K).isdisjoint(out) and "confidence" not in narrow:
        narrow["confidence"] = np.empty(rows, floats)
    return narrow


def _top_k(
    flat: _Rows, stride: int, classes: int, scale: Scale, confidence: NDArray[Any], out: Mapping[str, NDArray[Any]]
) -> None:
    rows, k = next(out[name].shape for name in _TOP_K if name in out)
    labels, probabilities = (
        out[name] if name in out else np.empty((rows, k), dtype)
        for name, dtype in zip(_TOP_K, (np.dtype(np.int32), confidence.dtype), strict=True)
    )
    top_k_row(flat, stride, rows, classes, k, scale, confidence, labels.reshape(-1), probabilities.reshape(-1))


@lru_cache(maxsize=64)
def _scales(temperature: float, floats: np.dtype[Any]) -> tuple[Scale, Inverse, Inverse]:
    return (
        scale_of(temperature, floats.type),
        inverse_of(temperature, floats.type),
        inverse_of(temperature, np.float64),
    )


def _outputs(out: Mapping[str, NDArray[Any]], floats: np.dtype[Any]) -> Outputs:
    integers = {"label", "target_rank"}
    empty = {name: np.empty(0, np.int32 if name in integers else floats) for name in Outputs._fields}
    return Outputs(**(empty | {name: array.reshape(-1) for name, array in out.items()}))


def _flat(logits: _Rows) -> tuple[_Rows, int]:
    """All memory from the first row to the last as one writable array, and how many items apart rows begin.

    A view by address: read-only, sliced and broadcast rows all are one type to Numba, so
    there is one compiled kernel a dtype. Kernels never write to logits.
    """
    rows, classes = logits.shape
    dtype = _BITS.get(logits.dtype, logits.dtype)
    stride = logits.strides[0] // dtype.itemsize if rows > 1 else classes
    count = (rows - 1) * stride + classes
    memory = (ctypes.c_char * (count * dtype.itemsize)).from_address(logits.ctypes.data)
    return np.frombuffer(memory, dtype), stride
