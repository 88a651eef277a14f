"""What was computed goes to memory past the caches, line by line, while what comes next is computed.

Arithmetic and memory take about as long as each other: where a whole block is streamed at once, each waits for the
other. So a block waits in one half of a room, and its lines go out one by one between the steps of the next block,
which is written into the other half. Blocks follow each other in the results, but need not begin with a line of the
cache: what is left of one stands before the next one in its half.
"""

from typing import Any, NamedTuple

import numpy as np

from softmax_dask.kernels.cpu.compile import owning_step, step
from softmax_dask.kernels.cpu.memory import load, settle, store_first, stream
from softmax_dask.kernels.cpu.simd import lanes

Array = Any
"""A flat array inside compiled code."""


class Behind(NamedTuple):
    """Lines that wait in a room, each as long as a register."""

    at: int
    """Position of the first one in the room,"""
    place: int
    """and in the results."""
    lines: int
    left: int
    """Items of a line that stand before each block, but the first one."""
    half: int
    """of the room, in items."""


@owning_step
def nothing_behind(out: Array, block: int) -> Behind:
    """At the beginning; blocks have up to `block` items, and a multiple of a line but for the last one."""
    width = lanes(out)
    return Behind(0, 0, 0, (out.ctypes.data // out.itemsize) % width, block + 2 * width)


@owning_step
def room_for(behind: Behind, like: Array) -> Array:
    """Both halves. After a block a register more may be written."""
    return np.zeros(2 * behind.half, like.dtype)


@step
def place_of_block(behind: Behind) -> int:
    """Where in the room the next block is written."""
    return (behind.half if behind.at < behind.half else 0) + behind.left


@step
def stream_line(room: Array, behind: Behind, k: int, out: Array) -> None:
    """The k-th line that waits, if there are so many. Every step of a block calls this, with 0, 1, 2, ..."""
    if k < behind.lines:
        width = lanes(out)
        stream(out, behind.place + k * width, load(room, behind.at + k * width))


@step
def put_behind(room: Array, behind: Behind, items: int, out: Array, place: int) -> Behind:
    """A block of so many items was written, those of `out` from `place` on; all lines before it were streamed."""
    width, begin = lanes(out), place_of_block(behind)
    whole = (behind.left + items) // width
    if place == 0 and behind.left:  # the first line is whole only with what lies before `out`
        head = width - behind.left
        store_first(out, 0, min(head, items), load(room, begin))
        return Behind(begin + head, head, max(0, whole - 1), behind.left, behind.half)
    store_first(room, begin - behind.left, behind.left, load(room, behind.at + behind.lines * width))
    return Behind(begin - behind.left, place - behind.left, whole, behind.left, behind.half)


@step
def finish_behind(room: Array, behind: Behind, out: Array) -> None:
    """Stream what waits, and what is left at the end; and wait until every other thread would read all of it."""
    for k in range(behind.lines):
        stream_line(room, behind, k, out)
    done = behind.lines * lanes(out)
    store_first(out, behind.place + done, out.size - behind.place - done, load(room, behind.at + done))
    settle()
