"""Columns of one array in memory: checks, allocation, slabs.

Rows go to the kernels in slabs, or all at once where nothing need be copied. A slab is a view where the kernel
can read it as it lies (its own dtype, and either classes or rows next to each other), else a small copy, so that
no input is ever copied whole, whatever its byte order, its dtype and its strides.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from softmax_dask.columns import COLUMNS, Column
from softmax_dask.dispatch import Backend, backend_of
from softmax_dask.errors import OutputBufferError, TargetError
from softmax_dask.plans import Plan, plan_of
from softmax_dask.slabs import (
    empty,
    flatten,
    group_axes,
    is_aligned,
    is_writeable,
    may_overlap,
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
    plan = plan_of(x.dtype, x.ndim, columns, axis, temperature, targets is not None, top_k, dtype)
    return decide(x, plan, targets=targets, top_k=top_k, out=out)


def decide(
    x: Array, plan: Plan, *, targets: Array | None = None, top_k: int = 0, out: Mapping[str, Array] | None = None
) -> dict[str, Array]:
    """As `decisions`, of what was planned; `top_k` is at most the number of classes."""
    backend = backend_of(x)
    moved = x if plan.is_last else with_axis(x, plan.axis, -1)
    flags = moved.flags
    planes = not flags.c_contiguous and _are_planes(backend, moved, plan)
    if out:
        _require_known(out, plan)
    results, rows = {}, moved.shape[:-1]
    for column in plan.columns:
        shape = rows + column.tail(moved.shape[-1], top_k)
        given = out.get(column.name) if out else None
        if given is None:
            results[column.name] = _new(backend, column, shape, plan, planes)
        else:
            results[column.name] = _given(backend, column, shape, plan, moved, given)
    truth = None if targets is None else require_targets(backend, targets, moved.shape[:-1], moved.shape[-1])
    if not moved.size:
        pass
    elif flags.c_contiguous and plan.is_native and is_aligned(flags) and (plan.is_last or _lie_in_order(results)):
        # Nothing need be copied, so all rows are the kernel's at once: it can tell that results are too large for
        # the caches.
        logits, flat = (moved, results) if moved.ndim == 2 else _flattened(moved, results)
        _run(backend, logits, truth, flat, plan.temperature)
    else:
        _fill(backend, moved, truth, results, plan, top_k, planes=planes)
    if plan.is_last and moved.ndim > 1:
        return results
    return {column.name: _with_axis_back(results[column.name], column, plan.axis)[()] for column in plan.columns}


def _are_planes(backend: Backend, moved: Array, plan: Plan) -> bool:
    """Whether kernels are given planes."""
    return (
        rows_lie_together(moved)
        and TAIL_COLUMNS.isdisjoint(plan.names)
        and backend.kernels.takes_planes(plan.names, moved.shape[-1])
    )


def _require_known(out: Mapping[str, Array], plan: Plan) -> None:
    if len(out) > 1 and len(set(map(id, out.values()))) < len(out):
        raise OutputBufferError("out has one array for two columns; expected one for each.")
    if not plan.known.issuperset(out):
        unknown = ", ".join(sorted(out.keys() - plan.dtypes.keys()))
        raise OutputBufferError(f"out has {unknown}; expected only the columns {', '.join(plan.names)}.")


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


def _new(backend: Backend, column: Column, shape: tuple[int, ...], plan: Plan, planes: bool) -> Array:
    """An array for a column, the class axis last. Beside planes one of a value a class lies in memory as they do."""
    wanted = plan.dtypes[column.name]
    if planes and column.per == "class":
        like_logits = (*shape[: plan.axis], shape[-1], *shape[plan.axis : -1])
        return with_axis(backend.arrays.empty(like_logits, wanted), plan.axis, -1)
    return backend.arrays.empty(shape, wanted)


def _given(backend: Backend, column: Column, shape: tuple[int, ...], plan: Plan, moved: Array, given: Array) -> Array:
    """The caller's own array for a column, the class axis last, once it is checked."""
    if not isinstance(given, backend.arrays.ndarray):
        raise OutputBufferError(f"out[{column.name!r}] is a {type(given).__name__}; expected an array like the logits.")
    flags, wanted = given.flags, plan.dtypes[column.name]
    if may_overlap(backend, given, moved):
        raise OutputBufferError(f"out[{column.name!r}] overlaps the logits; expected memory of its own.")
    last, in_order = given, flags.c_contiguous
    if not plan.is_last and column.per != "row" and given.ndim == len(shape):
        last = with_axis(given, plan.axis, -1)
        in_order = in_order or last.flags.c_contiguous
    if not in_order or last.shape != shape or last.dtype != wanted or not is_writeable(flags):
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
    results: dict[str, Array],
    plan: Plan,
    top_k: int,
    *,
    planes: bool,
) -> None:
    """Fill the results, of the row axes of `moved`, whose last axis is that of the classes, slab by slab."""
    for index in slabs(moved.shape, backend.slab_bytes):
        slab = moved[index]
        groups = group_axes(slab) if planes else None
        part = {name: array[(*index, ...)] for name, array in results.items()}
        targets = None if truth is None else truth[index]
        logits = readable(backend, flatten(slab, groups), plan.logits)
        _fill_slab(backend, logits, targets, part, plan, top_k, groups)


