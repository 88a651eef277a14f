"""Sweeps along one row, or one block of a row: the loops that `row` is made of."""

from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload

from softmax_dask.kernels.cpu.compile import owning_step, step
from softmax_dask.kernels.cpu.exp2 import FOLD, Anchor, Scale, add_exactly, exponential
from softmax_dask.kernels.cpu.memory import load, load_first, prefetch, prefetch_to_write, store, store_first, stream
from softmax_dask.kernels.cpu.seen import bits_equal, largest_seen, look, look_first, nothing_seen
from softmax_dask.kernels.cpu.simd import (
    BFLOAT16,
    HALF,
    Vector,
    bits_above,
    bits_reaching,
    count_bits,
    fill,
    first_reaching,
    fma,
    lane,
    lanes,
    larger,
    largest_lane,
    sum_lanes,
    without_lane,
)

Array = Any
"""A flat array inside compiled code."""


@step
def largest(logits: Array, i: int, stop: int) -> Any:
    """The largest logit; a NaN is passed over, or the largest."""
    return largest_seen(logits, look_at(logits, i, stop, nothing_seen(logits)))


@step
def look_at(logits: Array, i: int, stop: int, seen: Any) -> Any:
    """What was seen (see `seen`), with all logits from i to stop."""
    width = lanes(logits)
    while i + 2 * width <= stop:
        seen = look(logits, i, seen)
        i += 2 * width
    while i < stop:
        seen = look_first(logits, i, min(width, stop - i), seen)
        i += width
    return seen


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
def find(logits: Array, i: int, stop: int, value: float) -> Any:
    """Position of the first logit that reaches `value`, the largest; `stop` if there is none, as where that is NaN."""
    width = lanes(logits)
    i = _near(logits, i, stop, value)
    while i < stop:
        hit = first_reaching(load_first(logits, i, min(width, stop - i)), value)
        if hit < width:
            return i + hit
        i += width
    return stop


def _near(logits: Array, i: int, stop: int, value: float) -> int:
    raise NotImplementedError("compiled code only")


@overload(_near, strict=False)
def _(logits: Any, i: int, stop: int, value: float) -> Any:
    if logits.dtype in (HALF, BFLOAT16):
        return lambda logits, i, stop, value: _near_stored(logits, i, stop, value)
    return lambda logits, i, stop, value: _near_float(logits, i, stop, value)


@step
def _near_float(logits: Array, i: int, stop: int, value: float) -> int:
    """A position from which on the first logit that reaches `value` is near."""
    width = lanes(logits)
    while i + 4 * width <= stop:
        a = larger(load(logits, i), load(logits, i + width))
        b = larger(load(logits, i + 2 * width), load(logits, i + 3 * width))
        if bits_reaching(larger(a, b), value):
            break
        i += 4 * width
    return i


@step
def _near_stored(logits: Array, i: int, stop: int, value: float) -> int:
    """As `_near_float`, of 16-bit floats, which are not decoded."""
    width = 2 * lanes(logits)
    while i + width <= stop:
        if bits_equal(logits, i, value):
            break
        i += width
    return i


@step
def rank(logits: Array, start: int, stop: int, position: int, x: float) -> int:
    """How many classes come before the target at `position`: larger logits, and equal ones of lower classes."""
    width = lanes(logits)
    own = position - (position - start) % width
    block = load_first(logits, own, min(width, stop - own))
    place: int = count_bits(bits_above(block, x) | bits_reaching(block, x) & ((1 << (position - own)) - 1))
    place += _reaching(logits, start, own, x) + _above(logits, own + width, stop, x)
    return place


@step
def next_number(like: Any, x: float, towards: float) -> Any:
    """The next number after x of the lane type of an array or vector."""
    return np.nextafter(x, lane(fill(like, towards), 0))  # of one type: else it would be the next float64


# So many vectors a turn: with one, the turns take longer than the comparisons.
_COMPARED = 4


