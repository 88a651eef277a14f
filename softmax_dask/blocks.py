"""Columns of one array in memory: checks, allocation, slabs.

Rows go to the kernels in slabs, or all at once where nothing need be copied. A slab is a view where the kernel
can read it as it lies (its own dtype, and either classes or rows next to each other), else a small copy, so that
no input is ever copied whole, whatever its byte order, its dtype and its strides.
"""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from softmax_dask.columns import COLUMNS, Column
from softmax_dask.dispatch import Backend, backend_of
from softmax_dask.errors import ClassAxisError, OutputBufferError, TargetError
from softmax_dask.sizes import column_dtype, kernel_dtype
from softmax_dask.slabs import (
    empty,
    flatten,
    group_axes,
    is_aligned,
    is_writeable,
    readable,
    rows_lie_together,
    slabs,
    unflatten,
    with_axis,
)
from softmax_dask.tails import TAIL_COLUMNS, fill_tails

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
    moved = with_axis(x, axis, -1)
    chosen = [COLUMNS[name] for name in columns]
    _require_known(out, columns)
    planes = (
        rows_lie_together(moved)
        and TAIL_COLUMNS.isdisjoint(columns)
        and backend.kernels.takes_planes(columns, moved.shape[-1])
    )
    results = {c.name: _result(backend, c, moved, dtype, top_k, (out or {}).get(c.name), axis, planes) for c in chosen}
    truth = None if targets is None else require_targets(backend, targets, moved.shape[:-1], moved.shape[-1])
    _fill(backend, moved, truth, results, temperature, top_k, planes=planes)
    return {c.name: _with_axis_back(results[c.name], c, axis)[()] for c in chosen}


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
    """`targets` as int64, in C order, where the backend's arrays are.

    Targets that are on a device already are not looked at, since that would wait for it: there, values outside count
    as no target.

    Raises
    ------
    TargetError
        Not integers, another shape, or values outside -1..classes-1.
    """
    if isinstance(targets, np.ma.MaskedArray):
        raise TargetError("targets are a masked array; expected a plain one. Call targets.filled(-1) first.")
    seen = backend.arrays is np or not isinstance(targets, backend.arrays.ndarray)
    truth = np.asarray(targets) if seen else targets
    if truth.size == 0:  # an empty list has a dtype of its own
        truth = truth.astype(np.int64)
    if truth.dtype.kind not in "iu":
        raise TargetError(f"targets have dtype {truth.dtype}; expected class numbers, integers, -1 where unlabelled.")
    if truth.shape != shape:
        raise TargetError(f"targets have shape {truth.shape}; expected {shape}, one target a row.")
    if seen and truth.size and (truth.min() < -1 or truth.max() >= classes):
        bad = int(np.argmax((truth.reshape(-1) < -1) | (truth.reshape(-1) >= classes)))
        raise TargetError(
            f"targets hold {truth.reshape(-1)[bad]} at row {bad}; expected 0 to {classes - 1}, or -1 where unlabelled."
        )
    return backend.arrays.ascontiguousarray(backend.arrays.asarray(truth, dtype=np.int64))


def _result(
    backend: Backend,
    column: Column,
    moved: Array,
    dtype: Any,
    top_k: int,
    given: Array | None,
    axis: int,
    planes: bool,
) -> Array:
    """An array for a column, the class axis last: a new one, or the caller's own once it is checked.

    Beside planes, an array of the shape of the logits is in C order with the class axis where they have it.
    """
    shape = (*moved.shape[:-1], *column.tail(moved.shape[-1], top_k))
    wanted = column_dtype(column, moved.dtype, dtype)
    if given is None and planes and column.per == "class":
        like_logits = (*shape[:axis], shape[-1], *shape[axis:-1])
        return with_axis(backend.arrays.empty(like_logits, wanted), axis, -1)
    if given is None:
        return backend.arrays.empty(shape, wanted)
    if not isinstance(given, backend.arrays.ndarray):
        raise OutputBufferError(f"out[{column.name!r}] is a {type(given).__name__}; expected an array like the logits.")
    if backend.arrays.may_share_memory(given, moved):
        raise OutputBufferError(f"out[{column.name!r}] overlaps the logits; expected memory of its own.")
    last = given if column.per == "row" or given.ndim != len(shape) else with_axis(given, axis, -1)
    in_order = last.flags.c_contiguous or given.flags.c_contiguous
    if last.shape != shape or last.dtype != wanted or not in_order or not is_writeable(last):
        raise OutputBufferError(
            f"out[{column.name!r}] is {given.dtype} {given.shape}; expected {wanted} {shape} with the class axis last, "
            "in C order and writable."
        )
    return last


