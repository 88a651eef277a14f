"""Kernel for many classes that keeps the k largest logits of a row apart from its tail.

A row is read twice, from memory once: beside the row before it for a bar that at least k + 1 logits reach, then for the
sums of those below the bar; the few that reach it wait in a pool. In order, these are the k largest, the largest of the
tail, and the rest of it.
Sums of the tail are relative to its own largest logit, so that it keeps its digits however far below the others it
is, and times a power of two they are a part of those of the row: one exponential a class gives the columns of both.
"""

from typing import Any, NamedTuple

import numpy as np

from softmax_dask.kernels.cpu.compile import kernel, step
from softmax_dask.kernels.cpu.exp2 import (
    FOLD,
    Anchor,
    Inverse,
    Scale,
    add_exactly,
    anchor,
    exponential,
    inverse_in,
    scale_in,
)
from softmax_dask.kernels.cpu.finish import Outputs, Waiting, finish_waiting, over_temperature, room_for
from softmax_dask.kernels.cpu.memory import load, load_first, prefetch, store, store_first
from softmax_dask.kernels.cpu.row import compare_target, fill_wide, is_far, moved, with_winner
from softmax_dask.kernels.cpu.simd import (
    Vector,
    bits_reaching,
    fill,
    fma,
    lane,
    lanes,
    larger,
    lowest_bit,
    sum_lanes,
    where_reaching,
)
from softmax_dask.kernels.cpu.sweeps import next_number
from softmax_dask.kernels.cpu.topk import (
    GROUPS,
    Pool,
    bar_among,
    bar_of,
    keep,
    order,
    part_of,
    pool_of,
    ranked_probabilities,
)

Array = Any
"""A flat array inside compiled code."""

# Logits whose weights are added in float32 before float64 takes them.
_BLOCK = 1024

# So many logits before they are looked at, memory is asked for those of the next row.
_SOON = 1024


class RankOutputs(NamedTuple):
    """Arrays of what the kernel finds beside a row's own columns; but for the labels empty where it is not wanted."""

    top_k_labels: Array
    """(rows * k,), int32; as long are"""
    top_k_probabilities: Array
    top_k_log_probabilities: Array
    tail_mass: Array
    """(rows,), and"""
    tail_divergence: Array


