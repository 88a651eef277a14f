"""Jacobians of a Dask array, and their products with vectors: each tile goes to `jacobian_blocks`.

A Jacobian is classes times as large as its logits, so it is cut along both axes of classes, too. `blockwise` keeps the
graph symbolic: a corner of a Jacobian of 10^5 tiles costs the tasks of that corner.
"""

import warnings
from typing import Any

import dask.array as da
import numpy as np
from dask import config
from dask.array.core import PerformanceWarning
from dask.array.utils import meta_from_array
from dask.utils import parse_bytes

from softmax_dask import jacobian_blocks
from softmax_dask.errors import OutputBufferError, UnsupportedArrayError, VectorError
from softmax_dask.sizes import jacobian_tiles, pieces_of, result_dtype

Array = Any
"""A dask.array.Array."""

_TILE_BYTES = 32 << 20
"""Of a tile, where Dask's own limit is not lower: a corner needs one, and its logits, in memory."""


def jacobian(x: Array, *, axis: int, temperature: float, dtype: Any = None, out: Any = None) -> Array:
    """The Jacobians, lazily, with two axes in place of `axis`."""
    if out is not None:
        raise OutputBufferError("out is given for a Dask array; expected none. It is for logits in memory.")
    wanted = result_dtype(x.dtype, dtype)
    cut, side = _cut(x, axis, wanted.itemsize)
    classes = da.arange(x.shape[axis], chunks=side)  # each tile is told its classes by two blocks of this
    rows = tuple(range(x.ndim))
    first, second = x.ndim, x.ndim + 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PerformanceWarning)  # that there are many tiles is the point
        return da.blockwise(
            _tile,
            (*rows[:axis], first, second, *rows[axis + 1 :]),
            *(cut, rows, classes, (first,), classes, (second,)),
            axis=axis,
            temperature=temperature,
            wanted=wanted,
            dtype=wanted,
            meta=meta_from_array(x._meta, ndim=x.ndim + 1, dtype=wanted),
        )


def product(x: Array, vector: Any, *, kind: str, axis: int, temperature: float) -> Array:
    """The Jacobians times vectors of the shape of `x`, lazily, in the chunks of `x`."""
    if not np.array_equal(vector.shape, x.shape, equal_nan=True):  # NaN: a filtered array, its length not known yet
        raise VectorError(f"the vector has shape {vector.shape}; expected {x.shape}, that of the logits.")
    lazy = vector if isinstance(vector, da.Array) else da.from_array(vector, chunks=x.chunks)
    floats = np.result_type(result_dtype(x.dtype), result_dtype(vector.dtype))
    return da.map_blocks(
        jacobian_blocks.product,
        *(x, lazy.rechunk(x.chunks)),
        kind=kind,
        axis=axis,
        temperature=temperature,
        dtype=floats,
        meta=meta_from_array(x._meta, dtype=floats),
    )


def _cut(x: Array, axis: int, item_bytes: int) -> tuple[Array, int]:
    """`x` in chunks of as many rows as a tile has, and the classes of a tile."""
    others = [chunks for i, chunks in enumerate(x.chunks) if i != axis]
    if any(np.isnan(size) for chunks in others for size in chunks):
        raise UnsupportedArrayError(
            "logits have chunks of unknown length, so their Jacobian cannot be cut; expected known ones. "
            "Call logits.compute_chunk_sizes() first."
        )
    limit = min(_TILE_BYTES, parse_bytes(config.get("array.chunk-size")))
    lengths, side = jacobian_tiles(tuple(max(chunks) for chunks in others), x.shape[axis], item_bytes, limit)
    cut = [tuple(p for size in c for p in pieces_of(size, most)) for c, most in zip(others, lengths, strict=True)]
    return x.rechunk((*cut[:axis], x.chunks[axis], *cut[axis:])), side


def _tile(logits: list[Any], first: Any, second: Any, *, axis: int, temperature: float, wanted: Any) -> Any:
    (block,) = logits  # of the axis of classes, which the tile does not have
    return jacobian_blocks.jacobian(
        block,
        axis=axis,
        temperature=temperature,
        dtype=wanted,
        first=range(first[0], first[-1] + 1),
        second=range(second[0], second[-1] + 1),
    )
