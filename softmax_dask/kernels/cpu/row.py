"""Kernels for many classes: vectors along the row.

A row is read once, in blocks that fit the first-level cache: the largest logit of a block, beside the sums of the block
before, then its own sums, relative to the largest logit so far. A new largest logit multiplies the old sums by a
power of two, which is exact. Statistics of several rows are gathered and finished together,
in float64: a logarithm a row would cost as much as a short row.
"""

from typing import Any

import numpy as np

from softmax_dask.kernels.cpu.compile import kernel, step
from softmax_dask.kernels.cpu.exp2 import Anchor, Inverse, Scale, add_exactly, anchor, exponential, inverse_in, scale_in
from softmax_dask.kernels.cpu.finish import Outputs, Waiting, finish_waiting, over_temperature, room_for
from softmax_dask.kernels.cpu.memory import load, load_first, settle, store_first, stream
from softmax_dask.kernels.cpu.simd import fill, lane, lanes
from softmax_dask.kernels.cpu.sweeps import (
    RowBehind,
    bytes_between,
    exponentials,
    find,
    lag_of_stores,
    largest,
    rank,
    sums_of_others,
    until_whole_line,
    write_line,
)

Array = Any
"""A flat array inside compiled code."""

# Logits that are scanned twice, for the largest and for the sums: 4 KiB of float32, well inside the first-level cache.
_BLOCK = 1024