@step
def _reaching(logits: Array, i: int, stop: int, x: float) -> int:
    """How many logits of whole vectors are not below x.

    Beside `_above`: with the next number for a bar one would do, but it comes from the C library, a call a row.
    """
    count, width = 0, lanes(logits)
    while i + _COMPARED * width <= stop:
        for k in range(_COMPARED):
            count += count_bits(bits_reaching(load(logits, i + k * width), x))
        i += _COMPARED * width
    while i < stop:
        count += count_bits(bits_reaching(load(logits, i), x))
        i += width
    return count


@step
def _above(logits: Array, i: int, stop: int, x: float) -> int:
    """How many logits are above x."""
    count, width = 0, lanes(logits)
    while i + _COMPARED * width <= stop:
        for k in range(_COMPARED):
            count += count_bits(bits_above(load(logits, i + k * width), x))
        i += _COMPARED * width
    while i < stop:
        count += count_bits(bits_above(load_first(logits, i, min(width, stop - i)), x))
        i += width
    return count


class RowBehind(NamedTuple):
    """Exponentials of the row before, which wait for their sum; `behind` has results that want nothing more."""

    at: int
    """where they are in the room,"""
    place: int
    """where they go to in the results"""
    lines: int
    """registers,"""
    rest: int
    """and items after these"""
    factor: float


# So many logits before they are looked at, memory is asked for those of the next row.
_SOON = 1024


# A load waits for a store that is under way where the last 12 bits of both addresses are the same, on many CPUs.
_PAGE_BYTES, _UNDER_WAY_BYTES, _LAG_BYTES = 4096, 384, 1024


@owning_step
def bytes_between(a: Array, b: Array) -> int:
    """From where an array lies in memory to where another one does."""
    return int(b.ctypes.data - a.ctypes.data)


@step
def lag_of_stores(between: int, ahead: int) -> int:
    """By how many bytes stores must fall behind, so that loads do not meet them; whole runs of `exponentials`.

    Loads are `between` bytes after the stores, and `ahead` bytes after that. Arrays of many pages begin at the same
    place of one, so logits of 1000 classes and the results of the row before lie 96 bytes apart: twice the time.
    """
    lag = 0
    for _ in range(2):  # either of the loads can stand in the way of one lag
        first, second = (between + lag) % _PAGE_BYTES, (between + ahead + lag) % _PAGE_BYTES
        if max(first, second) >= _PAGE_BYTES - _UNDER_WAY_BYTES:
            lag += _LAG_BYTES
    return lag


