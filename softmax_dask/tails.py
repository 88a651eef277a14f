"""Columns of what lies beyond the k largest logits of a row, made of two runs of kernels that do not fill them.

The second run has the k largest masked, so that what it finds is of the tail alone. One minus the sum of the k largest
probabilities would lose every digit of a small tail; so would its entropy, taken from that of the row.

With t the mass of the tail, H the entropy of the probabilities inside it, divided by t, and m its classes, the
Kullback-Leibler divergence of the row from one with the same k largest, and t spread evenly over the m others, is

    sum over the tail of p log(p / (t / m)) = t (log m - H).
"""

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from softmax_dask.dispatch import Backend
from softmax_dask.kernels.masking import BITS

Array = Any
"""A NumPy or CuPy array."""

TAIL_COLUMNS = frozenset({"top_k_log_probabilities", "tail_mass", "tail_divergence"})

_OF_THE_TAIL = ("max_logit", "confidence", "entropy")


def fill_tails(
    backend: Backend,
    logits: Array,
    labels: Array,
    out: Mapping[str, Array],
    floats: np.dtype[Any],
    temperature: float,
) -> None:
    """Fill the arrays of `out`, of any float dtype, given the k largest classes of each row, -1 where undecidable."""
    arrays = backend.arrays
    with np.errstate(all="ignore"):  # masked classes, undecidable rows, and results that float16 cannot hold
        top = _float64(arrays, _picked(arrays, logits, labels))
        total, entropy, classes = _tail(backend, logits, labels, top[:, 0], floats, temperature)
        gaps = (top - top[:, :1]) / temperature
        ratios = arrays.exp(gaps)  # of all ranks: where a number lies must not choose how it is computed
        others = ratios[:, 1:].sum(axis=1) + total
        mass = total / (1 + others)
        found = {
            "top_k_log_probabilities": gaps - arrays.log1p(others)[:, None],
            "tail_mass": mass,
            "tail_divergence": mass * arrays.maximum(np.log(max(1, classes)) - entropy, 0),
        }
        for name, array in out.items():
            found[name][labels[:, 0] < 0] = np.nan
            array[...] = found[name].reshape(array.shape)


def _tail(
    backend: Backend, logits: Array, labels: Array, peak: Array, floats: np.dtype[Any], temperature: float
) -> tuple[Array, Array, int]:
    """Of each tail the sum of exp(logit / T) relative to the largest logit of the row, and the entropy; its classes."""
    arrays, (rows, classes), k = backend.arrays, logits.shape, labels.shape[1]
    if k == classes:
        return arrays.zeros(rows, np.float64), arrays.zeros(rows, np.float64), 0
    found = {name: arrays.empty(rows, floats) for name in _OF_THE_TAIL}
    backend.kernels.tail_rows(logits, labels, found, temperature)
    largest, confidence, entropy = (_float64(arrays, found[name]) for name in _OF_THE_TAIL)
    is_empty = confidence != confidence  # all of it is -inf: masked
    total = arrays.where(is_empty, 0, arrays.exp((largest - peak) / temperature) / confidence)
    return total, arrays.where(is_empty, 0, entropy), classes - k


def _picked(arrays: Any, logits: Array, labels: Array) -> Array:
    """The logits of these classes."""
    bits = logits.view(BITS[logits.dtype.itemsize])
    return bits[arrays.arange(labels.shape[0])[:, None], labels].view(logits.dtype)


def _float64(arrays: Any, values: Array) -> Array:
    if values.dtype == ml_dtypes.bfloat16:  # the upper half of a float32
        return (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return values.astype(np.float64)