@kernel
def softmax_row(
    logits: Array, stride: int, rows: int, classes: int, constants: Array, out: Array, past_caches: bool
) -> None:
    """Fill `out`, (rows * classes,), with probabilities; row i of the logits begins at i * stride.

    Past the caches, exponentials wait in a room of their own until memory takes each result once, and no line
    of `out` need be read in order to be written: a third less traffic.
    """
    scale = scale_in(constants)
    width = lanes(logits)
    half = classes + 3 * width
    room = np.empty(2 * half, out.dtype) if past_caches else out
    head, apart = until_whole_line(out, 0), bytes_between(out, logits)
    behind, peak = RowBehind(0, 0, 0, 0, 0.0), largest(logits, 0, classes)
    for row in range(rows):
        start, place = row * stride, row * classes
        ahead = stride if row + 1 < rows else 0
        at = row % 2 * half + width if past_caches else place
        base = anchor(fill(logits, peak), scale)
        between = apart + start * logits.itemsize - behind.place * out.itemsize
        lag = lag_of_stores(between, ahead * logits.itemsize) // out.itemsize
        total, peak, written = exponentials(
            logits, start, start + classes, ahead, base, scale, room, at, behind, lag, out, past_caches
        )
        _write_lines(room, behind, written, out, past_caches)
        if past_caches:
            behind = _stream_first_line(room, behind, at, classes, 1.0 / total, out, place, head)
        else:
            _write_rest(room, behind, out)
            behind = RowBehind(at, place, classes // width, classes % width, 1.0 / total)
    _write_lines(room, behind, 0, out, past_caches)
    _write_rest(room, behind, out)
    settle()


@step
def _write_lines(room: Array, behind: RowBehind, done: int, out: Array, past_caches: bool) -> None:
    """The lines of a row but for the first ones, `done`, which were written beside the next row."""
    width, factors = lanes(out), fill(out, behind.factor)
    for k in range(done, behind.lines):
        write_line(room, behind, k * width, factors, out, past_caches)


@step
def _write_rest(room: Array, behind: RowBehind, out: Array) -> None:
    """What is left of a row after its lines."""
    done = behind.lines * lanes(out)
    rest = load_first(room, behind.at + done, behind.rest) * fill(out, behind.factor)
    store_first(out, behind.place + done, behind.rest, rest)


@step
def _stream_first_line(
    room: Array, behind: RowBehind, at: int, classes: int, factor: float, out: Array, place: int, head: int
) -> RowBehind:
    """What is behind now: a row, of which the first line goes out at once, with what is left of the row before.

    So every line is streamed whole. The first row has none before it, and its line `head` items.
    """
    width, factors = lanes(out), fill(out, factor)
    if place == 0:
        store_first(out, 0, head, load(room, at) * factors)
    else:
        left = behind.rest
        head = width - left
        rest = load(room, behind.at + behind.lines * width) * fill(out, behind.factor)
        store_first(room, at - left, left, rest)
        store_first(room, at, head, load(room, at) * factors)
        stream(out, place - left, load(room, at - left))
    return RowBehind(at + head, place + head, (classes - head) // width, (classes - head) % width, factor)


@kernel
def decision_row(
    logits: Array,
    stride: int,
    rows: int,
    classes: int,
    constants: Array,
    constants64: Array,
    targets: Array,
    out: tuple[Array, ...],
) -> None:
    """Fill the columns of `Outputs` that are wanted; `targets` is int64, (rows,), or empty."""
    scale, inverse, inverse64 = scale_in(constants), inverse_in(constants), inverse_in(constants64)
    out = Outputs(*out)
    width = lanes(logits)
    waiting = room_for(width, out.confidence.dtype)
    peak = largest(logits, 0, min(classes, _BLOCK))
    for first in range(0, rows, width):
        count = min(width, rows - first)
        for i in range(count):
            row = first + i
            start, place = row * stride, row * classes
            stop, following = start + classes, min(row + 1, rows - 1) * stride
            if out.brier.size:
                peak = _decide(logits, start, stop, stride, peak, following, scale, waiting, i, True)
            else:
                peak = _decide(logits, start, stop, stride, peak, following, scale, waiting, i, False)
            if targets.size:
                compare_target(logits, start, stop, targets[row], waiting, i, out.target_rank.size > 0)
            fill_wide(logits, start, stop, scale, inverse, waiting, i, out, place)
        finish_waiting(first, count, waiting, scale, inverse64, out)


@step
def _decide(
    logits: Array,
    start: int,
    stop: int,
    stride: int,
    largest_here: float,
    following: int,
    scale: Scale,
    waiting: Waiting,
    i: int,
    squared: bool,
) -> Any:
    """Find the row's largest logits and its sums; that of squares if `squared`.

    `largest_here` is the largest of its first block; returned is that of the row `following`. Each block's is found
    beside the sums of the one before.
    """
    ahead = 2 * (stride if stop - start <= _BLOCK else _BLOCK)
    peak, second, winner = -np.inf, -np.inf, start
    total, lost, weight, squares = 0.0, 0.0, 0.0, 0.0
    base, at = anchor(fill(logits, -np.inf), scale), peak
    for block in range(start, stop, _BLOCK):
        end = min(block + _BLOCK, stop)
        hole = -1
        if largest_here > peak:
            if block > start:
                total, lost, weight, squares = with_winner(total, lost, weight, squares, logits, peak, base, scale)
            if is_far(largest_here, at, scale):
                new = anchor(fill(logits, largest_here), scale)
                total, lost, weight, squares = moved(total, lost, weight, squares, base, new, scale)
                base, at = new, largest_here
            second, peak = peak, largest_here
            winner = find(logits, block, end, peak)
            hole = winner
        there, row_stop = (end, stop) if end < stop else (following, following + (stop - start))
        there_stop = min(there + _BLOCK, row_stop)
        found = sums_of_others(logits, block, end, hole, there, there_stop, ahead, base, scale, squared)
        total, lost = add_exactly(total, lost, found.total)  # a plain sum of 244 blocks is not within 8 eps of float64
        weight, squares = weight + found.weight, squares + found.squares
        second, largest_here = max(second, found.largest), found.largest_there
    if at < peak:
        new = anchor(fill(logits, peak), scale)
        total, lost, weight, squares = moved(total, lost, weight, squares, base, new, scale)
    waiting.peak[i], waiting.second[i], waiting.label[i] = peak, second, winner - start
    waiting.total[i], waiting.weight[i], waiting.squares[i] = total + lost, weight, squares
    return largest_here


@step
def with_winner(
    total: float, lost: float, weight: float, squares: float, like: Any, peak: float, base: Anchor, scale: Scale
) -> tuple[float, float, float, float]:
    """The sums with the term of the winner so far, which a larger logit follows."""
    power, log2 = _exponential(like, peak, base, scale)
    total, lost = add_exactly(total, lost, power)
    return total, lost, weight + power * log2, squares + power * power


# An anchor stays until an exponential is 2^2 times that of its logit: far from it, weights lose digits.
_FAR_LOG2 = 2.0


@step
def is_far(x: float, at: float, scale: Scale) -> bool:
    """Whether the sums are to be relative to the logit x, and no longer to that `at`.

    Beyond what an integer holds a change is rounded, and a row may have a larger logit in each of its blocks.
    """
    return bool(np.float64(x) - np.float64(at) > _FAR_LOG2 / np.float64(scale.a_hi))


@step
def moved(
    total: float, lost: float, weight: float, squares: float, base: Anchor, new: Anchor, scale: Scale
) -> tuple[float, float, float, float]:
    """The sums relative to another anchor: times a power of two, which is exact."""
    if total > 0.0:
        a = np.float64(scale.a_hi) + np.float64(scale.a_lo)
        shift = np.float64(lane(base.shift, 0)) - np.float64(lane(new.shift, 0))
        steps = shift * a + (np.float64(lane(base.k, 0)) - np.float64(lane(new.k, 0)))
        factor = 2.0**steps
        weight, squares = (weight + total * steps) * factor, squares * factor * factor
        total, lost = total * factor, lost * factor
    return total, lost, weight, squares


@step
def compare_target(logits: Array, start: int, stop: int, target: int, waiting: Waiting, i: int, ranked: bool) -> None:
    """Keep the logit of the target, and if `ranked` its rank."""
    waiting.target[i] = np.nan
    if target >= 0:
        position = start + target
        x = lane(load_first(logits, position, 1), 0)
        waiting.target[i] = x
        if ranked:
            waiting.rank[i] = 0.0 if target == waiting.label[i] else rank(logits, start, stop, position, x)


@step
def fill_wide(
    logits: Array,
    start: int,
    stop: int,
    scale: Scale,
    inverse: Inverse,
    waiting: Waiting,
    i: int,
    out: Outputs,
    place: int,
) -> None:
    """Fill the wide columns that are wanted, of a row whose sums are known."""
    if out.probabilities.size:
        _probabilities(logits, start, stop, scale, waiting, i, out.probabilities, place)
    if out.log_probabilities.size:
        _log_probabilities(logits, start, stop, scale, inverse, waiting, i, out.log_probabilities, place)


@step
def _exponential(like: Any, x: float, base: Anchor, scale: Scale) -> tuple[float, float]:
    """As `exponential`, of one logit."""
    power, log2 = exponential(fill(like, x), base, scale)
    return np.float64(lane(power, 0)), np.float64(lane(log2, 0))


@step
def _probabilities(
    logits: Array, start: int, stop: int, scale: Scale, waiting: Waiting, row: int, out: Array, place: int
) -> None:
    width = lanes(logits)
    base = anchor(fill(logits, waiting.peak[row]), scale)
    unit = _exponential(logits, waiting.peak[row], base, scale)[0]
    factor = fill(logits, 1.0 / (unit * (1.0 + waiting.total[row] / unit)))
    for i in range(start, stop, width):
        count = min(width, stop - i)
        power = exponential(load_first(logits, i, count), base, scale)[0]
        store_first(out, place + i - start, count, power * factor)


@step
def _log_probabilities(
    logits: Array,
    start: int,
    stop: int,
    scale: Scale,
    inverse: Inverse,
    waiting: Waiting,
    row: int,
    out: Array,
    place: int,
) -> None:
    width = lanes(logits)
    peak = fill(logits, waiting.peak[row])
    unit = _exponential(logits, waiting.peak[row], anchor(peak, scale), scale)[0]
    log_sum = fill(logits, np.log1p(waiting.total[row] / unit))
    for i in range(start, stop, width):
        count = min(width, stop - i)
        gap = load_first(logits, i, count) - peak
        store_first(out, place + i - start, count, over_temperature(gap, inverse, 0.0 - log_sum))
