"""What is wrong with an option, whatever the arrays are."""

import math
from typing import Any

import numpy as np

from softmax_dask.errors import ClassAxisError, TemperatureError

TEMPERATURES = (1e-300, 1e290)


def require_axis(axis: Any, ndim: int) -> int:
    """`axis` counted from the front.

    Raises
    ------
    ClassAxisError
        There is no such axis.
    """
    if ndim == 0:
        raise ClassAxisError("logits are a single number; expected an array with an axis of classes.")
    if not isinstance(axis, int | np.integer) or not -ndim <= axis < ndim:
        raise ClassAxisError(
            f"axis is {axis!r}; expected {-ndim} to {ndim - 1}, or of an xarray.DataArray the name of a dimension."
        )
    return int(axis) % ndim


def require_temperature(temperature: float) -> None:
    """Refuse what cannot divide logits.

    Raises
    ------
    TemperatureError
        The temperature is not a number from 1e-300 to 1e290.
    """
    low, high = TEMPERATURES
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
