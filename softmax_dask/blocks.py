"""Columns of one array in memory: checks, allocation, slabs.

Rows go to the kernels in slabs. A slab is a view where the kernel can read it as it lies
(its own dtype, classes side by side), else a small copy, so that no input is ever copied whole
for its byte order or its dtype. (One whose class axis lies inside is copied whole, by `reshape`.)
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from softmax_dask.columns import COLUMNS, Column
from softmax_dask.dispatch import Backend, backend_of
from softmax_dask.errors import ClassAxisError, OutputBufferError, TargetError
from softmax_dask.sizes import BLOCK_BYTES, column_dtype, kernel_dtype, rows_in

Array = Any
"""A NumPy or CuPy array."""


def decisions(
    x: Array,
    columns: tuple[str, ...],
    *,
    axis: int,
    temperature: float,
    targets: Array | None = None,
    dtype: Any = None,
    top_k: int = 0,
    out: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """The columns, each of the shape of `x`, of it without `axis`, or with `top_k` there; in one read of `x`."""
    backend = backend_of(x)
    moved = backend.arrays.moveaxis(x, axis, -1)
    chosen = [COLUMNS[name] for name in columns]
    _require_known(out, columns)
    results = {c.name: _result(backend, c, moved, dtype, top_k, (out or {}).get(c.name), axis) for c in chosen}
    rows = moved.reshape(-1, moved.shape[-1])
    truth = None if targets is None else require_targets(backend, targets, moved.shape[:-1], rows.shape[1])
    _fill(backend, rows, truth, {c.name: _as_rows(results[c.name], c) for c in chosen}, temperature)
    return {c.name: _with_axis_back(backend, results[c.name], c, axis)[()] for c in chosen}


def _require_known(out: Mapping[str, Array] | None, columns: tuple[str, ...]) -> None:
    if out is not None and len({id(array) for array in out.values()}) < len(out):
        raise OutputBufferError("out has one array for two columns; expected one for each.")
    unknown = sorted(set(out or ()) - set(columns))
    if unknown:
        raise OutputBufferError(f"out has {', '.join(unknown)}; expected only the columns {', '.join(columns)}.")


def require_axis(axis: Any, ndim: int) -> int:
    """`axis` counted from the front.

    Raises
    ------
    ClassAxisError
        There is no such axis.
    """
    if ndim == 0:
        raise ClassAxisError("logits are a single number; expected an array with an axis of classes.")
    if not isinstance(axis, int | np.integer) or not -ndim <= axis < ndim:
        raise ClassAxisError(
            f"axis is {axis!r}; expected {-ndim} to {ndim - 1}, or of an xarray.DataArray the name of a dimension."
        )
    return int(axis) % ndim


def require_targets(backend: Backend, targets: Array, shape: tuple[int, ...], classes: int) -> Array:
    """`targets` as int64, (rows,).

    Raises
    ------
    TargetError
        Not integers, another shape, or values outside -1..classes-1.
    """
    if isinstance(targets, np.ma.MaskedArray):
        raise TargetError("targets are a masked array; expected a plain one. Call targets.filled(-1) first.")
    truth = backend.arrays.asarray(targets)
    if truth.size == 0:  # an empty list has a dtype of its own
        truth = truth.astype(np.int64)
    if truth.dtype.kind not in "iu":
        raise TargetError(f"targets have dtype {truth.dtype}; expected class numbers, integers, -1 where unlabelled.")
    if truth.shape != shape:
        raise TargetError(f"targets have shape {truth.shape}; expected {shape}, one target a row.")
    if truth.size and (truth.min() < -1 or truth.max() >= classes):
        bad = int(backend.arrays.argmax((truth.reshape(-1) < -1) | (truth.reshape(-1) >= classes)))
        raise TargetError(
            f"targets hold {truth.reshape(-1)[bad]} at row {bad}; expected 0 to {classes - 1}, or -1 where unlabelled."
        )
    return backend.arrays.ascontiguousarray(truth.reshape(-1), dtype=np.int64)


def _result(
    backend: Backend, column: Column, moved: Array, dtype: Any, top_k: int, given: Array | None, axis: int
) -> Array:
    """An array for a column, the class axis last: a new one, or the caller's own once it is checked."""
    shape = (*moved.shape[:-1], *column.tail(moved.shape[-1], top_k))
    wanted = column_dtype(column, moved.dtype, dtype)
    if given is None:
        return backend.arrays.empty(shape, wanted)
    if not isinstance(given, backend.arrays.ndarray):
        raise OutputBufferError(f"out[{column.name!r}] is a {type(given).__name__}; expected an array like the logits.")
    if backend.arrays.may_share_memory(given, moved):
        raise OutputBufferError(f"out[{column.name!r}] overlaps the logits; expected memory of its own.")
    last = given if column.per == "row" else backend.arrays.moveaxis(given, axis, -1)
    if last.shape != shape or last.dtype != wanted or not last.flags.c_contiguous or not last.flags.writeable:
        raise OutputBufferError(
            f"out[{column.name!r}] is {given.dtype} {given.shape}; expected {wanted} {shape} with the class axis last, "
            "in C order and writable."
        )
    return last