def _with_axis_back(result: Array, column: Column, axis: int) -> Array:
    return result if column.per == "row" else with_axis(result, -1, axis)


def _fill(
    backend: Backend,
    moved: Array,
    truth: Array | None,
    results: Mapping[str, Array],
    temperature: float,
    top_k: int,
    *,
    planes: bool,
) -> None:
    """Fill the results, of the row axes of `moved`, whose last axis is that of the classes."""
    float64_wanted = any(array.dtype == np.float64 for array in results.values())
    dtype = kernel_dtype(moved.dtype, dtype=np.float64 if float64_wanted else None, temperature=temperature)
    floats = np.dtype(np.float64) if dtype == np.float64 else np.dtype(np.float32)
    if moved.size == 0:
        return
    as_it_lies = moved.nbytes > backend.slab_bytes and _is_taken_as_it_lies(moved, results, dtype, floats)
    for index in slabs(moved.shape, sys.maxsize if as_it_lies else backend.slab_bytes):
        slab = moved[index]
        groups = group_axes(slab) if planes else None
        part = {name: array[(*index, ...)] for name, array in results.items()}
        targets = None if truth is None else truth[index].reshape(-1)
        logits = readable(backend, flatten(slab, groups), dtype)
        _fill_slab(backend, logits, targets, part, floats, temperature, top_k, groups)


def _is_taken_as_it_lies(
    moved: Array, results: Mapping[str, Array], dtype: np.dtype[Any], floats: np.dtype[Any]
) -> bool:
    """Whether kernels need a copy of nothing, so that all rows are theirs at once.

    A kernel that is given all results of an array can tell that they are too large for the caches.
    """
    return (
        moved.dtype == dtype
        and moved.flags.c_contiguous
        and is_aligned(moved)
        and TAIL_COLUMNS.isdisjoint(results)  # made of other columns, and so is `correct`
        and "correct" not in results
        and all(
            array.flags.c_contiguous and (array.dtype == floats or COLUMNS[name].kind not in ("float", "wide"))
            for name, array in results.items()
        )
    )


def _fill_slab(
    backend: Backend,
    logits: Array,
    targets: Array | None,
    out: dict[str, Array],
    floats: np.dtype[Any],
    temperature: float,
    top_k: int,
    groups: int | None,
) -> None:
    """Run the kernels; results that they do not write as they are go through an array of theirs."""
    tails = {name: array for name, array in out.items() if name in TAIL_COLUMNS}
    apart = {} if backend.kernels.fills_tails(logits.shape[-1], top_k) else tails
    native = {name: _native(backend, name, out[name], floats, groups) for name in out if name not in apart}
    if tails and "top_k_labels" not in native:
        native["top_k_labels"] = backend.arrays.empty((logits.shape[0], top_k), np.int32)
    correct = native.pop("correct", None)
    if correct is not None and "target_rank" not in native:
        native["target_rank"] = backend.arrays.empty(correct.shape, np.int32)
    if native.keys() == {"probabilities"}:
        backend.kernels.softmax_rows(logits, native["probabilities"], temperature)
    else:
        backend.kernels.decision_rows(logits, targets, native, temperature)
    if correct is not None:
        rank = native["target_rank"]
        correct[...] = backend.arrays.where(rank < 0, -1, rank == 0)
    if apart:
        fill_tails(backend, logits, native["top_k_labels"], apart, floats, temperature)
    for name, array in out.items():
        if name in native and not backend.arrays.may_share_memory(native[name], array):
            found = native[name] if COLUMNS[name].per == "row" else unflatten(native[name], array.shape, groups)
            with np.errstate(all="ignore"):  # small probabilities underflow, a log-probability may be -inf in float16
                array[...] = found.reshape(array.shape)


def _native(backend: Backend, name: str, array: Array, floats: np.dtype[Any], groups: int | None) -> Array:
    """What kernels write: the array itself, flattened, where they can."""
    column = COLUMNS[name]
    as_it_is = column.kind == "wide" and backend.kernels.writes_wide(array.dtype, floats)
    wanted = floats if column.kind in ("float", "wide") and not as_it_is else array.dtype
    flat = array.reshape(-1) if column.per == "row" else flatten(array, groups)
    in_order = flat.flags.c_contiguous or (groups is not None and flat.strides[-2] == wanted.itemsize)
    if array.dtype == wanted and in_order and backend.arrays.may_share_memory(flat, array):
        return flat
    return empty(backend, flat.shape, wanted)
