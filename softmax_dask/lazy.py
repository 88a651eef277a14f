"""Columns of a Dask array: each block goes to `blocks` through `map_blocks`.

`map_blocks` always gets `dtype` and `meta`. Without them Dask would call a kernel on an empty block
while it builds the graph.
"""

from collections.abc import Mapping
from typing import Any

import dask.array as da
import numpy as np
from dask.array.utils import meta_from_array

from softmax_dask import blocks
from softmax_dask.columns import Column
from softmax_dask.dispatch import is_on_device
from softmax_dask.errors import OutputBufferError, TargetError
from softmax_dask.plans import Plan
from softmax_dask.sizes import column_dtype

Array = Any
"""A dask.array.Array."""


def decide(
    x: Array, plan: Plan, *, targets: Any = None, top_k: int = 0, out: Mapping[str, Any] | None = None
) -> dict[str, Array]:
    """The columns, lazily, in the chunks of `x`. However many there are, a block is one kernel call."""
    if out is not None:
        raise OutputBufferError("out is given for a Dask array; expected none. It is for logits in memory.")
    axis, dtype = plan.axis, plan.wide
    arrays = [x] if targets is None else [x, beside(x, axis, targets)]
    options = {
        "columns": plan.names,
        "axis": axis,
        "temperature": plan.temperature,
        "wide_dtype": dtype,
        "top_k": top_k,
    }
    if len(plan.columns) == 1:
        column = plan.columns[0]
        return {column.name: da.map_blocks(_block_column, *arrays, **options, **_shape(x, column, axis, dtype, top_k))}
    empty = np.empty((0,) * (x.ndim - 1), object)
    decided = da.map_blocks(_block_columns, *arrays, **options, drop_axis=axis, dtype=object, meta=empty)
    return {column.name: _pick(decided, x, column, axis, dtype, top_k) for column in plan.columns}


def _shape(x: Array, column: Column, axis: int, dtype: Any, top_k: int) -> dict[str, Any]:
    """What `map_blocks` must know of the result: dtype, meta and, where it is not that of `x`, the shape."""
    wanted = column_dtype(column, x.dtype, dtype)
    if column.per == "row":
        return {"drop_axis": axis, "dtype": wanted, "meta": meta_from_array(x._meta, ndim=x.ndim - 1, dtype=wanted)}
    tail = column.tail(x.shape[axis], top_k)
    chunks = (*x.chunks[:axis], tail, *x.chunks[axis + 1 :])
    return {"chunks": chunks, "dtype": wanted, "meta": meta_from_array(x._meta, dtype=wanted)}


def _pick(decided: Array, x: Array, column: Column, axis: int, dtype: Any, top_k: int) -> Array:
    """One column out of the dicts that `decided` has for blocks."""
    shape = _shape(x, column, axis, dtype, top_k)
    if shape.pop("drop_axis", None) is None:
        shape["new_axis"] = axis
    return da.map_blocks(_block_of, decided, column=column.name, **shape)


def beside(x: Array, axis: int, targets: Any) -> Array:
    """Targets in the row chunks of `x`, with a class axis of length 1: blocks are paired from the last axis on."""
    shape = x.shape[:axis] + x.shape[axis + 1 :]
    chunks = x.chunks[:axis] + x.chunks[axis + 1 :]
    given = targets if isinstance(targets, da.Array) or is_on_device(targets) else np.asarray(targets)
    if not np.array_equal(given.shape, shape, equal_nan=True):  # NaN: a filtered array, its length not known yet
        raise TargetError(f"targets have shape {given.shape}; expected {shape}, one target a row.")
    lazy = (
        given if isinstance(given, da.Array) else da.from_array(given, chunks=chunks, asarray=not is_on_device(given))
    )
    return lazy.rechunk(chunks)[(slice(None),) * axis + (None,)]


def _block_columns(
    logits: Any,
    targets: Any = None,
    *,
    columns: tuple[str, ...],
    axis: int,
    temperature: float,
    wide_dtype: Any,
    top_k: int,
) -> dict[str, Any]:
    truth = None if targets is None else targets.squeeze(axis)
    return blocks.decisions(
        logits, columns, axis=axis, temperature=temperature, targets=truth, dtype=wide_dtype, top_k=top_k
    )


def _block_column(logits: Any, targets: Any = None, *, columns: tuple[str, ...], **options: Any) -> Any:
    return _block_columns(logits, targets, columns=columns, **options)[columns[0]]


def _block_of(decided: dict[str, Any], *, column: str) -> Any:
    return decided[column]
