"""Row kernels on the CPU, in Numba with explicit vectors.

Here is the door: which integers stand for 16-bit floats, how rows that lie apart are passed,
and which of the two structures runs. `tile` (a row a lane) and `row` (along the row) each
give the same bits for any number of rows; the choice hangs on the number of classes alone, so
the result does not depend on how rows are chunked.
"""

import ctypes
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from softmax_dask.kernels.cpu.exp2 import Inverse, Scale, inverse_of, scale_of
from softmax_dask.kernels.cpu.finish import Outputs
from softmax_dask.kernels.cpu.row import decision_row, softmax_row
from softmax_dask.kernels.cpu.tile import decision_tile, softmax_tile
from softmax_dask.kernels.cpu.topk import top_k_row

_SOFTMAX_TILE_CLASSES = 128
_DECISION_TILE_CLASSES = 256

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
