"""The public functions. NumPy, CuPy, Dask or xarray in, the same kind out.

Arguments are checked once, by `arguments`; then an array in memory goes to `blocks`, a Dask array to
`lazy`, and an xarray.DataArray is unwrapped and wrapped again.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from softmax_dask import blocks
from softmax_dask.arguments import (
    aligned_targets,
    as_array,
    class_dimension,
    clipped_top_k,
    counted_top_k,
    is_dask,
    is_xarray,
    require_classes,
)
from softmax_dask.columns import COLUMNS
from softmax_dask.plans import plan_of

ArrayT = TypeVar("ArrayT")


def softmax(x: ArrayT, *, axis: int | str = -1, temperature: float = 1.0, dtype: DTypeLike | None = None) -> ArrayT:
    """Probability of each class along `axis`; lazy when `x` is lazy.

    Parameters
    ----------
    x : (..., classes, ...), any float dtype, bfloat16 included, or integers up to 32 bits
        Logits. Of a Dask array, all classes of a row in one chunk. A row with NaN or +inf, or only -inf, gives
        NaN; -inf beside finite logits is a mask, and its probability exactly 0.
    axis : the class axis; of an xarray.DataArray also the name of a dimension
    temperature : above 0, no unit
        Divides the logits; above 1 softens, below 1 sharpens.
    dtype : float16, bfloat16, float32 or float64
        Of the result. Float64 also computes in float64.

    Returns
    -------
    the kind, shape and chunks of `x`; float32, for float64 and 32-bit integers float64, unless `dtype` says otherwise
        Each row of float32 or float64 sums to 1 within 1e-6.

    Raises
    ------
    SplitClassAxisError
        The class axis has more than one chunk.
    ClassAxisError
        There is no such axis, or it has no classes.
    DtypeError
        Logits or `dtype` of a dtype that is not taken.
    TemperatureError
        The temperature is not a finite number above 0.

    References
    ----------
    Temperature: Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599.
    """
    found = decisions(x, ("probabilities",), axis=axis, temperature=temperature, dtype=dtype)
    result: ArrayT = found["probabilities"]
    return result


def log_softmax(x: ArrayT, *, axis: int | str = -1, temperature: float = 1.0, dtype: DTypeLike | None = None) -> ArrayT:
    """Natural logarithm of the probability of each class along `axis`; lazy when `x` is lazy.

    Parameters, result and errors are those of `softmax`. Probabilities too small for their dtype keep a
    finite logarithm; a masked class has -inf.
    """
    found = decisions(x, ("log_probabilities",), axis=axis, temperature=temperature, dtype=dtype)
    result: ArrayT = found["log_probabilities"]
    return result


def logsumexp(x: ArrayT, *, axis: int | str = -1, temperature: float = 1.0) -> ArrayT:
    """log(sum(exp(x / temperature))) along `axis`, in nats; lazy when `x` is lazy.

    Parameters and errors are those of `softmax`.

    Returns
    -------
    the kind of `x`, its shape without `axis`; float32, or float64 for float64 and 32-bit integers
        NaN for a row with NaN or +inf, or only -inf.
    """
    result: ArrayT = decisions(x, ("logsumexp",), axis=axis, temperature=temperature)["logsumexp"]
    return result


def decisions(
    x: Any,
    columns: Sequence[str] = ("label", "confidence"),
    *,
    axis: int | str = -1,
    targets: Any = None,
    temperature: float = 1.0,
    top_k: int = 0,
    dtype: DTypeLike | None = None,
    out: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Whatever can be decided from each row, in one read of `x`; lazy when `x` is lazy.

    Parameters
    ----------
    x : (..., classes, ...)
        Logits, as for `softmax`.
    columns : names in `softmax_dask.COLUMNS`
        label, confidence, margin, entropy, logsumexp, max_logit, probabilities, log_probabilities, and with
        targets nll, target_probability, target_rank, correct, with `top_k` top_k_labels, top_k_probabilities.
    targets : the shape of `x` without `axis`, integers
        True classes; -1 is unlabelled.
    top_k : above 0 for the columns that need it
        How many classes; more than there are is as many as there are, and a warning.
    dtype : float16, bfloat16, float32 or float64
        Of probabilities and log_probabilities; the other columns have the dtype that `COLUMNS` states.
    out : arrays to fill, by column; for logits in memory only
        C order, wide ones of the full shape or with the class axis last; of the dtype and shape of the result.

    Returns
    -------
    dict of the kind of `x`, in the order of `columns`
        Wide columns have the shape of `x`, those of top_k that with `top_k` classes, the others that without `axis`.
        Undecidable rows and missing
        targets have the value that `COLUMNS` states. Compute the lazy ones together
        (`dask.compute(d)`) and each block is read once.

    Raises
    ------
    ColumnError, TargetError, OutputBufferError
        An unknown column; targets that do not fit, or are missing; an `out` that cannot take the result.
    SplitClassAxisError, ClassAxisError, DtypeError, TemperatureError
        As for `softmax`.
    """
    # Most calls are of NumPy's own array, and many of a few rows: it is not asked what else it may be.
    is_plain = x.__class__ is np.ndarray
    if not is_plain and is_xarray(x):
        options = {"targets": targets, "temperature": temperature, "top_k": top_k, "dtype": dtype, "out": out}
        return _xarray_decisions(x, columns, axis=axis, **options)
    logits = x if is_plain else as_array(x)
    names = columns if columns.__class__ is tuple else _names(columns)
    plan = plan_of(logits.dtype, logits.ndim, names, axis, temperature, targets is not None, top_k, dtype)
    classes = logits.shape[plan.axis]
    if not is_plain or classes < 2:
        require_classes(logits, plan.axis, axis, warn=out is None)
    ranks = clipped_top_k(top_k, classes) if top_k else 0
    decide = blocks.decide if is_plain else _implementation(logits).decide
    found: dict[str, Any] = decide(logits, plan, targets=targets, top_k=ranks, out=out)
    return found


