"""The dtypes and shapes that logits at rest may have."""

from typing import Any

import ml_dtypes
import numpy as np

from softmax_dask import ClassAxisError, DtypeError
from softmax_dask_pipelines.errors import SourceFormatError
from softmax_dask_pipelines.sources.protocol import SourceRequest

LOGITS_DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "uint8", "uint16", "uint32")
BFLOAT16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)


def holds_logits(dtype: np.dtype[Any]) -> bool:
    """Whether numbers of this dtype, in any byte order, can be logits."""
    return dtype.name in LOGITS_DTYPES


def logits_dtype(stored: np.dtype[Any], *, bfloat16: bool, where: str) -> np.dtype[Any]:
    """Dtype of the blocks for logits stored as `stored`: native byte order, bfloat16 where asked for."""
    if bfloat16:
        return _bfloat16(stored, where)
    if not holds_logits(stored):
        raise DtypeError(
            f"{where}: logits are {stored}; expected bfloat16, {', '.join(LOGITS_DTYPES)}. "
            "Cast first, for example to float32, and write them again."
        )
    return stored.newbyteorder("=")


def checked_class_axis(shape: tuple[int, ...], request: SourceRequest, *, where: str) -> int:
    """The axis of the classes, counted from 0, of an array of two axes or more with at least one class.

    With `link: sigmoid` an array of one logit a row may have one axis; its classes then are a second one.
    """
    if len(shape) == 1 and request.link == "sigmoid":
        return 1
    if len(shape) < 2:
        raise SourceFormatError(
            f"{where}: has shape {shape}; expected 2 axes or more, (rows, classes). Name another array, or reshape "
            "this one."
        )
    axis, last = -1 if request.class_axis is None else request.class_axis, len(shape) - 1
    if not -last - 1 <= axis <= last:
        expected = "0 or 1" if last == 1 else f"0 to {last}"
        raise ClassAxisError(f"{where}: class_axis is {axis}; expected {expected}. Give the axis of the classes.")
    if shape[axis] == 0:
        raise ClassAxisError(f"{where}: has shape {shape}; expected at least 1 class. Write the logits again.")
    rows = [length for number, length in enumerate(shape) if number != axis % len(shape)]
    if 0 in rows[1:]:
        raise SourceFormatError(
            f"{where}: has shape {shape}; expected lengths of 1 or more along all axes of rows but the first. Write "
            "the logits again."
        )
    return axis % len(shape)


def _bfloat16(stored: np.dtype[Any], where: str) -> np.dtype[Any]:
    if stored.name not in ("int16", "uint16"):
        raise DtypeError(
            f"{where}: logits are {stored}, but bfloat16 was asked for; expected int16 or uint16, the bits "
            "of bfloat16. Leave the source dtype out."
        )
    return BFLOAT16
