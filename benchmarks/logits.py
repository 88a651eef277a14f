"""Logits that everyone computes on, and what is exact."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def normal(shape: tuple[int, ...], *, scale: float = 6.0, seed: int = 0) -> NDArray[np.float32]:
    """N(0, scale)."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) * np.float32(scale)


def rows_of(size_bytes: int, classes: int) -> int:
    """Rows of float32 logits that take about so much memory."""
    return max(1, size_bytes // (4 * classes))


def exact_softmax(x: NDArray[Any], temperature: float = 1.0) -> NDArray[np.longdouble]:
    """In long double."""
    scaled = x.astype(np.longdouble) / np.longdouble(temperature)
    e = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    found: NDArray[np.longdouble] = e / e.sum(axis=1, keepdims=True)
    return found
