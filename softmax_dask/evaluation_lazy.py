"""Metrics of a Dask array: each block is counted where it is, and counts are merged in a tree."""

from collections.abc import Sequence
from typing import Any

import dask
import dask.array as da
import numpy as np

from softmax_dask import evaluation_blocks
from softmax_dask.lazy import beside
from softmax_dask.metrics import Metrics

_MERGED_AT_ONCE = 8


def evaluate(x: Any, targets: Any, *, axis: int, temperature: float) -> Metrics:
    """Of all rows of `x`; computes."""
    arrays = [x] if targets is None else [x, beside(x, axis, targets)]
    counted = da.map_blocks(
        _block,
        *arrays,
        axis=axis,
        temperature=temperature,
        chunks=tuple((1,) * blocks_along for blocks_along in x.numblocks),
        dtype=object,
        meta=np.empty((0,) * x.ndim, object),
    )
    parts = list(counted.to_delayed().ravel())
    merge = dask.delayed(_merged, pure=False)
    while len(parts) > 1:
        parts = [merge(parts[i : i + _MERGED_AT_ONCE]) for i in range(0, len(parts), _MERGED_AT_ONCE)]
    metrics: Metrics = parts[0].compute().item() if parts else Metrics.none(x.shape[axis])
    return metrics


def _block(logits: Any, targets: Any = None, *, axis: int, temperature: float) -> Any:
    result = np.empty((1,) * logits.ndim, object)
    truth = None if targets is None else targets.squeeze(axis)
    result[...] = evaluation_blocks.evaluate(logits, truth, axis=axis, temperature=temperature)
    return result


def _merged(parts: Sequence[Any]) -> Any:
    result = np.empty(1, object)
    result[0] = Metrics.merged(part.item() for part in parts)
    return result
