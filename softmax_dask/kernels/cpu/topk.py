"""The k largest logits of a row, in falling order; of equal ones the lower class first.

A first sweep takes the largest logit of each lane. The k-th largest of these is a bar that at least k logits
reach, so the second sweep compares whole vectors and inserts only the few that do.
"""

from typing import Any

import numpy as np

from softmax_dask.kernels.cpu.compile import kernel, step
from softmax_dask.kernels.cpu.exp2 import Scale, anchor, exponential
from softmax_dask.kernels.cpu.memory import load, load_first, store_first
from softmax_dask.kernels.cpu.simd import (
    bits_reaching,
    fill,
    first_reaching,
    lane,
    lanes,
    larger,
    largest_lane,
    lowest_bit,
    without_lane,
)

Array = Any
"""A flat array inside compiled code."""


@kernel
def top_k_row(
    logits: Array,
    stride: int,
    rows: int,
    classes: int,
    k: int,
    scale: Scale,
    confidence: Array,
    labels: Array,
    probabilities: Array,
) -> None:
    """Fill `labels` and `probabilities`, (rows * k,), given the confidence of each row; k <= classes."""
    best, where = np.empty(k, confidence.dtype), np.empty(k, np.int64)
    for row in range(rows):
        place = row * k
        if confidence[row] != confidence[row]:
            labels[place : place + k] = -1
            probabilities[place : place + k] = np.nan
            continue
        start = row * stride
        _select(logits, start, start + classes, k, best, where)
        for i in range(k):
            labels[place + i] = where[i] - start
        _probabilities(best, k, scale, confidence[row], probabilities, place)


@step
def _select(logits: Array, i: int, stop: int, k: int, best: Array, where: Array) -> None:
    width = lanes(logits)
    bar = _bar(logits, i, stop, k)
    found = 0
    while i < stop:
        count = min(width, stop - i)
        x = load_first(logits, i, count)
        hits = bits_reaching(x, bar) & ((1 << count) - 1)  # lanes past the end are -inf, as the bar may be
        while hits:
            number = lowest_bit(hits)
            hits &= hits - 1
            found = _insert(best, where, k, found, lane(x, number), i + number)
        if found == k and best[k - 1] > bar:
            bar = best[k - 1]
        i += width


@step
def _bar(logits: Array, i: int, stop: int, k: int) -> Any:
    """A value that at least k logits reach."""
    width = lanes(logits)
    most = fill(logits, -np.inf)
    if k > width or stop - i < width:
        return lane(most, 0)
    while i + width <= stop:
        most = larger(most, load(logits, i))
        i += width
    for _ in range(k - 1):
        most = without_lane(most, first_reaching(most, largest_lane(most)))
    return largest_lane(most)


@step
def _insert(best: Array, where: Array, k: int, found: int, x: float, position: int) -> int:
    """Put a logit into the falling list of at most k; how many it holds then."""
    if found == k:
        if not x > best[k - 1]:  # an equal one of a lower class is there already
            return found
        i = k - 1
    else:
        i = found
        found += 1
    while i > 0 and x > best[i - 1]:
        best[i], where[i] = best[i - 1], where[i - 1]
        i -= 1
    best[i], where[i] = x, position
    return found


@step
def _probabilities(best: Array, k: int, scale: Scale, confidence: float, out: Array, place: int) -> None:
    width = lanes(best)
    base = anchor(fill(best, best[0]), scale)
    unit = exponential(fill(best, best[0]), base, scale)[0]
    for i in range(0, k, width):
        count = min(width, k - i)
        # Divided first: equal logits have a ratio of exactly 1, so all of them get the confidence to the bit.
        ratio = exponential(load_first(best, i, count), base, scale)[0] / unit
        store_first(out, place + i, count, ratio * fill(best, confidence))
