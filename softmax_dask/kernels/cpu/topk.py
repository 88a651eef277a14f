"""The k largest logits of a row, in falling order; of equal ones the lower class first.

A first sweep takes the largest logit of each of some groups: the lanes, or about four times k. The k-th largest of
these is a bar that at least k logits reach, so the second sweep compares vectors and inserts only the few that do.
"""

from typing import Any

import numpy as np

from softmax_dask.kernels.cpu.compile import kernel, step
from softmax_dask.kernels.cpu.exp2 import Scale, anchor, exponential
from softmax_dask.kernels.cpu.memory import load, load_first, store, store_first
from softmax_dask.kernels.cpu.simd import (
    Vector,
    bits_reaching,
    fill,
    first_reaching,
    lane,
    lanes,
    largest_lane,
    lowest_bit,
    without_lane,
)
from softmax_dask.kernels.cpu.sweeps import largest_lanes, next_number

Array = Any
"""A flat array inside compiled code."""

# Groups a k: more make the bar higher, and cost more to sort.
_GROUPS = 4


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
    groups = np.empty(-(-_GROUPS * k // lanes(logits)) * lanes(logits), confidence.dtype)
    for row in range(rows):
        place = row * k
        if confidence[row] != confidence[row]:
            labels[place : place + k] = -1
            probabilities[place : place + k] = np.nan
            continue
        start = row * stride
        _select(logits, start, start + classes, k, best, where, groups)
        for i in range(k):
            labels[place + i] = where[i] - start
        _probabilities(best, k, scale, confidence[row], probabilities, place)


@step
def _select(logits: Array, start: int, stop: int, k: int, best: Array, where: Array, groups: Array) -> None:
    width = lanes(logits)
    bar = _bar(logits, start, stop, k, best, where, groups)
    found, i = 0, start
    while i < stop:
        if i + 4 * width <= stop:
            count = 4 * width
            low = bits_reaching(load(logits, i), bar) | bits_reaching(load(logits, i + width), bar) << width
            i_high = i + 2 * width
            high = bits_reaching(load(logits, i_high), bar) | bits_reaching(load(logits, i_high + width), bar) << width
            hits = low | high << 2 * width
        else:
            count = min(width, stop - i)
            hits = bits_reaching(load_first(logits, i, count), bar) & ((1 << count) - 1)  # the others are -inf
        while hits:
            position = i + lowest_bit(hits)
            hits &= hits - 1
            found = _insert(best, where, k, found, lane(load_first(logits, position, 1), 0), position)
            if found == k:  # an equal one of a higher class comes too late
                bar = max(bar, next_number(best, best[k - 1], np.inf))
        i += count


@step
def _bar(logits: Array, start: int, stop: int, k: int, best: Array, where: Array, groups: Array) -> Any:
    """A value that at least k logits reach: the k-th largest maximum of groups, each a lane of the row or of a part."""
    width = lanes(logits)
    if k <= width:
        return _kth_lane(largest_lanes(logits, start, stop), k)
    part = -(-(stop - start) // groups.size) * width
    count, found = 0, 0
    for i in range(start, stop, part):
        store(groups, count, largest_lanes(logits, i, min(i + part, stop)))
        count += width
    for i in range(count):
        found = _insert(best, where, k, found, groups[i], i)
    return best[k - 1] if found == k else -np.inf


@step
def _kth_lane(x: Vector, k: int) -> Any:
    for _ in range(k - 1):
        x = without_lane(x, first_reaching(x, largest_lane(x)))
    return largest_lane(x)


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
