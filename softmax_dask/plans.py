"""What a call is about, apart from the values: worked out once, and kept for the calls that follow.

A loop that decides a few rows a call would else spend its time on the same questions about dtypes and options. There
is no shorter way beside this one: a plan is made by the same functions, with the same errors, and looked up after.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, wraps
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from softmax_dask.columns import Column, Need, require_columns
from softmax_dask.options import require_axis, require_temperature
from softmax_dask.sizes import column_dtype, kernel_dtype, result_dtype
from softmax_dask.tails import TAIL_COLUMNS

ResultT = TypeVar("ResultT")

_KEPT = 256


@dataclass(frozen=True, slots=True)
class Plan:
    """Of logits of one dtype and number of axes."""

    columns: tuple[Column, ...]
    names: tuple[str, ...]
    known: frozenset[str]
    """The names, to look one up."""
    axis: int
    """That of the classes, counted from the front."""
    is_last: bool
    """Whether that is the last one."""
    temperature: float
    wide: Any
    """The dtype that was asked for, of columns with one value a class."""
    dtypes: Mapping[str, np.dtype[Any]]
    """Of the results."""
    logits: np.dtype[Any]
    """The dtype in which kernels read logits,"""
    floats: np.dtype[Any]
    """and that of their arithmetic."""
    is_native: bool
    """Whether kernels read these logits and write these columns, and no others, as they are."""


def remembered(function: Callable[..., ResultT]) -> Callable[..., ResultT]:
    """`function`, whose results are kept for equal arguments of the same types, where these can be hashed."""
    look_up = lru_cache(maxsize=_KEPT, typed=True)(function)  # typed: True is no temperature

    @wraps(function)
    def call(*arguments: Any) -> ResultT:
        try:
            return look_up(*arguments)
        except TypeError:
            pass  # a list or the like; or the function's own error, which it says again
        return function(*arguments)

    return call


@remembered
def plan_of(
    logits: Any, ndim: int, columns: Any, axis: Any, temperature: Any, with_targets: bool, top_k: Any, dtype: Any
) -> Plan:
    """The plan for logits of this dtype; `top_k` is 0 where it is not given.

    Raises
    ------
    ColumnError, TemperatureError, DtypeError, ClassAxisError
        As for `softmax_dask.decisions`.
    """
    given: dict[Need, bool] = {"targets": with_targets, "top_k": top_k != 0}
    chosen = require_columns(columns, available=frozenset(need for need, there in given.items() if there))
    require_temperature(temperature)
    kernel_dtype(logits)
    result_dtype(logits, dtype)
    position = require_axis(axis, ndim)
    dtypes = {column.name: column_dtype(column, logits, dtype) for column in chosen}
    wanted = np.float64 if np.dtype(np.float64) in dtypes.values() else None
    read = kernel_dtype(logits, dtype=wanted, temperature=temperature)
    floats = np.dtype(np.float64) if read == np.float64 else np.dtype(np.float32)
    return Plan(
        columns=chosen,
        names=tuple(dtypes),
        known=frozenset(dtypes),
        axis=position,
        is_last=position == ndim - 1,
        temperature=float(temperature),
        wide=dtype,
        dtypes=MappingProxyType(dtypes),
        logits=read,
        floats=floats,
        is_native=read == logits and all(_is_written(column, dtypes[column.name], floats) for column in chosen),
    )


def _is_written(column: Column, dtype: np.dtype[Any], floats: np.dtype[Any]) -> bool:
    """Whether kernels fill a column of this dtype themselves: `correct` and those of the tail may be made of others."""
    derived = column.name == "correct" or column.name in TAIL_COLUMNS
    return not derived and (dtype == floats or column.kind not in ("float", "wide"))