def _as_rows(result: Array, column: Column) -> Array:
    # Results are in C order, so this is a view.
    return result.reshape(-1) if column.per == "row" else result.reshape(-1, result.shape[-1])


def _with_axis_back(backend: Backend, result: Array, column: Column, axis: int) -> Array:
    return result if column.per == "row" else backend.arrays.moveaxis(result, -1, axis)


def _fill(backend: Backend, rows: Array, truth: Array | None, out: Mapping[str, Array], temperature: float) -> None:
    float64_wanted = any(array.dtype == np.float64 for array in out.values())
    dtype = kernel_dtype(rows.dtype, dtype=np.float64 if float64_wanted else None, temperature=temperature)
    floats = np.dtype(np.float64) if dtype == np.float64 else np.dtype(np.float32)
    for start, stop in _slabs(*rows.shape):
        slab = readable(backend, rows[start:stop], dtype)
        part = {name: array[start:stop] for name, array in out.items()}
        _fill_slab(backend, slab, None if truth is None else truth[start:stop], part, floats, temperature)


def _fill_slab(
    backend: Backend,
    slab: Array,
    truth: Array | None,
    out: dict[str, Array],
    floats: np.dtype[Any],
    temperature: float,
) -> None:
    """Run the kernels; results that they do not write in this dtype go through an array of theirs."""
    native = {name: _native(backend, name, array, floats) for name, array in out.items()}
    correct = native.pop("correct", None)
    if correct is not None and "target_rank" not in native:
        native["target_rank"] = backend.arrays.empty(slab.shape[0], np.int32)
    if set(native) == {"probabilities"}:
        backend.kernels.softmax_rows(slab, native["probabilities"], temperature)
    else:
        backend.kernels.decision_rows(slab, truth, native, temperature)
    if correct is not None:
        rank = native["target_rank"]
        correct[...] = backend.arrays.where(rank < 0, -1, rank == 0)
    for name, array in out.items():
        if name != "correct" and native[name] is not array:
            with np.errstate(all="ignore"):  # small probabilities underflow, a log-probability may be -inf in float16
                array[...] = native[name]


def _native(backend: Backend, name: str, array: Array, floats: np.dtype[Any]) -> Array:
    wanted = floats if COLUMNS[name].kind in ("float", "wide") else array.dtype
    return array if array.dtype == wanted else backend.arrays.empty(array.shape, wanted)


def readable(backend: Backend, slab: Array, dtype: np.dtype[Any]) -> Array:
    """The slab as kernels read it: itself, or a copy of the right dtype in C order."""
    item = dtype.itemsize
    as_it_lies = (
        slab.dtype == dtype
        and slab.flags.aligned
        and (slab.shape[1] == 1 or slab.strides[1] == item)
        and slab.strides[0] >= 0
        and slab.strides[0] % item == 0
    )
    return slab if as_it_lies else backend.arrays.ascontiguousarray(slab, dtype=dtype)


def _slabs(rows: int, classes: int) -> Iterator[tuple[int, int]]:
    step = rows_in(BLOCK_BYTES, classes * np.dtype(np.float32).itemsize)
    for start in range(0, rows, step):
        yield start, min(start + step, rows)
