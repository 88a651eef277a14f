"""Row kernels on a device: from the arrays of `softmax_dask.kernels` to launches. Nothing here waits or copies."""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from softmax_dask.kernels.cuda.launch import Array, Device, blocks_for, launch_rows
from softmax_dask.kernels.cuda.variants import (
    BLOCK,
    Kernel,
    Work,
    matrix_kernel,
    product_kernel,
    row_kernel,
    share_kernel,
    top_k_kernel,
)
from softmax_dask.kernels.scales import log2e_over, one_over

_NARROW = (
    "label",
    "confidence",
    "margin",
    "entropy",
    "logsumexp",
    "max_logit",
    "nll",
    "target_probability",
    "brier",
    "target_rank",
)
_WIDE = ("probabilities", "log_probabilities")
_TOP_K = ("top_k_labels", "top_k_probabilities")


def softmax_rows(device: Device, logits: Array, out: Array, temperature: float) -> None:
    """Fill `out`, of any float dtype, with probabilities."""
    if logits.size:
        kernel = row_kernel(logits.shape[1], logits.dtype, out.dtype, Work(0))
        _launch_columns(device, kernel, logits, None, {"probabilities": out}, temperature)


def decision_rows(
    device: Device, logits: Array, targets: Array | None, out: Mapping[str, Array], temperature: float
) -> None:
    """Fill each array of `out` by its column's name. A target outside of the classes counts as none."""
    if logits.size == 0:
        return
    floats = _floats(logits.dtype)
    columns = {name: array for name, array in out.items() if name not in _TOP_K}
    ranked = len(columns) < len(out)
    if ranked and "confidence" not in columns:
        columns["confidence"] = device.empty(logits.shape[:1], floats)
    wide = next((columns[name].dtype for name in _WIDE if name in columns), None)
    kernel = row_kernel(logits.shape[1], logits.dtype, wide, _work(columns))
    _launch_columns(device, kernel, logits, targets, columns, temperature)
    if ranked:
        _top_k(device, logits, columns["confidence"], out, temperature)


def jacobian_rows(
    device: Device, logits: Array, out: Array, temperature: float, first: int = 0, second: int = 0
) -> None:
    """Fill `out`, (rows, height, breadth), C order, with entries first.., second.. of each row's Jacobian."""
    if out.size == 0:
        return
    rows, classes = logits.shape
    floats = _floats(logits.dtype)
    shares, winners, rests = (
        device.empty(shape, dtype)
        for shape, dtype in (((rows, classes), floats), ((rows,), np.dtype(np.int32)), ((rows,), floats))
    )
    kernel = share_kernel(classes, logits.dtype)
    root = _root(temperature, floats)
    arguments = (*_rows(logits), *_scale(temperature, floats), root, shares, winners, rests)
    device.launch(kernel, blocks_for(device, kernel, rows), arguments)
    part = (first, out.shape[1], second, out.shape[2])
    entries = matrix_kernel(floats)
    entries_a_block = BLOCK * 16 // floats.itemsize
    device.launch(
        entries,
        min(device.blocks(entries), -(-out.size // entries_a_block)),
        (shares, winners, rests, np.int64(rows), np.int32(classes), root, *map(np.int32, part), out),
    )


def product_rows(device: Device, kind: str, logits: Array, vectors: Array, out: Array, temperature: float) -> None:
    """Fill `out`, (rows, classes), C order, with a product: jvp, log_jvp or log_vjp."""
    if logits.size == 0:
        return
    kernel = product_kernel(logits.shape[1], logits.dtype, kind)
    floats = _floats(logits.dtype)
    base, stride, *sizes = _rows(logits)
    arguments = (base, stride, vectors, _stride(vectors), *sizes, *_scale(temperature, floats))
    blocks = blocks_for(device, kernel, logits.shape[0])
    device.launch(kernel, blocks, (*arguments, _root(temperature, floats), out))


def _launch_columns(
    device: Device, kernel: Kernel, logits: Array, targets: Array | None, out: Mapping[str, Array], temperature: float
) -> None:
    after = (*_temperature(temperature, _floats(logits.dtype)), targets, *(out.get(name) for name in _NARROW + _WIDE))
    launch_rows(device, kernel, logits.shape[0], _rows(logits), after)


def _top_k(device: Device, logits: Array, confidence: Array, out: Mapping[str, Array], temperature: float) -> None:
    rows, k = next(array.shape for name, array in out.items() if name in _TOP_K)
    floats = _floats(logits.dtype)
    labels, probabilities = (
        out[name] if name in out else device.empty((rows, k), dtype)
        for name, dtype in zip(_TOP_K, (np.dtype(np.int32), floats), strict=True)
    )
    kernel = top_k_kernel(logits.shape[1], logits.dtype)
    arguments = (*_rows(logits), np.int32(k), *_scale(temperature, floats), confidence, labels, probabilities)
    device.launch(kernel, blocks_for(device, kernel, rows), arguments)


def _work(columns: Mapping[str, Array]) -> Work:
    work = Work.DECIDE
    if "brier" in columns:
        return work | Work.ENTROPY | Work.RANK | Work.SQUARES
    if "target_rank" in columns:
        return work | Work.ENTROPY | Work.RANK  # seldom wanted: not worth a kernel without the entropy
    return work | Work.ENTROPY if "entropy" in columns else work


def _rows(logits: Array) -> tuple[Any, ...]:
    return (logits, _stride(logits), np.int64(logits.shape[0]), np.int32(logits.shape[1]))


def _stride(array: Array) -> np.int64:
    """Items from a row to the next."""
    return np.int64(array.strides[0] // array.itemsize if array.shape[0] > 1 else array.shape[1])


def _floats(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of the arithmetic."""
    return np.dtype(np.float64) if dtype == np.float64 else np.dtype(np.float32)


@lru_cache(maxsize=64)
def _scale(temperature: float, floats: np.dtype[Any]) -> tuple[Any, ...]:
    a, lost = log2e_over(temperature, floats.type)
    return (a, lost, floats.type(1 / float(a)))


@lru_cache(maxsize=64)
def _temperature(temperature: float, floats: np.dtype[Any]) -> tuple[Any, ...]:
    return (*_scale(temperature, floats), *one_over(temperature, np.float64), *one_over(temperature, floats.type))


def _root(temperature: float, floats: np.dtype[Any]) -> Any:
    """The square root of 1 / temperature, in the kernel's arithmetic."""
    return floats.type(math.sqrt(1 / temperature))
