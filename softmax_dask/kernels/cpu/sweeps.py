"""Sweeps along one row, or one block of a row: the loops that `row` is made of."""

from typing import Any

import numpy as np

from softmax_dask.kernels.cpu.compile import step
from softmax_dask.kernels.cpu.exp2 import FOLD, Anchor, Scale, add_exactly, exponential
from softmax_dask.kernels.cpu.memory import load, load_first, prefetch, prefetch_to_write, store, store_first, stream
from softmax_dask.kernels.cpu.simd import (
    Vector,
    bits_reaching,
    fill,
    first_reaching,
    fma,
    lane,
    lanes,
    larger,
    largest_lane,
    smaller,
    sum_lanes,
    where_greater,
    without_lane,
)

Array = Any
"""A flat array inside compiled code."""


@step
def largest(logits: Array, i: int, stop: int) -> Any:
    """The largest logit; NaN is passed over."""
    return largest_lane(largest_lanes(logits, i, stop))


@step
def largest_lanes(logits: Array, i: int, stop: int) -> Vector:
    """The largest logit of each lane; -inf where there is none."""
    # Four chains hide the latency of a comparison.
    width = lanes(logits)
    a = fill(logits, -np.inf)
    b, c, d = a, a, a
    while i + 4 * width <= stop:
        a, b = larger(a, load(logits, i)), larger(b, load(logits, i + width))
        c, d = larger(c, load(logits, i + 2 * width)), larger(d, load(logits, i + 3 * width))
        i += 4 * width
    while i < stop:
        a = larger(a, load_first(logits, i, min(width, stop - i)))
        i += width
    return larger(larger(a, b), larger(c, d))


@step
def two_largest(logits: Array, i: int, stop: int) -> tuple[float, float]:
    """Largest and second largest logit of a block; equal on ties."""
    width = lanes(logits)
    a = fill(logits, -np.inf)
    b, a2, b2 = a, a, a
    while i + 2 * width <= stop:
        x, y = load(logits, i), load(logits, i + width)
        a2, b2 = larger(a2, smaller(a, x)), larger(b2, smaller(b, y))
        a, b = larger(a, x), larger(b, y)
        i += 2 * width
    while i < stop:
        x = load_first(logits, i, min(width, stop - i))
        a2, a = larger(a2, smaller(a, x)), larger(a, x)
        i += width
    a2, a = larger(larger(a2, b2), smaller(a, b)), larger(a, b)
    top = largest_lane(a)
    other_lanes = largest_lane(without_lane(a, first_reaching(a, top)))
    return top, max(largest_lane(a2), other_lanes)


@step
def find(logits: Array, i: int, stop: int, value: float) -> Any:
    """Position of the first logit that reaches `value`; `stop` if there is none."""
    width = lanes(logits)
    while i + 4 * width <= stop:
        a = larger(load(logits, i), load(logits, i + width))
        b = larger(load(logits, i + 2 * width), load(logits, i + 3 * width))
        if bits_reaching(larger(a, b), value):
            break
        i += 4 * width
    while i < stop:
        hit = first_reaching(load_first(logits, i, min(width, stop - i)), value)
        if hit < width:
            return i + hit
        i += width
    return stop


@step
def rank(logits: Array, start: int, stop: int, position: int, x: float) -> int:
    """How many classes come before the target at `position`: larger logits, and equal ones of lower classes."""
    after = _above(logits, position + 1, stop, x)
    if x == -np.inf:
        return position - start + int(sum_lanes(after))
    # A lower class need only be above the next number below x.
    return int(sum_lanes(after + _above(logits, start, position, next_number(logits, x, -np.inf))))


@step
def next_number(like: Any, x: float, towards: float) -> Any:
    """The next number after x of the lane type of an array or vector."""
    return np.nextafter(x, lane(fill(like, towards), 0))  # of one type: else it would be the next float64


@step
def _above(logits: Array, i: int, stop: int, x: float) -> Vector:
    """How many logits are above x, in parts."""
    width = lanes(logits)
    bar, one, zero = fill(logits, x), fill(logits, 1.0), fill(logits, 0.0)
    a, b = zero, zero
    while i + 2 * width <= stop:
        a = a + where_greater(load(logits, i), bar, one, zero)
        b = b + where_greater(load(logits, i + width), bar, one, zero)
        i += 2 * width
    while i < stop:
        a = a + where_greater(load_first(logits, i, min(width, stop - i)), bar, one, zero)
        i += width
    return a + b


