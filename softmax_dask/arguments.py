"""What is wrong with an argument, whatever the values in the arrays are. Said once, before anything is computed."""

import math
from functools import cache
from typing import Any

import numpy as np

from softmax_dask.dispatch import is_foreign, require_backend
from softmax_dask.errors import (
    ClassAxisError,
    ColumnError,
    DtypeError,
    SplitClassAxisError,
    TargetError,
    UnsupportedArrayError,
)
from softmax_dask.notices import SingleClassWarning, TopKWarning, warn_caller
from softmax_dask.options import require_axis, require_temperature
from softmax_dask.sizes import kernel_dtype, result_dtype


def as_array(x: Any) -> Any:
    """`x` itself if it is an array, else (lists, numbers) as float64."""
    if type(x) is np.ndarray:
        return x
    if isinstance(x, np.ma.MaskedArray) or isinstance(getattr(x, "_meta", None), np.ma.MaskedArray):
        raise UnsupportedArrayError(
            "logits are a masked array, whose mask would be lost; expected a plain one. "
            "Call logits.filled(-numpy.inf) first."
        )
    if is_dask(x):
        require_backend(x._meta, dask=True)
        return x
    if is_foreign(x) or (hasattr(x, "dtype") and hasattr(x, "shape") and not isinstance(x, np.generic)):
        require_backend(x)
        return x
    try:
        return np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DtypeError(
            f"logits are a {type(x).__name__}, {x!r:.80}; expected an array, or nested lists of numbers. "
            "Make an array of them first, rows of equal length."
        ) from error


def check(x: Any, axis: int | str, temperature: float, dtype: Any, *, warn: bool) -> int:
    """What is wrong whatever the values are; the class axis counted from the front."""
    require_temperature(temperature)
    kernel_dtype(x.dtype)
    result_dtype(x.dtype, dtype)
    position = require_axis(axis, x.ndim)
    require_classes(x, position, axis, warn=warn)
    return position


def require_classes(x: Any, position: int, axis: int | str, *, warn: bool) -> None:
    """Refuse no classes, an unknown number of them, and chunks of them; `axis` is how the caller calls their axis."""
    if x.shape[position] > 1 and not is_dask(x):  # nothing of what follows
        return
    if math.isnan(x.shape[position]):
        raise ClassAxisError(
            f"logits have an unknown number of classes along axis {axis}. Call logits.compute_chunk_sizes() first."
        )
    if x.shape[position] == 0:
        raise ClassAxisError(f"logits of shape {x.shape} have no classes along axis {axis}; expected at least one.")
    if x.shape[position] == 1 and warn:  # who brings buffers of that shape knows, and may call for every block
        warn_caller("logits have one class, so every probability is 1. Did you mean a sigmoid?", SingleClassWarning)
    if is_dask(x) and x.numblocks[position] > 1:
        sizes = x.chunks[position]
        raise SplitClassAxisError(
            f"logits has class chunks {sizes}; expected one chunk of {sum(sizes)} classes. "
            f"Call logits.rechunk({{{axis}: -1}}) first."
        )


def counted_top_k(top_k: Any) -> int:
    """`top_k` as a number of classes; refused if it is none."""
    if isinstance(top_k, bool) or not isinstance(top_k, int | np.integer) or top_k < 1:
        raise ColumnError(f"top_k is {top_k!r}; expected a number of classes, 1 or more.")
    return int(top_k)


def clipped_top_k(top_k: Any, classes: int) -> int:
    """`top_k`, or as many classes as there are, with a warning; 0 stays 0: not asked for."""
    if top_k == 0:
        return 0
    if counted_top_k(top_k) > classes:
        warn_caller(f"top_k is {top_k}, but there are {classes} classes; all are given.", TopKWarning)
    return min(int(top_k), classes)


def is_dask(x: Any) -> bool:
    """Whether `x` is a Dask array, found out without importing Dask."""
    return _is_of_dask(x.__class__)


def is_xarray(x: Any) -> bool:
    """Whether `x` is an xarray.DataArray, found out without importing xarray."""
    return _is_of_xarray(x.__class__)


@cache
def _is_of_dask(kind: type) -> bool:
    return kind.__module__.startswith("dask.array")


@cache
def _is_of_xarray(kind: type) -> bool:
    return kind.__module__.startswith("xarray.") and kind.__name__ == "DataArray"


def class_dimension(x: Any, axis: int | str) -> Any:
    """The name of the dimension of classes of an xarray.DataArray."""
    dimension = axis if isinstance(axis, str) else x.dims[require_axis(axis, x.ndim)]
    if dimension not in x.dims:
        raise ClassAxisError(f"axis is {axis!r}; expected one of the dimensions {', '.join(map(str, x.dims))}.")
    return dimension


def aligned_targets(targets: Any, x: Any, dimension: Any) -> Any:
    """The targets' data in the order of the rows of `x`, by names of dimensions and not by position."""
    rows = [name for name in x.dims if name != dimension]
    if set(targets.dims) != set(rows):
        raise TargetError(f"targets have dimensions {targets.dims}; expected {tuple(rows)}, those of the rows.")
    for name in set(rows) & set(targets.indexes) & set(x.indexes):
        if not targets.indexes[name].equals(x.indexes[name]):
            raise TargetError(f"targets have other coordinates along {name!r} than the logits. Align them first.")
    return targets.transpose(*rows).data
