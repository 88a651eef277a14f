"""The k largest logits of a row, in falling order; of equal ones the lower class first.

A first sweep takes the largest logit of each of some groups: the lanes, or about twice k. About the k-th largest of
these is a bar that at least k logits reach, so the second sweep compares vectors and takes only the few that do
into a pool. How many of a pool come before each of its logits is counted in vectors: that is its place.
"""

from typing import Any, NamedTuple

import numpy as np

from softmax_dask.kernels.cpu.compile import kernel, owning_step, step
from softmax_dask.kernels.cpu.exp2 import Scale, anchor, exponential, scale_in
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
GROUPS = 2

# Of the range of the maxima, in the search for the bar: it is lower than their k-th by 2^-12 of the range at most.
_HALVINGS = 12


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
    constants: Array,
    confidence: Array,
    labels: Array,
    probabilities: Array,
) -> None:
    """Fill `labels` and `probabilities`, (rows * k,), given the confidence of each row; k <= classes."""
    scale = scale_in(constants)
    size = max(2, -(-GROUPS * k // lanes(logits))) * lanes(logits)
    pool, best = pool_of(size, confidence.dtype), pool_of(k, confidence.dtype)
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
        ranked_probabilities(best.values, 0, k, scale, confidence[row], probabilities, place)


@owning_step
def pool_of(size: int, dtype: Any) -> Pool:
    """Room for so many logits."""
    return Pool(np.empty(size, dtype), np.empty(size, np.int64))


@step
def _select(logits: Array, start: int, stop: int, ahead: int, k: int, pool: Pool, best: Pool) -> None:
    """Fill `best` with the k largest, in order. What lies `ahead` is asked for: the next row."""
    width = lanes(logits)
    bar = bar_of(logits, start, stop, part_of(logits, stop - start, k, 1), k, pool.values)
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
                order(pool, count, k, best)
                keep(best, k, pool)
                count = k
                bar = next_number(best.values, best.values[k - 1], np.inf)  # an equal one comes too late
        i += step
    order(pool, count, k, best)


@step
def keep(best: Pool, k: int, pool: Pool) -> None:
    """The first k of `best` become those of a pool."""
    for i in range(k):
        pool.values[i], pool.positions[i] = best.values[i], best.positions[i]


@step
def order(pool: Pool, count: int, k: int, best: Pool) -> None:
    """Fill `best` with the k largest of the first `count` logits of a pool, in order.

    What comes after them in the pool is overwritten, up to a whole vector.
    """
    pool.values[count : -(-count // lanes(pool.values)) * lanes(pool.values)] = -np.inf
    for i in range(count):
        place = _place(pool.values, count, i)
        if place < k:
            best.values[place], best.positions[place] = pool.values[i], pool.positions[i]


@step
def _place(values: Array, count: int, i: int) -> int:
    """How many of the first `count` values come before that at i: larger ones, and equal ones that stand before it.

    After them, -inf up to a whole vector.
    """
    width, x = lanes(values), values[i]
    own = i // width * width
    block = load(values, own)
    place: int = count_bits(bits_above(block, x) | bits_reaching(block, x) & ((1 << (i - own)) - 1))
    for start in range(0, own, width):
        place += count_bits(bits_reaching(load(values, start), x))
    for start in range(own + width, count, width):
        place += count_bits(bits_above(load(values, start), x))
    return place


@step
def part_of(like: Array, classes: int, k: int, step: int) -> Any:
    """How many logits of a row make a part, of which each lane is a group: about GROUPS * k groups, or for k of up to
    as many as lanes a part that is the row. A multiple of `step` registers where that leaves enough groups.
    """
    width = lanes(like)
    if k <= width:
        return classes
    fewest = -(-classes // -(-GROUPS * k // width))
    part = -(-fewest // (step * width)) * step * width
    return part if -(-classes // part) * width >= k + k // 4 else -(-fewest // width) * width


@step
def bar_of(logits: Array, start: int, stop: int, part: int, k: int, room: Array) -> Any:
    """A value that at least k logits reach, and few more: about the k-th largest maximum of groups.

    The maxima go to `room`.
    """
    count = 0
    for i in range(start, stop, part):
        store(room, count, largest_lanes(logits, i, min(i + part, stop)))
        count += lanes(logits)
    return bar_among(room, count, k)


@step
def bar_among(maxima: Array, count: int, k: int) -> Any:
    """That value, where the maxima of the groups are known; `count` of them."""
    return _kth_lane(load(maxima, 0), k) if k <= lanes(maxima) else _reached_by(maxima, count, k)


@step
def _reached_by(values: Array, count: int, k: int) -> Any:
    """A value that k or a few more of whole vectors of values are at least; -inf if only that is."""
    low, high, finite = np.inf, -np.inf, 0
    for x in values[:count]:
        if x > -np.inf:
            low, high, finite = min(low, x), max(high, x), finite + 1
    if finite < k:
        return lane(fill(values, -np.inf), 0)
    for _ in range(_HALVINGS):
        middle = low + (high - low) / 2
        if _count_reaching(values, count, middle) >= k:
            low = middle
        else:
            high = middle
    return lane(fill(values, low), 0)  # rounding moves it past none of the values that it was compared with


@step
def _count_reaching(values: Array, count: int, bar: float) -> Any:
    width, reached = lanes(values), 0
    for i in range(0, count, width):
        reached += count_bits(bits_reaching(load(values, i), bar))
    return reached


@step
def _kth_lane(x: Vector, k: int) -> Any:
    for _ in range(k - 1):
        x = without_lane(x, first_reaching(x, largest_lane(x)))
    return largest_lane(x)


@step
def ranked_probabilities(
    best: Array, first: int, k: int, scale: Scale, confidence: float, out: Array, place: int
) -> None:
    """Fill out[place:] with the probabilities of the k largest logits, in order, best[first:]."""
    width = lanes(best)
    base = anchor(fill(best, best[first]), scale)
    unit = exponential(fill(best, best[first]), base, scale)[0]
    for i in range(0, k, width):
        count = min(width, k - i)
        # Divided first: equal logits have a ratio of exactly 1, so all of them get the confidence to the bit.
        ratio = exponential(load_first(best, first + i, count), base, scale)[0] / unit
        store_first(out, place + i, count, ratio * fill(best, confidence))
