"""The public functions. NumPy, CuPy, Dask or xarray in, the same kind out.

The arguments are checked here, once; then an array in memory goes to `blocks`, a Dask array to
`lazy`, and an xarray.DataArray is unwrapped and wrapped again.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from softmax_dask import blocks
from softmax_dask.columns import Column, require_columns
from softmax_dask.errors import (
    ClassAxisError,
    DtypeError,
    SplitClassAxisError,
    TemperatureError,
    UnsupportedArrayError,
)
from softmax_dask.sizes import kernel_dtype, result_dtype

ArrayT = TypeVar("ArrayT")

_TEMPERATURES = (1e-300, 1e300)


class SingleClassWarning(UserWarning):
    """Logits of one class: every probability is 1. A sigmoid may have been meant."""


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
        Each row sums to 1 within 1e-6.

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
    options: dict[str, Any] = {"axis": axis, "temperature": temperature, "dtype": dtype}
    result: ArrayT = decisions(x, ("probabilities",), **options)["probabilities"]
    return result


def log_softmax(x: ArrayT, *, axis: int | str = -1, temperature: float = 1.0, dtype: DTypeLike | None = None) -> ArrayT:
    """Natural logarithm of the probability of each class along `axis`; lazy when `x` is lazy.

    Parameters, result and errors are those of `softmax`. Probabilities too small for their dtype keep a
    finite logarithm; a masked class has -inf.
    """
    options: dict[str, Any] = {"axis": axis, "temperature": temperature, "dtype": dtype}
    result: ArrayT = decisions(x, ("log_probabilities",), **options)["log_probabilities"]
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
        targets nll, target_probability, target_rank, correct.
    targets : the shape of `x` without `axis`, integers
        True classes; -1 is unlabelled.
    dtype : float16, bfloat16, float32 or float64
        Of probabilities and log_probabilities; the other columns have the dtype that `COLUMNS` states.
    out : arrays to fill, by column; for logits in memory only
        C order (wide ones with the class axis last), of the dtype and shape of the result.

    Returns
    -------
    dict of the kind of `x`, in the order of `columns`
        Wide columns have the shape of `x`, the others that of `x` without `axis`. Undecidable rows and missing
        targets have the value that `COLUMNS` states. Compute the lazy ones together
        (`dask.compute(d)`) and each block is read once.

    Raises
    ------
    ColumnError, TargetError, OutputBufferError
        An unknown column; targets that do not fit, or are missing; an `out` that cannot take the result.
    SplitClassAxisError, ClassAxisError, DtypeError, TemperatureError
        As for `softmax`.
    """
    chosen = require_columns(columns, available=frozenset() if targets is None else frozenset({"targets"}))
    if _is_xarray(x):
        return _xarray_decisions(x, chosen, axis=axis, targets=targets, temperature=temperature, dtype=dtype, out=out)
    logits = _as_array(x)
    found: dict[str, Any] = _implementation(logits).decisions(
        logits,
        tuple(column.name for column in chosen),
        axis=_check(logits, axis, temperature, dtype, warn=out is None),
        temperature=float(temperature),
        targets=targets,
        dtype=dtype,
        out=out,
    )
    return found


def _implementation(x: Any) -> Any:
    """The module that computes on this kind of array: `lazy` for Dask's, else `blocks`."""
    return import_module("softmax_dask.lazy") if _is_dask(x) else blocks


def _is_dask(x: Any) -> bool:
    return type(x).__module__.startswith("dask.array")


# ---- xarray


def _xarray_decisions(x: Any, columns: tuple[Column, ...], *, axis: int | str, **options: Any) -> dict[str, Any]:
    dimension = axis if isinstance(axis, str) else x.dims[blocks.require_axis(axis, x.ndim)]
    if dimension not in x.dims:
        raise ClassAxisError(f"axis is {axis!r}; expected one of the dimensions {', '.join(map(str, x.dims))}.")
    targets = options.pop("targets")
    data = decisions(
        x.data,
        tuple(column.name for column in columns),
        axis=x.dims.index(dimension),
        targets=getattr(targets, "data", targets) if _is_xarray(targets) else targets,
        **options,
    )
    without = x.isel({dimension: 0}, drop=True)
    return {c.name: (x if c.per == "class" else without).copy(data=data[c.name]) for c in columns}


def _is_xarray(x: Any) -> bool:
    return type(x).__module__.startswith("xarray.") and type(x).__name__ == "DataArray"


# ---- checks


def _as_array(x: Any) -> Any:
    """`x` itself if it is an array, else (lists, numbers) as float64."""
    if isinstance(x, np.ma.MaskedArray):
        raise UnsupportedArrayError(
            "logits are a masked array, whose mask would be lost; expected a plain one. "
            "Call logits.filled(-numpy.inf) first."
        )
    if hasattr(x, "dtype") and hasattr(x, "shape"):
        return x
    try:
        return np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DtypeError(f"logits are {x!r:.80}; expected an array, or nested lists of numbers.") from error


def _check(x: Any, axis: int | str, temperature: float, dtype: Any, *, warn: bool) -> int:
    """What is wrong whatever the values are; the class axis counted from the front."""
    require_temperature(temperature)
    kernel_dtype(x.dtype)
    result_dtype(x.dtype, dtype)
    position = blocks.require_axis(axis, x.ndim)
    if x.shape[position] == 0:
        raise ClassAxisError(f"logits of shape {x.shape} have no classes along axis {axis}; expected at least one.")
    if x.shape[position] == 1 and warn:  # who brings buffers of that shape knows, and may call for every block
        warnings.warn(
            "logits have one class, so every probability is 1. Did you mean a sigmoid?",
            SingleClassWarning,
            stacklevel=4,
        )
    if _is_dask(x) and x.numblocks[position] > 1:
        sizes = x.chunks[position]
        raise SplitClassAxisError(
            f"logits has class chunks {sizes}; expected one chunk of {sum(sizes)} classes. "
            f"Call logits.rechunk({{{axis}: -1}}) first."
        )
    return position


def require_temperature(temperature: float) -> None:
    """Refuse what cannot divide logits.

    Raises
    ------
    TemperatureError
        The temperature is not a number from 1e-300 to 1e300.
    """
    low, high = _TEMPERATURES
    if not low <= _as_float(temperature) <= high:  # NaN is in no range
        raise TemperatureError(
            f"temperature is {temperature!r}; expected a finite number above 0 ({low:g} to {high:g})."
        )


def _as_float(number: Any) -> float:
    """NaN for what is no number: True would pass for 1, and NumPy's float32 cannot be compared with 1e300."""
    if isinstance(number, bool) or not isinstance(number, int | float | np.integer | np.floating):
        return math.nan
    try:
        return float(number)
    except OverflowError:
        return math.inf
