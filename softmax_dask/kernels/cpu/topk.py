"""The k largest logits of a row, in falling order; of equal ones the lower class first.

A first sweep takes the largest logit of each of some groups: the lanes, or about twice k. The k-th largest of
these is a bar that at least k logits reach, so the second sweep compares vectors and takes only the few that do
into a pool. How many of a pool come before each of its logits is counted in vectors: that is its place.
"""

from typing import Any, NamedTuple

import numpy as np

from softmax_dask.kernels.cpu.compile import kernel, step
from softmax_dask.kernels.cpu.exp2 import Scale, anchor, exponential
from softmax_dask.kernels.cpu.memory import load, load_first, prefetch, store, store_first
from softmax_dask.kernels.cpu.simd import (
    Vector,
    bits_above,
    bits_reaching,
    count_bits,
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

# Groups a k, and room in the pool: more make the bar higher, and cost more to put in order.
_GROUPS = 2


class Pool(NamedTuple):
    """Logits that may be among the k largest, in an order in which an equal one of a lower class comes first."""

    values: Array
    """in the dtype of the arithmetic"""
    positions: Array
    """int64"""


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
    size = max(2, -(-_GROUPS * k // lanes(logits))) * lanes(logits)
    pool = Pool(np.empty(size, confidence.dtype), np.empty(size, np.int64))
    best = Pool(np.empty(k, confidence.dtype), np.empty(k, np.int64))
    for row in range(rows):
        place = row * k
        if confidence[row] != confidence[row]:
            labels[place : place + k] = -1
            probabilities[place : place + k] = np.nan
            continue
        start = row * stride
        _select(logits, start, start + classes, stride, k, pool, best)
        for i in range(k):
            labels[place + i] = best.positions[i] - start
        _probabilities(best.values, k, scale, confidence[row], probabilities, place)


@step
def _select(logits: Array, start: int, stop: int, ahead: int, k: int, pool: Pool, best: Pool) -> None:
    """Fill `best` with the k largest, in order. What lies `ahead` is asked for: the next row."""
    width = lanes(logits)
    bar = _bar(logits, start, stop, k, pool, best)
    count, i = 0, start
    while i < stop:
        if i + 4 * width <= stop:
            for near in range(0, 4 * width, width):
                prefetch(logits, i + ahead + near)
            step = 4 * width
            low = bits_reaching(load(logits, i), bar) | bits_reaching(load(logits, i + width), bar) << width
            i_high = i + 2 * width
            high = bits_reaching(load(logits, i_high), bar) | bits_reaching(load(logits, i_high + width), bar) << width
            hits = low | high << 2 * width
        else:
            step = min(width, stop - i)
            hits = bits_reaching(load_first(logits, i, step), bar) & ((1 << step) - 1)  # the others are -inf
        while hits:
            position = i + lowest_bit(hits)
            hits &= hits - 1
            pool.values[count], pool.positions[count] = lane(load_first(logits, position, 1), 0), position
            count += 1
            if count == pool.values.size:
                _order(pool, count, k, best)
                pool.values[:k], pool.positions[:k] = best.values, best.positions
                count = k
                bar = next_number(best.values, best.values[k - 1], np.inf)  # an equal one comes too late
        i += step
    _order(pool, count, k, best)


@step
def _order(pool: Pool, count: int, k: int, best: Pool) -> None:
    """Fill `best` with the k largest of the first `count` logits of a pool, in order."""
    for i in range(count):
        place = _place(pool.values, count, i)
        if place < k:
            best.values[place], best.positions[place] = pool.values[i], pool.positions[i]


@step
def _place(values: Array, count: int, i: int) -> int:
    """How many of the first `count` values come before that at i: larger ones, and equal ones that stand before it."""
    width, x, place = lanes(values), values[i], 0
    for start in range(0, count, width):
        block = load_first(values, start, min(width, count - start))
        earlier = (1 << max(0, min(i - start, width))) - 1
        place += count_bits(bits_above(block, x) | bits_reaching(block, x) & earlier)
    return place


@step
def _bar(logits: Array, start: int, stop: int, k: int, pool: Pool, best: Pool) -> Any:
    """A value that at least k logits reach: the k-th largest maximum of groups, each a lane of the row or of a part."""
    width = lanes(logits)
    if k <= width:
        return _kth_lane(largest_lanes(logits, start, stop), k)
    part = -(-(stop - start) // pool.values.size) * width
    count = 0
    for i in range(start, stop, part):
        store(pool.values, count, largest_lanes(logits, i, min(i + part, stop)))
        count += width
    if count < k:
        return lane(fill(logits, -np.inf), 0)
    _order(pool, count, k, best)
    return best.values[k - 1]


@step
def _kth_lane(x: Vector, k: int) -> Any:
    for _ in range(k - 1):
        x = without_lane(x, first_reaching(x, largest_lane(x)))
    return largest_lane(x)


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
