"""Reads of a Dask array for `calibrate`: a block becomes its sums, through `map_blocks`."""

from functools import reduce
from operator import add
from typing import Any

import dask.array as da
import numpy as np

from softmax_dask.blocks import require_targets
from softmax_dask.calibration import CalibrationRead, CalibrationSums, sums_of_block
from softmax_dask.dispatch import backend_of
from softmax_dask.lazy import beside
from softmax_dask.sizes import BLOCK_BYTES
from softmax_dask.slabs import slabs, with_axis


def sums_of_dask(x: Any, targets: Any, keys: Any, axis: int) -> Any:
    """A function that computes the array once for each read."""
    truth, numbers = beside(x, axis, targets), beside(x, axis, keys)

    def read(what: CalibrationRead) -> CalibrationSums:
        found = da.map_blocks(
            _sums,
            x,
            truth,
            numbers,
            axis=axis,
            what=what,
            chunks=tuple((1,) * len(lengths) for lengths in x.chunks),
            dtype=object,
            meta=np.empty((0,) * x.ndim, object),
        )
        return reduce(add, found.compute().reshape(-1), CalibrationSums())

    return read


def _sums(logits: Any, targets: Any, keys: Any, *, axis: int, what: CalibrationRead) -> Any:
    moved = with_axis(logits, axis, -1)
    truth = require_targets(backend_of(logits), targets.squeeze(axis), moved.shape[:-1], moved.shape[-1])
    beside = keys.squeeze(axis)
    result = np.empty((1,) * logits.ndim, object)
    found = (sums_of_block(moved[at], truth[at], beside[at], what) for at in slabs(moved.shape, BLOCK_BYTES))
    result[(0,) * logits.ndim] = reduce(add, found, CalibrationSums())
    return result
