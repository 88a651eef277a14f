"""Rows in which some classes are masked: a copy with -inf in their place, in any array module."""

from typing import Any

import numpy as np

Array = Any
"""A NumPy or CuPy array."""

BITS: dict[int, Any] = {2: np.uint16, 4: np.uint32, 8: np.uint64}
"""Size of a float -> integers that stand for its bits: CuPy does not pick bfloat16."""


def without(arrays: Any, logits: Array, labels: Array) -> Array:
    """A copy of the logits, (rows, classes), without the classes of `labels`, (rows, k); -1 is the last one."""
    masked = logits.copy()
    bits = BITS[logits.dtype.itemsize]
    rows = arrays.arange(labels.shape[0])[:, None]
    masked.view(bits)[rows, labels] = minus_infinity(logits.dtype).view(bits)[()]
    return masked


def minus_infinity(dtype: np.dtype[Any]) -> Any:
    """An array of that dtype which holds it."""
    return np.array(-np.inf, dtype)