@step
def exponentials(
    logits: Array, i: int, stop: int, ahead: int, base: Anchor, scale: Scale, out: Array, place: int, later: int
) -> Any:
    """Write exponentials to out[place:]; their sum. Ask for what is read `ahead` and written `later`: the next row."""
    width = lanes(logits)
    total, lost = fill(logits, 0.0), fill(logits, 0.0)
    while i < stop:
        a, b = fill(logits, 0.0), fill(logits, 0.0)
        end = min(i + 2 * FOLD * width, stop)
        while i + 2 * width <= end:
            prefetch(logits, i + ahead)
            prefetch(logits, i + ahead + width)
            prefetch_to_write(out, place + later)
            prefetch_to_write(out, place + later + width)
            x = exponential(load(logits, i), base, scale)[0]
            y = exponential(load(logits, i + width), base, scale)[0]
            store(out, place, x)
            store(out, place + width, y)
            a, b = a + x, b + y
            i, place = i + 2 * width, place + 2 * width
        if i + width <= end:
            x = exponential(load(logits, i), base, scale)[0]
            store(out, place, x)
            a, i, place = a + x, i + width, place + width
        if i < end:
            x = exponential(load_first(logits, i, end - i), base, scale)[0]
            store_first(out, place, end - i, x)
            a, i, place = a + x, end, place + end - i
        total, lost = add_exactly(total, lost, a + b)
    return sum_lanes(total) + sum_lanes(lost)


@step
def scale_row(out: Array, i: int, stop: int, factor: float) -> None:
    """Multiply by `factor`, in place."""
    width, factors = lanes(out), fill(out, factor)
    while i + width <= stop:
        store(out, i, load(out, i) * factors)
        i += width
    if i < stop:
        store_first(out, i, stop - i, load_first(out, i, stop - i) * factors)


@step
def stream_scaled(values: Array, factor: float, out: Array, place: int) -> None:
    """out[place:] = values * factor, past the caches but for lines that are shared with what lies beside."""
    width, factors = lanes(out), fill(out, factor)
    i = min(-(out.ctypes.data // out.itemsize + place) % width, values.size)
    store_first(out, place, i, load_first(values, 0, i) * factors)
    while i + width <= values.size:
        stream(out, place + i, load(values, i) * factors)
        i += width
    if i < values.size:
        store_first(out, place + i, values.size - i, load_first(values, i, values.size - i) * factors)


@step
def sums_of_others(
    logits: Array, i: int, stop: int, hole: int, ahead: int, base: Anchor, scale: Scale, squared: bool
) -> tuple[float, float, float]:
    """Of a block, but for the logit at `hole`: the sum of the exponentials, of each times its log2, if `squared` of
    their squares.
    """
    zero = fill(logits, 0.0)
    total, lost, weight, squares, run = zero, zero, zero, zero, 2 * FOLD * lanes(logits)
    while i < stop:
        end = min(i + run, stop)
        if i <= hole < end:
            part, weight, squares = _run_with_hole(logits, i, end, hole, ahead, base, scale, weight, squares, squared)
        else:
            part, weight, squares = _run(logits, i, end, ahead, base, scale, weight, squares, squared)
        total, lost = add_exactly(total, lost, part)
        i = end
    return sum_lanes(total) + sum_lanes(lost), sum_lanes(weight), sum_lanes(squares)


@step
def _run(
    logits: Array,
    i: int,
    stop: int,
    ahead: int,
    base: Anchor,
    scale: Scale,
    weight: Vector,
    squares: Vector,
    squared: bool,
) -> tuple[Vector, Vector, Vector]:
    width = lanes(logits)
    a, b = fill(logits, 0.0), fill(logits, 0.0)
    weight_b = b
    while i + 2 * width <= stop:
        prefetch(logits, i + ahead)
        prefetch(logits, i + ahead + width)
        x, x_log2 = exponential(load(logits, i), base, scale)
        y, y_log2 = exponential(load(logits, i + width), base, scale)
        a, weight = a + x, fma(x, x_log2, weight)
        b, weight_b = b + y, fma(y, y_log2, weight_b)
        if squared:
            squares = fma(y, y, fma(x, x, squares))
        i += 2 * width
    while i < stop:
        x, x_log2 = exponential(load_first(logits, i, min(width, stop - i)), base, scale)
        a, weight = a + x, fma(x, x_log2, weight)
        if squared:
            squares = fma(x, x, squares)
        i += width
    return a + b, weight + weight_b, squares


@step
def _run_with_hole(
    logits: Array,
    i: int,
    stop: int,
    hole: int,
    ahead: int,
    base: Anchor,
    scale: Scale,
    weight: Vector,
    squares: Vector,
    squared: bool,
) -> tuple[Vector, Vector, Vector]:
    """As `_run`, with the logit at `hole` taken as -inf."""
    width = lanes(logits)
    a, b = fill(logits, 0.0), fill(logits, 0.0)
    weight_b = b
    while i + 2 * width <= stop:
        prefetch(logits, i + ahead)
        prefetch(logits, i + ahead + width)
        x, x_log2 = exponential(without_lane(load(logits, i), hole - i), base, scale)
        y, y_log2 = exponential(without_lane(load(logits, i + width), hole - i - width), base, scale)
        a, weight = a + x, fma(x, x_log2, weight)
        b, weight_b = b + y, fma(y, y_log2, weight_b)
        if squared:
            squares = fma(y, y, fma(x, x, squares))
        i += 2 * width
    while i < stop:
        x, x_log2 = exponential(without_lane(load_first(logits, i, min(width, stop - i)), hole - i), base, scale)
        a, weight = a + x, fma(x, x_log2, weight)
        if squared:
            squares = fma(x, x, squares)
        i += width
    return a + b, weight + weight_b, squares
