"""Jacobians of one array in memory, and their products with vectors: checks, allocation, slabs.

As in `blocks`, rows go to the kernels in slabs, so neither logits nor vectors are copied whole for their dtype.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from softmax_dask.dispatch import Backend, backend_of
from softmax_dask.errors import OutputBufferError
from softmax_dask.sizes import kernel_dtype, result_dtype, rows_in
from softmax_dask.slabs import flatten, is_aligned, is_writeable, readable, slabs

Array = Any
"""A NumPy or CuPy array."""


def jacobian(
    x: Array,
    *,
    axis: int,
    temperature: float,
    dtype: Any = None,
    first: range | None = None,
    second: range | None = None,
    out: Array | None = None,
) -> Array:
    """The Jacobians, with two axes in place of `axis`; `first` and `second` are the classes wanted along them."""
    backend = backend_of(x)
    moved = backend.arrays.moveaxis(x, axis, -1)
    classes = moved.shape[-1]
    first, second = first or range(classes), second or range(classes)
    shape = (*moved.shape[:-1], len(first), len(second))
    wanted = result_dtype(x.dtype, dtype)
    result = backend.arrays.empty(shape, wanted) if out is None else _require_out(backend, out, shape, wanted, axis, x)
    rows = moved.reshape(-1, classes)
    _fill(backend, rows, result.reshape(-1, *shape[-2:]), temperature, first.start, second.start)
    return backend.arrays.moveaxis(result, (-2, -1), (axis, axis + 1))


def product(x: Array, vector: Array, *, kind: str, axis: int, temperature: float) -> Array:
    """The Jacobians times vectors of the shape of `x`; `kind` is a kernel's name: jvp, log_jvp or log_vjp."""
    backend = backend_of(x)
    floats = np.result_type(result_dtype(x.dtype), result_dtype(vector.dtype))
    dtype = kernel_dtype(x.dtype, dtype=floats, temperature=temperature)
    native = np.dtype(np.float64) if dtype == np.float64 else np.dtype(np.float32)
    moved, vectors = (backend.arrays.moveaxis(array, axis, -1) for array in (x, backend.arrays.asarray(vector)))
    result = backend.arrays.empty(moved.shape, native)
    run: Callable[..., None] = getattr(backend.kernels, f"{kind}_rows")
    for index in slabs(moved.shape, backend.slab_bytes):
        logits, part, out = (flatten(array[index], None) for array in (moved, vectors, result))
        run(readable(backend, logits, dtype), readable(backend, part, native), out, temperature)
    return backend.arrays.moveaxis(result.astype(floats, copy=False), -1, axis)


def _require_out(
    backend: Backend, out: Array, shape: tuple[int, ...], dtype: np.dtype[Any], axis: int, x: Array
) -> Array:
    """The caller's own array with the axes of classes last, once it is checked."""
    if not isinstance(out, backend.arrays.ndarray):
        raise OutputBufferError(f"out is a {type(out).__name__}; expected an array like the logits.")
    if backend.arrays.may_share_memory(out, x):
        raise OutputBufferError("out overlaps the logits; expected memory of its own.")
    last = backend.arrays.moveaxis(out, (axis, axis + 1), (-2, -1)) if out.ndim == len(shape) else out
    if last.shape != shape or last.dtype != dtype or not last.flags.c_contiguous or not is_writeable(last.flags):
        raise OutputBufferError(
            f"out is {out.dtype} {out.shape}; expected {dtype} {shape} with the axes of classes last, in C order and "
            "writable."
        )
    return last


def _fill(backend: Backend, rows: Array, out: Array, temperature: float, first: int, second: int) -> None:
    dtype = kernel_dtype(rows.dtype, dtype=out.dtype, temperature=temperature)
    native = np.dtype(np.float64) if dtype == np.float64 else np.dtype(np.float32)
    # A kernel that is given all results of an array can tell that they are too large for the caches.
    as_they_lie = rows.dtype == dtype and rows.flags.c_contiguous and is_aligned(rows.flags) and out.dtype == native
    for row, line in _slabs(out.shape, sys.maxsize if as_they_lie else backend.slab_bytes):
        slab, part = readable(backend, rows[row], dtype), out[row, line]
        written = part if part.dtype == native else backend.arrays.empty(part.shape, native)
        backend.kernels.jacobian_rows(slab, written, temperature, first + line.start, second)
        if written is not part:
            with np.errstate(all="ignore"):  # small entries underflow in float16
                part[...] = written


def _slabs(shape: tuple[int, int, int], slab_bytes: int) -> Iterator[tuple[slice, slice]]:
    """Slices of rows of logits and of lines of their matrices: whole matrices, or lines of one that is large."""
    rows, height, breadth = shape
    line_bytes = breadth * np.dtype(np.float32).itemsize
    step, lines = rows_in(slab_bytes, height * line_bytes), min(height, rows_in(slab_bytes, line_bytes))
    for row in range(0, rows, step):
        for line in range(0, height, lines):
            yield slice(row, min(row + step, rows)), slice(line, min(line + lines, height))
