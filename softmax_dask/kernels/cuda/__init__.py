"""Row kernels on NVIDIA GPUs, in CUDA C++ that is compiled when it is needed.

The `.cuh` files are one text that includes nothing, so NVRTC compiles it without a CUDA toolkit and the tests run it
on the CPU. Here are the names that every backend has; `rows` turns them into launches, `variants` chooses the kernel.
Loads CuPy with the first rows, not with the module.
"""

from collections.abc import Collection, Mapping
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from softmax_dask.kernels.cuda import rows
from softmax_dask.kernels.cuda.launch import Array, Device
from softmax_dask.kernels.cuda.variants import DTYPES
from softmax_dask.kernels.masking import without

ARITHMETIC = 3
"""Version of the arithmetic: raised by hand with any change that may change a bit of a result."""

NAME = f"cuda-v{ARITHMETIC}"
"""Kernels of one name give the same bits on all GPUs of one kind: sums of float32 logits, and all of 16-bit ones, take
the exponential of the GPU's own unit, which another kind may round otherwise."""


@cache
def device() -> Device:
    """What runs the kernels."""
    found: Device = import_module("softmax_dask.kernels.cuda.cupy_device").CupyDevice()
    return found


def takes_planes(columns: Collection[str], classes: int) -> bool:
    """Never: rows are read from (rows, classes)."""
    return False


def writes_wide(dtype: np.dtype[Any], floats: np.dtype[Any]) -> bool:
    """Whether probabilities may be written as `dtype` where the arithmetic is that of `floats`."""
    return dtype in DTYPES and (dtype == np.float64) == (floats == np.float64)


def softmax_rows(logits: Array, out: Array, temperature: float) -> None:
    """Fill `out`, of the shape of the logits, with probabilities."""
    rows.softmax_rows(device(), logits, out, temperature)


def decision_rows(logits: Array, targets: Array | None, out: Mapping[str, Array], temperature: float) -> None:
    """Fill each array of `out` by its column's name; `targets` is (rows,), -1 where unlabelled."""
    rows.decision_rows(device(), logits, targets, out, temperature)


def fills_tails(classes: int, k: int) -> bool:
    """Never: `tail_rows` is a run of its own."""
    return False


def tail_rows(logits: Array, labels: Array, out: Mapping[str, Array], temperature: float) -> None:
    """As `decision_rows`, of the rows without the classes of `labels`, (rows, k)."""
    arrays = np if isinstance(logits, np.ndarray) else import_module("cupy")
    decision_rows(without(arrays, logits, labels), None, out, temperature)


def jacobian_rows(logits: Array, out: Array, temperature: float, first: int = 0, second: int = 0) -> None:
    """Fill `out`, (rows, height, breadth), C order, with entries first.., second.. of each row's Jacobian."""
    rows.jacobian_rows(device(), logits, out, temperature, first, second)


def jvp_rows(logits: Array, vectors: Array, out: Array, temperature: float) -> None:
    """Fill `out`, (rows, classes), C order, with s * (v - <s, v>) / T of each row; `vectors` has the dtype of `out`."""
    rows.product_rows(device(), "jvp", logits, vectors, out, temperature)


def log_jvp_rows(logits: Array, vectors: Array, out: Array, temperature: float) -> None:
    """As `jvp_rows`, with (v - <s, v>) / T."""
    rows.product_rows(device(), "log_jvp", logits, vectors, out, temperature)


def log_vjp_rows(logits: Array, vectors: Array, out: Array, temperature: float) -> None:
    """As `jvp_rows`, with (g - s * sum(g)) / T."""
    rows.product_rows(device(), "log_vjp", logits, vectors, out, temperature)
