"""Metrics of one array in memory."""

from typing import Any

from softmax_dask import blocks
from softmax_dask.dispatch import backend_of
from softmax_dask.metrics import Metrics, MetricsCounter, metric_columns
from softmax_dask.slabs import slabs, with_axis

_SLABS = 4
"""Slabs of the kernels that are decided together before they are counted: columns of one value a row are small."""


def evaluate(x: Any, targets: Any, *, axis: int, temperature: float) -> Metrics:
    """Of all rows of `x`."""
    backend, moved = backend_of(x), with_axis(x, axis, -1)
    truth = None
    if targets is not None:
        truth = blocks.require_targets(backend, targets, moved.shape[:-1], moved.shape[-1])
    columns = metric_columns(with_targets=targets is not None)
    counting = MetricsCounter(moved.shape[-1])
    for index in slabs(moved.shape, _SLABS * backend.slab_bytes):
        part = None if truth is None else truth[index]
        found = blocks.decisions(moved[index], columns, axis=-1, temperature=temperature, targets=part)
        counting.add(found, part)
    return counting.metrics()
