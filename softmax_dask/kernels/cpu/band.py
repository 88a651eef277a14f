"""Kernel for a middling number of classes: vectors along the row, and as many rows at a time as a register has lanes.

What each row needs across its lanes, its largest logit and its sum, is found for all rows of a band at once: a register
a row, transposed, is a row a lane. That costs a few instructions a row; reducing each register by itself takes as long
as the exponentials of a short row, and transposing all logits and all results as `tile` does, longer.
"""

from typing import Any

import numpy as np

from softmax_dask.kernels.cpu.behind import (
    Behind,
    finish_behind,
    nothing_behind,
    place_of_block,
    put_behind,
    room_for,
    stream_line,
)
from softmax_dask.kernels.cpu.compile import kernel, step
from softmax_dask.kernels.cpu.exp2 import FOLD, Anchor, Scale, add_exactly, anchor, exponential, one_over_sum, scale_in
from softmax_dask.kernels.cpu.memory import load, load_first, prefetch, prefetch_to_write, store, store_first
from softmax_dask.kernels.cpu.simd import Vector, fill, lane, lanes, larger
from softmax_dask.kernels.cpu.sweeps import largest_lanes
from softmax_dask.kernels.cpu.transpose import load_columns

Array = Any
"""A flat array inside compiled code."""

# Registers a row. Fewer are sooner transposed; of more, too many terms would be added plainly.
_LEAST, _MOST = 4, FOLD


@step
def in_band(classes: int, width: int) -> bool:
    """Whether rows of so many classes are for this kernel, where registers have `width` lanes."""
    return _LEAST * width <= classes <= _MOST * width


@kernel
def softmax_band(
    logits: Array, stride: int, rows: int, classes: int, constants: Array, out: Array, past_caches: bool
) -> None:
    """Fill `out`, (rows * classes,), with probabilities; row i of the logits begins at i * stride."""
    scale = scale_in(constants)
    width, size = lanes(logits), lanes(logits) * classes
    pitch = -(-classes // width) * width
    powers, square = np.zeros(width * pitch, out.dtype), np.empty(width * width, out.dtype)
    columns = np.empty(width * width, out.dtype)
    anchors, factors = np.empty(3 * width, out.dtype), np.empty(width, out.dtype)
    behind = nothing_behind(out, size)
    room = room_for(behind, out)
    for row in range(0, rows, width):
        last, start, place = min(width, rows - row) - 1, row * stride, row * classes
        for i in range(width):
            at = start + min(i, last) * stride
            store(square, i * width, largest_lanes(logits, at, at + classes))
        _store_anchors(_largest(square, columns), scale, anchors)
        for i in range(width):
            at = start + min(i, last) * stride
            line, soon, later = i * pitch // width, width * stride, place + size + i * classes
            part = _exponentials(
                *(logits, at, classes, soon, anchors, i, scale, powers, i * pitch),
                *(room, behind, line, out, later, past_caches),
            )
            store(square, i * width, part)
        store(factors, 0, _one_over_sum(square, columns))
        # Whole registers are stored: what they write past a row belongs to the next one, but at the end of `out`.
        if past_caches:
            _write_band(powers, pitch, factors, last, classes, room, place_of_block(behind), room.size)
            behind = put_behind(room, behind, (last + 1) * classes, out, place)
        else:
            _write_band(powers, pitch, factors, last, classes, out, place, out.size)
    if past_caches:
        finish_behind(room, behind, out)


@step
def _largest(square: Array, columns: Array) -> Vector:
    """The largest lane of each register of a square, a register a lane."""
    width = lanes(square)
    load_columns(square, 0, width, width - 1, width, columns, 0)
    most = load(columns, 0)
    for k in range(1, width):
        most = larger(most, load(columns, k * width))
    return most


@step
def _one_over_sum(square: Array, columns: Array) -> Vector:
    """One over the sum of the lanes of each register of a square, a register a lane."""
    width = lanes(square)
    load_columns(square, 0, width, width - 1, width, columns, 0)
    total, lost = fill(square, 0.0), fill(square, 0.0)
    for k in range(width):
        total, lost = add_exactly(total, lost, load(columns, k * width))
    return one_over_sum(total, lost)


@step
def _store_anchors(peaks: Vector, scale: Scale, anchors: Array) -> None:
    width, base = lanes(anchors), anchor(peaks, scale)
    store(anchors, 0, base.shift)
    store(anchors, width, base.low)
    store(anchors, 2 * width, base.magic)


@step
def _exponentials(
    logits: Array,
    start: int,
    classes: int,
    soon: int,
    anchors: Array,
    i: int,
    scale: Scale,
    powers: Array,
    at: int,
    room: Array,
    behind: Behind,
    line: int,
    out: Array,
    later: int,
    past_caches: bool,
) -> Vector:
    """Write the exponentials of row i of a band; their sums, a lane by itself. Meanwhile stream what lies `behind`."""
    width = lanes(logits)
    magic = _all(anchors, 2 * width + i)
    base = Anchor(_all(anchors, i), _all(anchors, width + i), magic, magic)  # no k: the log2 is not wanted
    part, other = fill(logits, 0.0), fill(logits, 0.0)
    for k in range(0, classes, width):
        prefetch(logits, start + soon + k)
        if past_caches:
            stream_line(room, behind, line + k // width, out)
        else:
            prefetch_to_write(out, later + k)
        x = load(logits, start + k) if k + width <= classes else load_first(logits, start + k, classes - k)
        power = exponential(x, base, scale)[0]
        store(powers, at + k, power)
        part, other = other, part + power
    return part + other


@step
def _write_band(
    powers: Array, pitch: int, factors: Array, last: int, classes: int, out: Array, place: int, stop: int
) -> None:
    width = lanes(out)
    for i in range(last + 1):
        factor = _all(factors, i)
        for k in range(0, classes, width):
            scaled = load(powers, i * pitch + k) * factor
            if place + k + width <= stop:
                store(out, place + k, scaled)
            else:
                store_first(out, place + k, classes - k, scaled)
        place += classes


@step
def _all(array: Array, i: int) -> Vector:
    """array[i] in all lanes."""
    return fill(array, lane(load_first(array, i, 1), 0))
