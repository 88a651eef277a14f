"""Reads of a Dask array for `calibrate`: a block becomes its sums, through `map_blocks`."""

from functools import reduce
from operator import add
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.array.core import slices_from_chunks
from numpy.typing import NDArray

from softmax_dask.blocks import require_targets
from softmax_dask.calibration_sums import CalibrationRead, CalibrationSums, sums_of_blocks
from softmax_dask.dispatch import backend_of
from softmax_dask.lazy import beside
from softmax_dask.sizes import BLOCK_BYTES
from softmax_dask.slabs import slabs, with_axis


def sums_of_dask(x: Any, targets: Any, keys: Any, axis: int) -> Any:
    """A function that computes the array once for each read; for one of some rows, the blocks that hold them."""
    rows = (beside(x, axis, targets), beside(x, axis, keys))

    def read(what: CalibrationRead) -> CalibrationSums:
        if what.rows is None:
            parts = [_sums_of_blocks(x, rows, axis, what)]
        else:
            chosen = _mask(what.rows, keys.shape)
            found = _sums_of_blocks(x, (*rows, beside(x, axis, chosen)), axis, what)
            parts = [found.blocks[at] for at in _blocks_with(np.expand_dims(chosen, axis), x.chunks)]
        return reduce(add, (each for part in dask.compute(*parts) for each in part.reshape(-1)), CalibrationSums())

    return read


def _sums_of_blocks(x: Any, rows: tuple[Any, ...], axis: int, what: CalibrationRead) -> Any:
    return da.map_blocks(
        _sums,
        x,
        *rows,
        axis=axis,
        what=what,
        chunks=tuple((1,) * len(lengths) for lengths in x.chunks),
        dtype=object,
        meta=np.empty((0,) * x.ndim, object),
    )


def _mask(runs: tuple[range, ...], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which rows are in these runs, numbered in C order."""
    mask = np.zeros(shape, np.bool_)
    for run in runs:
        mask.reshape(-1)[run.start : run.stop] = True
    return mask


def _blocks_with(chosen: NDArray[np.bool_], chunks: tuple[tuple[int, ...], ...]) -> list[tuple[int, ...]]:
    """Blocks of so many chunks that hold a chosen row."""
    places = zip(np.ndindex(*map(len, chunks)), slices_from_chunks(chunks), strict=True)
    return [block for block, at in places if chosen[at].any()]


def _sums(logits: Any, targets: Any, keys: Any, chosen: Any = None, *, axis: int, what: CalibrationRead) -> Any:
    moved, numbers = with_axis(logits, axis, -1), keys.squeeze(axis)
    truth = require_targets(backend_of(logits), targets.squeeze(axis), moved.shape[:-1], moved.shape[-1])
    if chosen is not None:
        at = chosen.squeeze(axis)
        moved, truth, numbers = moved[at], truth[at], numbers[at]
    result = np.empty((1,) * logits.ndim, object)
    parts = ((moved[at], truth[at], numbers[at]) for at in slabs(moved.shape, BLOCK_BYTES))
    result[(0,) * logits.ndim] = sums_of_blocks(parts, what, moved.shape[-1])
    return result