def _lie_in_order(results: Mapping[str, Array]) -> bool:
    """Whether all items of each array follow each other in memory; those that have the class axis last do."""
    return all(array.flags.c_contiguous for array in results.values())


def _flattened(moved: Array, results: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
    """Views, with one axis of rows."""
    return flatten(moved, None), {name: _flat(name, array) for name, array in results.items()}


def _run(backend: Backend, logits: Array, truth: Array | None, out: Mapping[str, Array], temperature: float) -> None:
    """Fill arrays that kernels write as they are."""
    if len(out) == 1 and "probabilities" in out:
        backend.kernels.softmax_rows(logits, out["probabilities"], temperature)
    else:
        targets = None if truth is None else truth.reshape(-1)
        backend.kernels.decision_rows(logits, targets, out, temperature)


def _fill_slab(
    backend: Backend,
    logits: Array,
    targets: Array | None,
    out: dict[str, Array],
    plan: Plan,
    top_k: int,
    groups: int | None,
) -> None:
    """Run the kernels; results that they do not write as they are go through an array of theirs."""
    tails = {name: array for name, array in out.items() if name in TAIL_COLUMNS}
    apart = {} if backend.kernels.fills_tails(logits.shape[-1], top_k) else tails
    native = {name: _native(backend, name, out[name], plan.floats, groups) for name in out if name not in apart}
    if tails and "top_k_labels" not in native:
        native["top_k_labels"] = backend.arrays.empty((logits.shape[0], top_k), np.int32)
    correct = native.pop("correct", None)
    if correct is not None and "target_rank" not in native:
        native["target_rank"] = backend.arrays.empty(correct.shape, np.int32)
    _run(backend, logits, targets, native, plan.temperature)
    if correct is not None:
        rank = native["target_rank"]
        correct[...] = backend.arrays.where(rank < 0, -1, rank == 0)
    if apart:
        fill_tails(backend, logits, native["top_k_labels"], apart, plan.floats, plan.temperature)
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
    flat = _flat(name, array, groups)
    in_order = flat.flags.c_contiguous or (groups is not None and flat.strides[-2] == wanted.itemsize)
    if array.dtype == wanted and in_order and backend.arrays.may_share_memory(flat, array):
        return flat
    return empty(backend, flat.shape, wanted)


def _flat(name: str, array: Array, groups: int | None = None) -> Array:
    """A column of flattened rows; a view where it can be one."""
    return array.reshape(-1) if COLUMNS[name].per == "row" else flatten(array, groups)