def top_k(x: Any, k: int, *, axis: int | str = -1, temperature: float = 1.0) -> tuple[Any, Any]:
    """The k most probable classes along `axis`, falling; of equal ones the lower class first. Lazy when `x` is lazy.

    Parameters
    ----------
    x, axis, temperature : as for `softmax`
    k : above 0
        More than there are classes is as many as there are, and a warning.

    Returns
    -------
    labels, probabilities : the kind of `x`, its shape with k classes
        int32, and float32 (float64 for float64 and 32-bit integers). Undecidable rows have -1 and NaN.

    Raises
    ------
    ColumnError
        `k` is no number above 0.
    SplitClassAxisError, ClassAxisError, DtypeError, TemperatureError
        As for `softmax`.
    """
    names = ("top_k_labels", "top_k_probabilities")
    found = decisions(x, names, axis=axis, temperature=temperature, top_k=counted_top_k(k))
    return found[names[0]], found[names[1]]


def _names(columns: Any) -> Any:
    """The columns as they are now, or what is no such thing: a plan is kept, and a list or a view may change."""
    return tuple(columns) if isinstance(columns, Iterable) and not isinstance(columns, str) else columns


def _implementation(x: Any) -> Any:
    """The module that computes on this kind of array: `lazy` for Dask's, else `blocks`."""
    return import_module("softmax_dask.lazy") if is_dask(x) else blocks


# ---- xarray


def _xarray_decisions(x: Any, columns: Sequence[str], *, axis: int | str, **options: Any) -> dict[str, Any]:
    dimension = class_dimension(x, axis)
    targets = options.pop("targets")
    data = decisions(
        x.data,
        columns,
        axis=x.dims.index(dimension),
        targets=aligned_targets(targets, x, dimension) if is_xarray(targets) else targets,
        **options,
    )
    like = {
        "row": x.isel({dimension: 0}, drop=True),
        "class": x,
        # The class at each rank differs from row to row, so the coordinate of the classes does not apply.
        "rank": x.isel({dimension: slice(options["top_k"])}).drop_vars(
            [name for name, coordinate in x.coords.items() if dimension in coordinate.dims]
        ),
    }
    # How the logits were packed in their file says nothing of the results.
    return {name: like[COLUMNS[name].per].copy(data=array).drop_encoding() for name, array in data.items()}