@step
def exponentials(
    logits: Array,
    i: int,
    stop: int,
    ahead: int,
    base: Anchor,
    scale: Scale,
    room: Array,
    at: int,
    behind: RowBehind,
    lag: int,
    out: Array,
    past_caches: bool,
) -> tuple[float, Any, int]:
    """Write exponentials to room[at:]; their sum, and the largest of the logits that lie `ahead`, the next row's.

    Meanwhile the row before becomes probabilities in `out`: memory reads, writes and the arithmetic all go on at once.
    The stores to `out` fall `lag` items behind; returned is how many lines were written, too.
    """
    width, factors, seen = lanes(logits), fill(logits, behind.factor), nothing_seen(logits)
    total, lost = fill(logits, 0.0), fill(logits, 0.0)
    pair, done = 2 * width, 0
    while i < stop:
        a, b = fill(logits, 0.0), fill(logits, 0.0)
        end = min(i + FOLD * pair, stop)
        count = (end - i) // pair * pair
        written = min(count - min(count, lag), (behind.lines * width - done) // pair * pair)
        silent = count - written
        lag -= min(count, lag)
        # Two loops without a branch: what is alive across one does not fit into 16 registers.
        there = ahead, base, scale, room
        seen, a, b = _pairs(logits, i, silent, *there, at, seen, a, b, behind, done, factors, out, past_caches, False)
        i, at = i + silent, at + silent
        seen, a, b = _pairs(logits, i, written, *there, at, seen, a, b, behind, done, factors, out, past_caches, True)
        i, at, done = i + written, at + written, done + written
        while i < end:
            count = min(width, end - i)
            seen = look_first(logits, i + ahead, count, seen)
            x = exponential(load_first(logits, i, count), base, scale)[0]
            store_first(room, at, count, x)
            a, i, at = a + x, i + count, at + count
        total, lost = add_exactly(total, lost, a + b)
    return sum_lanes(total) + sum_lanes(lost), largest_seen(logits, seen), done // width


@step
def _pairs(
    logits: Array,
    i: int,
    count: int,
    ahead: int,
    base: Anchor,
    scale: Scale,
    room: Array,
    at: int,
    seen: Any,
    a: Vector,
    b: Vector,
    behind: RowBehind,
    done: int,
    factors: Vector,
    out: Array,
    past_caches: bool,
    writes: bool,
) -> tuple[Any, Vector, Vector]:
    """Two registers at a time: the largest logits that lie `ahead`, and the sums of `count` exponentials."""
    width = lanes(logits)
    for k in range(0, count, 2 * width):
        x = exponential(load(logits, i + k), base, scale)[0]
        store(room, at + k, x)
        y = exponential(load(logits, i + k + width), base, scale)[0]
        store(room, at + k + width, y)
        a, b = b, a + (x + y)
        prefetch(logits, i + k + ahead + _SOON)
        prefetch(logits, i + k + width + ahead + _SOON)
        seen = look(logits, i + k + ahead, seen)
        if writes:
            write_line(room, behind, done + k, factors, out, past_caches)
            write_line(room, behind, done + k + width, factors, out, past_caches)
    return seen, a, b


@step
def write_line(room: Array, behind: RowBehind, i: int, factors: Vector, out: Array, past_caches: bool) -> None:
    """Items i.. of what lies behind, a register of them."""
    scaled = load(room, behind.at + i) * factors
    if past_caches:
        stream(out, behind.place + i, scaled)
    else:
        prefetch_to_write(out, behind.place + i + 2 * _SOON)
        store(out, behind.place + i, scaled)


@owning_step
def until_whole_line(out: Array, place: int) -> int:
    """Items from out[place] to the next one with which a line of the cache begins."""
    width: int = lanes(out)
    return int(-(out.ctypes.data // out.itemsize + place) % width)


@step
def stream_scaled(values: Array, i: int, stop: int, factor: float, out: Array, place: int, head: int) -> None:
    """out[place:] = values[i:stop] * factor, past the caches but for lines that are shared with what lies beside.

    The first whole line is `head` items on.
    """
    width, factors, head = lanes(out), fill(out, factor), min(head, stop - i)
    store_first(out, place, head, load_first(values, i, head) * factors)
    i, place = i + head, place + head
    while i + width <= stop:
        stream(out, place, load(values, i) * factors)
        i, place = i + width, place + width
    store_first(out, place, stop - i, load_first(values, i, stop - i) * factors)


class Sums(NamedTuple):
    """Of a block."""

    total: float
    """of exponentials,"""
    weight: float
    """of each times its log2,"""
    squares: float
    """and of their squares, if these are wanted"""
    largest: Any
    """logit of those that were added up,"""
    largest_there: Any
    """and of those that were looked at meanwhile"""


class _Carried(NamedTuple):
    """From run to run of a block, a part a lane."""

    squares: Vector
    largest: Vector
    seen: Any


@step
def sums_of_others(
    logits: Array,
    i: int,
    stop: int,
    hole: int,
    there: int,
    there_stop: int,
    ahead: int,
    base: Anchor,
    scale: Scale,
    squared: bool,
) -> Sums:
    """Of a block, but for the logit at `hole`; meanwhile the largest logit is found of what lies `there`.

    That hides in what the arithmetic waits for: a sweep of its own takes a sixth of the time of all.
    """
    zero = fill(logits, 0.0)
    total, lost, weight, run = zero, zero, zero, 2 * FOLD * lanes(logits)
    carried, far = _Carried(zero, fill(logits, -np.inf), nothing_seen(logits)), there
    is_run = there_stop - there >= run
    while i < stop:
        end = min(i + run, stop)
        # Some are looked at twice, where fewer lie there than are added up here.
        beside = min(far, there_stop - (end - i)) - i if is_run else 0
        if i <= hole < end:
            part, heavy, carried = _run_with_hole(logits, i, end, hole, beside, ahead, base, scale, carried, squared)
        else:
            part, heavy, carried = _run(logits, i, end, beside, ahead, base, scale, carried, squared)
        total, lost = add_exactly(total, lost, part)
        weight = weight + heavy
        i, far = end, far + (end - i)
    sums = sum_lanes(total) + sum_lanes(lost), sum_lanes(weight), sum_lanes(carried.squares)
    begin = min(far, there_stop) if is_run else there
    seen = look_at(logits, begin, there_stop, carried.seen if is_run else nothing_seen(logits))
    return Sums(*sums, largest_lane(carried.largest), largest_seen(logits, seen))


@step
def _run(
    logits: Array,
    i: int,
    stop: int,
    beside: int,
    ahead: int,
    base: Anchor,
    scale: Scale,
    carried: _Carried,
    squared: bool,
) -> tuple[Vector, Vector, _Carried]:
    width = lanes(logits)
    a, b = fill(logits, 0.0), fill(logits, 0.0)
    squares, most, seen = carried
    weight, weight_b = a, b
    while i + 2 * width <= stop:
        prefetch(logits, i + ahead)
        prefetch(logits, i + ahead + width)
        seen = look(logits, i + beside, seen)
        x, y = load(logits, i), load(logits, i + width)
        most = larger(most, larger(x, y))
        x, x_log2 = exponential(x, base, scale)
        y, y_log2 = exponential(y, base, scale)
        a, b = b, a + (x + y)
        weight, weight_b = fma(x, x_log2, weight), fma(y, y_log2, weight_b)
        if squared:
            squares = fma(y, y, fma(x, x, squares))
        i += 2 * width
    while i < stop:
        count = min(width, stop - i)
        seen = look_first(logits, i + beside, count, seen)
        x = load_first(logits, i, count)
        most = larger(most, x)
        x, x_log2 = exponential(x, base, scale)
        a, weight = a + x, fma(x, x_log2, weight)
        if squared:
            squares = fma(x, x, squares)
        i += width
    return a + b, weight + weight_b, _Carried(squares, most, seen)


@step
def _run_with_hole(
    logits: Array,
    i: int,
    stop: int,
    hole: int,
    beside: int,
    ahead: int,
    base: Anchor,
    scale: Scale,
    carried: _Carried,
    squared: bool,
) -> tuple[Vector, Vector, _Carried]:
    """As `_run`, with the logit at `hole` taken as -inf."""
    width = lanes(logits)
    a, b = fill(logits, 0.0), fill(logits, 0.0)
    squares, most, seen = carried
    weight, weight_b = a, b
    while i + 2 * width <= stop:
        prefetch(logits, i + ahead)
        prefetch(logits, i + ahead + width)
        seen = look(logits, i + beside, seen)
        x, y = without_lane(load(logits, i), hole - i), without_lane(load(logits, i + width), hole - i - width)
        most = larger(most, larger(x, y))
        x, x_log2 = exponential(x, base, scale)
        y, y_log2 = exponential(y, base, scale)
        a, b = b, a + (x + y)
        weight, weight_b = fma(x, x_log2, weight), fma(y, y_log2, weight_b)
        if squared:
            squares = fma(y, y, fma(x, x, squares))
        i += 2 * width
    while i < stop:
        count = min(width, stop - i)
        seen = look_first(logits, i + beside, count, seen)
        x = without_lane(load_first(logits, i, count), hole - i)
        most = larger(most, x)
        x, x_log2 = exponential(x, base, scale)
        a, weight = a + x, fma(x, x_log2, weight)
        if squared:
            squares = fma(x, x, squares)
        i += width
    return a + b, weight + weight_b, _Carried(squares, most, seen)
