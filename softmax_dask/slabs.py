"""Slabs of an array in memory: pieces small enough to be copied, and the two layouts in which kernels read them.

The class axis is the last one, of a view; in memory it may lie anywhere. Where classes lie next to each other a
slab is flattened to (rows, classes). Where rows do, as in (N, C, H, W), it is flattened to planes, (groups, rows,
classes): the axes whose strides are longer than that of the classes are the groups, the others the rows.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from softmax_dask.dispatch import Backend
from softmax_dask.sizes import rows_in

Array = Any
"""A NumPy or CuPy array."""

Index = tuple[int | slice, ...]

_ITEM_BYTES = 4
"""Of a float32."""


def slabs(shape: tuple[int, ...], slab_bytes: int) -> Iterator[Index]:
    """Indices of the pieces of an array of this shape, whole rows of at most about `slab_bytes` in float32."""
    *rows, classes = shape
    yield from _pieces(tuple(rows), rows_in(slab_bytes, classes * _ITEM_BYTES))


def _pieces(rows: tuple[int, ...], most: int) -> Iterator[Index]:
    if math.prod(rows) <= most:
        yield ()
    elif (below := math.prod(rows[1:])) > most:
        for i in range(rows[0]):
            yield from ((i, *rest) for rest in _pieces(rows[1:], most))
    else:
        step = most // max(1, below)
        yield from ((slice(start, start + step),) for start in range(0, rows[0], step))


def rows_lie_together(array: Array) -> bool:
    """Whether rows lie nearer to each other than classes do."""
    *strides, classes = (abs(stride) for stride in array.strides)
    return any(0 < stride < classes and size > 1 for stride, size in zip(strides, array.shape, strict=False))


def group_axes(array: Array) -> int:
    """How many axes are the groups of planes."""
    *strides, classes = (abs(stride) for stride in array.strides)
    return next((axis for axis, stride in enumerate(strides) if stride < classes), len(strides))


def flatten(array: Array, groups: int | None) -> Array:
    """(rows, classes), or with a number of axes for `groups` planes; a view where it can be one."""
    if groups is None:
        return array if array.ndim == 2 else array.reshape(-1, array.shape[-1])
    classes_inside = with_axis(array, -1, groups)
    return classes_inside.reshape(math.prod(array.shape[:groups]), array.shape[-1], -1).swapaxes(1, 2)


def unflatten(flat: Array, shape: tuple[int, ...], groups: int | None) -> Array:
    """The way back; always a view of what `empty` made."""
    if groups is None:
        return flat.reshape(shape)
    classes_inside = flat.swapaxes(1, 2).reshape(*shape[:groups], shape[-1], *shape[groups:-1])
    return with_axis(classes_inside, groups, -1)


def with_axis(array: Array, source: int, target: int) -> Array:
    """The array with an axis elsewhere; no array module is needed for that, and nothing where it is there already."""
    if (source - target) % array.ndim == 0:
        return array
    axes = list(range(array.ndim))
    axes.insert(target % array.ndim, axes.pop(source))
    return array.transpose(axes)


def empty(backend: Backend, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A new array for a flattened slab; that of planes has its rows next to each other."""
    if len(shape) < 3:
        return backend.arrays.empty(shape, dtype)
    groups, rows, classes = shape
    return backend.arrays.empty((groups, classes, rows), dtype).swapaxes(1, 2)


def readable(backend: Backend, flat: Array, dtype: np.dtype[Any]) -> Array:
    """The flattened slab as kernels read it: itself, or a copy of the right dtype."""
    if flat.dtype == dtype and is_aligned(flat.flags) and _is_readable(flat, dtype.itemsize):
        return flat
    copy = empty(backend, flat.shape, dtype)
    copy[...] = flat
    return copy


# Asked of `array.flags`, which NumPy makes anew each time. CuPy's arrays are always aligned and writeable, and do not
# say so.


def is_aligned(flags: Any) -> bool:
    """Whether items lie at multiples of their size."""
    return bool(getattr(flags, "aligned", True))


def is_writeable(flags: Any) -> bool:
    """Whether it may be written to."""
    return bool(getattr(flags, "writeable", True))


def may_overlap(backend: Backend, one: Array, other: Array) -> bool:
    """Whether two arrays may share memory; those that own theirs do not, and are not asked at length."""
    if one.flags.owndata and other.flags.owndata:
        return one is other
    return bool(backend.arrays.may_share_memory(one, other))


def _is_readable(flat: Array, item: int) -> bool:
    together = flat.strides[-1] == item or flat.shape[-1] == 1 or (flat.ndim == 3 and flat.strides[1] == item)
    return together and all(stride >= 0 and stride % item == 0 for stride in flat.strides)