@kernel
def tail_row(
    logits: Array,
    stride: int,
    rows: int,
    classes: int,
    k: int,
    constants: Array,
    constants64: Array,
    targets: Array,
    out: tuple[Array, ...],
    ranks: tuple[Array, ...],
    of_tail: tuple[Array, ...],
) -> None:
    """As `decision_row`; k is below classes, and of the tail there is room for the entropy of as many rows as lanes."""
    scale, inverse, inverse64 = scale_in(constants), inverse_in(constants), inverse_in(constants64)
    out, ranks, of_tail = Outputs(*out), RankOutputs(*ranks), Outputs(*of_tail)
    width = lanes(logits)
    waiting, lower = room_for(width, out.confidence.dtype), room_for(width, out.confidence.dtype)
    groups = np.empty(max(2, -(-GROUPS * (k + 1) // width)) * width, out.confidence.dtype)
    pool = pool_of(groups.size + 2 * width, groups.dtype)
    best = pool_of(pool.values.size, groups.dtype)
    kept, masses = np.empty(width * k, groups.dtype), np.empty(width)
    part = part_of(logits, classes, k + 1, 2 * FOLD)
    bar = bar_of(logits, 0, classes, part, k + 1, groups)
    for first in range(0, rows, width):
        count = min(width, rows - first)
        for i in range(count):
            row = first + i
            start, stop, following = row * stride, row * stride + classes, min(row + 1, rows - 1) * stride
            masses[i], bar = _decide(
                logits, start, stop, following, bar, part, k, scale, groups, pool, best, waiting, lower, i, out
            )
            for rank in range(k):
                ranks.top_k_labels[row * k + rank] = best.positions[rank] - start
                kept[i * k + rank] = best.values[rank]
            if targets.size:
                compare_target(logits, start, stop, targets[row], waiting, i, out.target_rank.size > 0)
            fill_wide(logits, start, stop, scale, inverse, waiting, i, out, row * classes)
        finish_waiting(first, count, waiting, scale, inverse64, out)
        finish_waiting(0, count, lower, scale, inverse64, of_tail)
        for i in range(count):
            others = waiting.statistics[1, i]
            _finish_ranks(first + i, i, k, kept, others, scale, inverse, ranks)
            mass = masses[i] / np.float64(waiting.terms[0, i]) / (1.0 + others)
            _finish_tail(first + i, mass, np.log(classes - k) - np.float64(of_tail.entropy[i]), ranks)


@step
def _decide(
    logits: Array,
    start: int,
    stop: int,
    following: int,
    bar: float,
    part: int,
    k: int,
    scale: Scale,
    groups: Array,
    pool: Pool,
    best: Pool,
    waiting: Waiting,
    lower: Waiting,
    i: int,
    out: Outputs,
) -> tuple[float, Any]:
    """Put the largest logits in order; keep the sums of the row and those of its tail, the mass of which is returned
    relative to the anchor of the row. Returned, too, is the bar of the row `following`.
    """
    squared = out.brier.size > 0
    found, total, weight, squares, base = _gather(
        logits, start, stop, following, bar, part, k + 1, scale, groups, pool, best, squared
    )
    next_bar = _bar_of_following(logits, following, stop - start, part, k + 1, groups)
    order(pool, found, found, best)
    if found <= k:  # all others are NaN
        for rank in range(k + 1):
            best.values[rank], best.positions[rank] = np.nan, start
    peak, next_peak = best.values[0], best.values[k]
    base_of_tail, base_of_row = anchor(fill(logits, next_peak), scale), anchor(fill(logits, peak), scale)
    total, lost, weight, squares = moved(total, 0.0, weight, squares, base, base_of_tail, scale)
    some = _sums(best.values, k + 1, found, base_of_tail, scale)
    total, weight, squares = total + some[0], weight + some[1], squares + some[2]
    lower.peak[i], lower.second[i] = next_peak, next_peak
    lower.total[i], lower.weight[i], lower.squares[i] = total, weight, squares
    mass, lost, weight, squares = with_winner(total, lost, weight, squares, logits, next_peak, base_of_tail, scale)
    mass, lost, weight, squares = moved(mass, lost, weight, squares, base_of_tail, base_of_row, scale)
    mass += lost
    some = _sums(best.values, 1, k, base_of_row, scale)
    waiting.peak[i], waiting.second[i], waiting.label[i] = peak, best.values[1], best.positions[0] - start
    waiting.total[i], waiting.weight[i], waiting.squares[i] = mass + some[0], weight + some[1], squares + some[2]
    return mass, next_bar


@step
def _bar_of_following(logits: Array, start: int, classes: int, part: int, k: int, groups: Array) -> Any:
    """The bar of the next row, the maxima of whose groups `_gather` has found, unless its parts are too small."""
    if _is_beside(logits, classes, part):
        return bar_among(groups, -(-classes // part) * lanes(logits), k)
    return bar_of(logits, start, start + classes, part, k, groups)


@step
def _is_beside(like: Array, classes: int, part: int) -> bool:
    """Whether parts of the next row are whole runs of this one."""
    return part >= classes or part % (2 * FOLD * lanes(like)) == 0


@step
def _gather(
    logits: Array,
    start: int,
    stop: int,
    following: int,
    bar: float,
    part: int,
    k: int,
    scale: Scale,
    groups: Array,
    pool: Pool,
    best: Pool,
    squared: bool,
) -> tuple[int, float, float, float, Anchor]:
    """Put into the pool whatever may be among the k largest; how many, and the sums of the others, with their anchor.

    Beside that, the maxima of the groups of the row `following` go to `groups`, where its parts are whole runs.
    """
    base, zero, run = anchor(fill(logits, bar), scale), fill(logits, 0.0), 2 * FOLD * lanes(logits)
    beside, is_beside = following - start, _is_beside(logits, stop - start, part)
    maxima, none, parts, part_stop = _Maxima(zero, zero), fill(logits, -np.inf), 0, start
    total, total_lost, weight, squares, at = 0.0, 0.0, 0.0, 0.0, bar
    count, i = 0, start
    while i < stop:
        sums, lost, weights, of_squares = zero, zero, zero, zero
        end = min(i + _BLOCK, stop)
        while i < end and count <= groups.size:
            if i == part_stop:
                maxima, part_stop = _Maxima(none, none), i + part if is_beside else stop
            i, count, terms, heavy, of_squares, maxima = _gather_run(
                logits,
                i,
                min(i + run, end, part_stop),
                beside,
                bar,
                base,
                scale,
                groups.size,
                pool,
                count,
                of_squares,
                squared,
                maxima,
            )
            if is_beside and i == min(part_stop, stop):
                store(groups, parts, larger(maxima.a, maxima.b))
                parts += lanes(logits)
            sums, lost = add_exactly(sums, lost, terms)
            weights = weights + heavy
        total, total_lost = add_exactly(total, total_lost, sum_lanes(sums) + sum_lanes(lost))
        weight, squares = weight + sum_lanes(weights), squares + sum_lanes(of_squares)
        if count > groups.size:
            order(pool, count, count, best)
            bar = next_number(best.values, best.values[k - 1], np.inf)  # an equal one comes too late
            if is_far(bar, at, scale):
                new = anchor(fill(logits, bar), scale)
                total, total_lost, weight, squares = moved(total, total_lost, weight, squares, base, new, scale)
                base, at = new, bar
            dropped = _sums(best.values, k, count, base, scale)
            total, total_lost = add_exactly(total, total_lost, dropped[0])
            weight, squares = weight + dropped[1], squares + dropped[2]
            keep(best, k, pool)
            count = k
    return count, total + total_lost, weight, squares, base


class _Maxima(NamedTuple):
    """Of the lanes of a part of the next row: the larger of both."""

    a: Vector
    b: Vector


@step
def _gather_run(
    logits: Array,
    i: int,
    stop: int,
    beside: int,
    bar: float,
    base: Anchor,
    scale: Scale,
    limit: int,
    pool: Pool,
    count: int,
    squares: Vector,
    squared: bool,
    maxima: _Maxima,
) -> tuple[int, int, Vector, Vector, Vector, _Maxima]:
    """Up to `stop`, or until the pool has more than `limit`: where that is, how many it has, and parts of the sums."""
    width, bars, none = lanes(logits), fill(logits, bar), fill(logits, -np.inf)
    a, b = fill(logits, 0.0), fill(logits, 0.0)
    weight, weight_b = a, b
    most, most_b = maxima
    while i + 2 * width <= stop and count <= limit:
        prefetch(logits, i + beside + _SOON)
        prefetch(logits, i + beside + _SOON + width)
        most = larger(most, load(logits, i + beside))
        most_b = larger(most_b, load(logits, i + beside + width))
        x, y = load(logits, i), load(logits, i + width)
        hits = bits_reaching(x, bar) | bits_reaching(y, bar) << width
        if hits:
            count = _take(logits, i, hits, pool, count)
        x, x_log2 = exponential(where_reaching(x, bars, none, x), base, scale)
        y, y_log2 = exponential(where_reaching(y, bars, none, y), base, scale)
        a, b = b, a + (x + y)
        weight, weight_b = fma(x, x_log2, weight), fma(y, y_log2, weight_b)
        if squared:
            squares = fma(y, y, fma(x, x, squares))
        i += 2 * width
    while i < stop and count <= limit:
        step = min(width, stop - i)
        most = larger(most, load_first(logits, i + beside, step))
        x = load_first(logits, i, step)
        count = _take(logits, i, bits_reaching(x, bar) & ((1 << step) - 1), pool, count)  # the others are -inf
        x, x_log2 = exponential(where_reaching(x, bars, none, x), base, scale)
        a, weight = a + x, fma(x, x_log2, weight)
        if squared:
            squares = fma(x, x, squares)
        i += step
    return i, count, a + b, weight + weight_b, squares, _Maxima(most, most_b)


@step
def _take(logits: Array, i: int, hits: int, pool: Pool, count: int) -> int:
    while hits:
        position = i + lowest_bit(hits)
        hits &= hits - 1
        pool.values[count], pool.positions[count] = lane(load_first(logits, position, 1), 0), position
        count += 1
    return count


@step
def _sums(values: Array, i: int, stop: int, base: Anchor, scale: Scale) -> tuple[float, float, float]:
    """The sum of exponentials, of each times its log2, and of their squares."""
    width, zero = lanes(values), fill(values, 0.0)
    total, lost, weight, squares = zero, zero, 0.0, 0.0
    while i < stop:
        power, log2 = exponential(load_first(values, i, min(width, stop - i)), base, scale)
        total, lost = add_exactly(total, lost, power)
        weight += sum_lanes(power * log2)
        squares += sum_lanes(power * power)
        i += width
    return sum_lanes(total) + sum_lanes(lost), weight, squares


@step
def _finish_ranks(
    row: int, i: int, k: int, kept: Array, others: float, scale: Scale, inverse: Inverse, out: RankOutputs
) -> None:
    """Of the k largest logits kept[i * k:]: their labels, where there are any, and what else is wanted of them."""
    place = row * k
    if others != others:
        for rank in range(k):
            out.top_k_labels[place + rank] = -1
    if out.top_k_probabilities.size:
        confidence = 1.0 / (1.0 + others)
        ranked_probabilities(kept, i * k, k, scale, confidence, out.top_k_probabilities, place)
    if out.top_k_log_probabilities.size:
        width, peak, log_sum = lanes(kept), fill(kept, kept[i * k]), fill(kept, np.log1p(others))
        for rank in range(0, k, width):
            count = min(width, k - rank)
            gap = load_first(kept, i * k + rank, count) - peak
            log = over_temperature(gap, inverse, 0.0 - log_sum)
            store_first(out.top_k_log_probabilities, place + rank, count, log)


@step
def _finish_tail(row: int, mass: float, missing: float, out: RankOutputs) -> None:
    """Given the entropy that the tail is short of; NaN where there is no tail, and where the row is undecidable."""
    if out.tail_mass.size:
        out.tail_mass[row] = mass
    if out.tail_divergence.size:
        out.tail_divergence[row] = mass * (missing if missing > 0.0 else 0.0)
