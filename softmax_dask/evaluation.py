"""Metrics of logits: NumPy, CuPy, Dask or xarray in, one `Metrics` out; in one read, and out of core where they are."""

from importlib import import_module
from typing import Any

from softmax_dask import evaluation_blocks
from softmax_dask.arguments import aligned_targets, as_array, check, class_dimension, is_dask, is_xarray
from softmax_dask.metrics import Metrics


def evaluate(x: Any, targets: Any = None, *, axis: int | str = -1, temperature: float = 1.0) -> Metrics:
    """How good the decisions of logits are. Computes at once, also of a Dask array, which is read block by block.

    Parameters
    ----------
    x : (..., classes, ...)
        Logits, as for `softmax_dask.softmax`.
    targets : the shape of `x` without `axis`, integers
        True classes; -1 is unlabelled. Without them, what needs none is counted.
    axis : the class axis; of an xarray.DataArray also the name of a dimension
    temperature : above 0, no unit
        Divides the logits.

    Returns
    -------
    Metrics
        The same to the last bit whichever way `x` is chunked.

    Raises
    ------
    TargetError
        Targets that do not fit.
    SplitClassAxisError, ClassAxisError, DtypeError, TemperatureError
        As for `softmax_dask.softmax`.
    """
    if is_xarray(x):
        dimension = class_dimension(x, axis)
        given = aligned_targets(targets, x, dimension) if is_xarray(targets) else targets
        return evaluate(x.data, given, axis=x.dims.index(dimension), temperature=temperature)
    logits = as_array(x)
    position = check(logits, axis, temperature, None, warn=True)
    metrics: Metrics = _implementation(logits).evaluate(logits, targets, axis=position, temperature=float(temperature))
    return metrics


def _implementation(x: Any) -> Any:
    """The module that counts this kind of array."""
    return import_module("softmax_dask.evaluation_lazy") if is_dask(x) else evaluation_blocks
