"""`calibrate` of arrays: NumPy, Dask, xarray. Of a Dask array each read computes its blocks once more."""

import math
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from softmax_dask.arguments import aligned_targets, as_array, check, class_dimension, is_dask, is_xarray
from softmax_dask.blocks import require_targets
from softmax_dask.calibration import Calibration, find_calibration
from softmax_dask.calibration_sums import CalibrationRead, CalibrationSums, FitOn, sums_of_blocks
from softmax_dask.dispatch import backend_of, is_on_device
from softmax_dask.errors import CalibrationError, UnsupportedArrayError
from softmax_dask.sizes import BLOCK_BYTES, rows_in
from softmax_dask.slabs import slabs, with_axis
from softmax_dask.split_keys import number_keys, text_keys


def calibrate(
    logits: Any,
    targets: Any,
    *,
    axis: int | str = -1,
    ids: Any = None,
    fit_on: FitOn = "half",
    shift: Sequence[float] | None = None,
) -> Calibration:
    """The temperature at which the logits have the least NLL, found in two reads of them and one of a sample.

    Parameters
    ----------
    logits : (..., classes, ...), NumPy, Dask or xarray
        As for `softmax`. Of a Dask array nothing is kept: each read computes the blocks that it needs.
    targets : the shape of `logits` without `axis`, integers
        True classes; -1 is unlabelled. Unlabelled and undecidable rows are left out, and counted.
    ids : one a row, integers or text, in C order
        The half that a row belongs to hangs on its id; default its number.
    fit_on : "half", and the report is of the other half; or "all", and it is of all rows
    shift : of each class; what `class_shift(train_priors, target_priors)` gives
        Added to the logits once divided. `targets` then are of where the model is used.

    Returns
    -------
    Calibration
        Its `temperature` is for `softmax(..., temperature=)`; its `report` has NLL and ECE before and after.
        The same to the last bit however the rows are chunked.

    Raises
    ------
    CalibrationError
        No row can be used, or no temperature has the least NLL.
    TargetError, SplitClassAxisError, ClassAxisError, DtypeError
        As for `decisions`.

    References
    ----------
    Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599.
    """
    if is_xarray(logits):
        dimension = class_dimension(logits, axis)
        targets = aligned_targets(targets, logits, dimension) if is_xarray(targets) else targets
        axis, logits = logits.dims.index(dimension), logits.data
    array = as_array(logits)
    position = check(array, axis, 1.0, None, warn=False)
    if is_on_device(getattr(array, "_meta", array)):
        raise UnsupportedArrayError("logits are on a GPU; expected NumPy or Dask of it. Call logits.get() first.")
    classes = array.shape[position]
    if shift is not None and len(shift) != classes:
        raise CalibrationError(f"shift is of {len(shift)} classes; expected {classes}, one a class of the logits.")
    rows = array.shape[:position] + array.shape[position + 1 :]
    keys = _keys(ids, rows)
    module = import_module("softmax_dask.calibrating_lazy") if is_dask(array) else None
    sums = _sums_of_array if module is None else module.sums_of_dask
    return find_calibration(
        sums(array, targets, keys, position),
        rows=math.prod(rows),
        classes=classes,
        fit_on=fit_on,
        shift=shift,
    )


def _keys(ids: Any, rows: tuple[int, ...]) -> Any:
    count = math.prod(rows)
    if math.isnan(count):
        raise CalibrationError("logits have an unknown number of rows. Call logits.compute_chunk_sizes() first.")
    if ids is None:
        return number_keys(np.arange(count)).reshape(rows)
    given = np.asarray(ids).reshape(-1)
    if len(given) != count or given.dtype.kind not in "iuUOT":
        raise CalibrationError(f"ids are {given.dtype} {given.shape}; expected {count} integers or texts, one a row.")
    keys = number_keys(given) if given.dtype.kind in "iu" else text_keys([str(each) for each in given])
    return keys.reshape(rows)


def _sums_of_array(array: Any, targets: Any, keys: Any, axis: int) -> Any:
    moved = with_axis(array, axis, -1)
    truth = require_targets(backend_of(array), targets, moved.shape[:-1], moved.shape[-1])

    def read(what: CalibrationRead) -> CalibrationSums:
        parts = slabs(moved.shape, BLOCK_BYTES) if what.rows is None else _pieces(what.rows, moved.shape)
        return sums_of_blocks(((moved[at], truth[at], keys[at]) for at in parts), what, moved.shape[-1])

    return read


def _pieces(runs: tuple[range, ...], shape: tuple[int, ...]) -> Iterator[tuple[Any, ...]]:
    """Indices of the rows of these runs, as `slabs` has them of all: numbered in C order, `BLOCK_BYTES` at a time."""
    *rows, classes = shape
    step = rows_in(BLOCK_BYTES, classes * np.dtype(np.float32).itemsize)
    for run in runs:
        for start in range(run.start, run.stop, step):
            yield np.unravel_index(np.arange(start, min(start + step, run.stop)), tuple(rows))
