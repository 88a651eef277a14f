"""Kernels for the Jacobian of softmax, (diag(s) - s s^T) / T: a matrix a row, or a part of it.

The winner w, the class of the largest logit, is kept apart: its complement 1 - s_w is the sum of the others, so
confident rows, where s_w rounds to 1, keep their digits. 1 / T enters as `root`, its square root, once in each of
two factors: neither leaves the range of the dtype before the product does, and the matrix is symmetric to the bit.
"""

from typing import Any, NamedTuple

import numpy as np

from softmax_dask.kernels.cpu.compile import kernel, step
from softmax_dask.kernels.cpu.exp2 import Anchor, Scale, anchor, exponential, scale_in
from softmax_dask.kernels.cpu.memory import load, load_first, prefetch_to_write, settle, store, store_first, stream
from softmax_dask.kernels.cpu.simd import Vector, fill, fma, lane, lanes, where_equal
from softmax_dask.kernels.cpu.sweeps import find, largest, stream_scaled, sums_of_others, until_whole_line
from softmax_dask.kernels.cpu.tile import Ahead, load_tile, probabilities, store_rows, two_largest
from softmax_dask.kernels.cpu.tile import sums_of_others as sums_of_others_of_tile
from softmax_dask.kernels.cpu.transpose import store_columns

Array = Any
"""A flat array inside compiled code."""

_CACHE_LINE_BYTES = 64

# Entries that wait for memory, of lines that follow each other: 16 KiB of float32, within the first-level cache.
_ROOM = 4096

# Entries that were computed last and are not yet streamed: reading them at once would wait for their stores.
_LAG = 256


class Part(NamedTuple):
    """Which entries of each matrix are wanted."""

    first: int
    height: int
    """Classes first..first+height-1 of the probability,"""
    second: int
    breadth: int
    """by classes second..second+breadth-1 of the logit."""


@kernel
def jacobian_row(
    logits: Array,
    stride: int,
    rows: int,
    classes: int,
    constants: Array,
    root: float,
    part: Part,
    out: Array,
    past_caches: bool,
) -> None:
    """Fill `out`, (rows * height * breadth,), along the row; row i of the logits begins at i * stride.

    Past the caches, some lines of a matrix wait in a room of their own: memory takes each entry once, and no cache
    line of `out` need be read in order to be written.
    """
    scale = scale_in(constants)
    shares = np.zeros(classes + lanes(logits), out.dtype)  # s * root; whole vectors are read at its end
    lines = max(1, _ROOM // part.breadth) if past_caches else part.height
    room = np.empty(lines * part.breadth + lanes(logits) if past_caches else 0, out.dtype)
    for row in range(rows):
        start = row * stride
        winner, rest = _shares(logits, start, start + classes, stride, scale, root, shares)
        for line in range(0, part.height, lines):
            count = min(lines, part.height - line)
            some = Part(part.first + line, count, part.second, part.breadth)
            place = (row * part.height + line) * part.breadth
            if past_caches:
                _write_lines(shares, winner, rest, root, some, room, 0)
                stream_scaled(room, 0, count * part.breadth, 1.0, out, place, until_whole_line(out, place))
            else:
                _write_lines(shares, winner, rest, root, some, out, place)
    if past_caches:
        settle()


@kernel
def jacobian_tile(
    logits: Array,
    stride: int,
    rows: int,
    classes: int,
    constants: Array,
    root: float,
    part: Part,
    out: Array,
    past_caches: bool,
) -> None:
    """As `jacobian_row`, for very few classes: as many rows at a time as a register has lanes, a row a lane.

    Always through the caches: computing an entry takes longer than writing it.
    """
    scale = scale_in(constants)
    width, size = lanes(logits), part.height * part.breadth
    tile = np.empty((classes + width) * width, out.dtype)
    block = np.empty((size + width) * width, out.dtype)
    for row in range(0, rows, width):
        last = min(width, rows - row) - 1
        load_tile(logits, row * stride, stride, last, classes, tile, 0)
        winner, rest = _shares_of_tile(tile, classes, scale, root)
        _multiply_shares(tile, winner, rest, fill(tile, root), part, block)
        _write_matrices(block, size, out, row, last)


@kernel
def jacobian_lines(
    logits: Array,
    stride: int,
    rows: int,
    classes: int,
    constants: Array,
    root: float,
    part: Part,
    out: Array,
    past_caches: bool,
) -> None:
    """As `jacobian_row`, for few classes: their shares as in `jacobian_tile`, then a matrix after the other.

    What is computed goes to memory a few vectors at a time, not a room at once: memory and arithmetic take about as
    long, and neither waits for the other.
    """
    scale = scale_in(constants)
    width, size, pitch = lanes(logits), part.height * part.breadth, classes + lanes(logits)
    tile = np.empty((classes + width) * width, out.dtype)
    shares, complements = np.zeros((width + 1) * pitch, out.dtype), np.zeros((width + 1) * pitch, out.dtype)
    numbers = np.arange(pitch).astype(out.dtype)
    together = max(1, _ROOM // (width * size)) * width
    room = np.empty(together * size + width, out.dtype)
    for start in range(0, rows, together):
        stop = min(start + together, rows)
        # Whole vectors are stored: what they write past a line belongs to the next one, but at the end of `out`.
        through_room = past_caches or stop * size + width > out.size
        done, head = 0, until_whole_line(out, start * size)
        for row in range(start, stop, width):
            last = min(width, rows - row) - 1
            load_tile(logits, row * stride, stride, last, classes, tile, 0)
            winner, rest = _shares_of_tile(tile, classes, scale, root)
            store_rows(tile, 0, classes, shares, 0, pitch)
            _complements_of_tile(tile, classes, winner, rest, root)
            store_rows(tile, 0, classes, complements, 0, pitch)
            for i in range(last + 1):
                if through_room:
                    _write_matrix(shares, complements, numbers, i * pitch, part, room, (row - start + i) * size)
                else:
                    _write_matrix(shares, complements, numbers, i * pitch, part, out, (row + i) * size)
                if past_caches:
                    done = _stream_ready(room, done, (row - start + i + 1) * size - _LAG, head, out, start * size)
        if past_caches:
            stream_scaled(room, done, (stop - start) * size, 1.0, out, start * size + done, 0 if done else head)
        elif through_room:
            _copy(room, (stop - start) * size, out, start * size)
    if past_caches:
        settle()


@step
def _copy(room: Array, count: int, out: Array, place: int) -> None:
    """out[place:] = room[:count], wherever `out` lies: nothing is streamed between items of memory."""
    width = lanes(out)
    for i in range(0, count, width):
        store_first(out, place + i, min(width, count - i), load(room, i))


@step
def _complements_of_tile(tile: Array, classes: int, winner: Vector, rest: Vector, root: float) -> None:
    """Replace s * root by (1 - s) * root."""
    width = lanes(tile)
    for k in range(classes):
        others = fill(tile, root) - load(tile, k * width)
        store(tile, k * width, where_equal(winner, fill(tile, float(k)), rest, others))


@step
def _write_matrix(
    shares: Array, complements: Array, numbers: Array, at: int, part: Part, out: Array, place: int
) -> None:
    """The entries of one matrix, from the shares and complements of its row."""
    width, column = lanes(out), at + part.second
    if part.breadth <= width:  # everything but a line's own share stays in registers
        number, complement, share = load(numbers, part.second), load(complements, column), load(shares, column)
        for j in range(part.first, part.first + part.height):
            store(out, place, _entries(shares, at, j, number, complement, share))
            place += part.breadth
    else:
        for j in range(part.first, part.first + part.height):
            for k in range(0, part.breadth, width):
                number, complement = load(numbers, part.second + k), load(complements, column + k)
                store(out, place + k, _entries(shares, at, j, number, complement, load(shares, column + k)))
            place += part.breadth


@step
def _entries(shares: Array, at: int, j: int, number: Vector, complement: Vector, share: Vector) -> Vector:
    """Of line j: its share times the complement where the line and the column are one class, else times -share."""
    zero, own = fill(share, 0.0), fill(share, lane(load_first(shares, at + j, 1), 0))
    return fma(own, where_equal(number, fill(share, float(j)), complement, zero - share), zero)  # plus 0: never -0


@step
def _stream_ready(room: Array, done: int, ready: int, head: int, out: Array, place: int) -> int:
    """Stream what is `ready` of a room and not `done`; how far it is done then. From `head` on, lines are whole."""
    width = lanes(out)
    if done < head <= ready:
        store_first(out, place, head, load_first(room, 0, head))
        done = head
    while head <= done and done + width <= ready:
        stream(out, place + done, load(room, done))
        done += width
    return done


@step
def _shares(
    logits: Array, start: int, stop: int, ahead: int, scale: Scale, root: float, shares: Array
) -> tuple[int, float]:
    """Fill `shares` with s * root; the winner, and (1 - s) * root of it."""
    base, winner, unit = find_winner(logits, start, stop, scale)
    others = sums_of_others(logits, start, stop, winner, stop, stop, ahead, base, scale, False).total / unit
    factor = fill(logits, root / (unit * (1.0 + others)))
    width = lanes(logits)
    for i in range(start, stop, width):
        count = min(width, stop - i)
        store_first(shares, i - start, count, exponential(load_first(logits, i, count), base, scale)[0] * factor)
    return winner - start, others / (1.0 + others) * root


@step
def find_winner(logits: Array, start: int, stop: int, scale: Scale) -> tuple[Anchor, int, float]:
    """The row's anchor, the position of its largest logit, and the exponential of that."""
    peak = largest(logits, start, stop)
    base = anchor(fill(logits, peak), scale)
    winner = min(find(logits, start, stop, peak), stop - 1)  # a row of NaN has none
    return base, winner, np.float64(lane(exponential(fill(logits, peak), base, scale)[0], 0))


@step
def _shares_of_tile(tile: Array, classes: int, scale: Scale, root: float) -> tuple[Vector, Vector]:
    """Replace the logits of the tile by s * root; the winners, and (1 - s) * root of these."""
    peak, _, winner = two_largest(tile, 0, classes)
    base = anchor(peak, scale)
    unit = exponential(peak, base, scale)[0]
    others = sums_of_others_of_tile(tile, 0, classes, winner, base, scale, tile, Ahead(0, 0), False)[0] / unit
    roots, total = fill(peak, root), others + 1.0
    probabilities(tile, 0, tile, classes, base, scale, roots / (unit * total))
    return winner, others / total * roots


@step
def _multiply_shares(shares: Array, winner: Vector, rest: Vector, roots: Vector, part: Part, block: Array) -> None:
    """Fill `block` with the entries of the matrices of a tile, entry by entry for all its rows."""
    width, place = lanes(shares), 0
    zero = fill(shares, 0.0)
    for j in range(part.first, part.first + part.height):
        share = load(shares, j * width)
        line = place
        for k in range(part.second, part.second + part.breadth):
            product = fma(share, zero - load(shares, k * width), zero)  # plus 0: a masked class has 0, not -0
            store(block, place, product)
            place += width
        if part.second <= j < part.second + part.breadth:
            complement = where_equal(winner, fill(share, float(j)), rest, roots - share)
            store(block, line + (j - part.second) * width, share * complement)


@step
def _write_matrices(block: Array, size: int, out: Array, row: int, last: int) -> None:
    """From entries of all rows of a tile to a matrix a row, of `size` entries, a register of them at a time.

    Whole registers are stored, without a mask, which many CPUs are slow at: what a small matrix's writes past its end
    belongs to the next ones, which follow. Only at the end of `out` there are none.
    """
    width = lanes(block)
    whole = last == width - 1 and (row + last) * size + max(size, width) <= out.size
    for begin in range(0, size, width):
        entry = max(0, min(begin, size - width))  # the last register begins earlier, so that it is full
        ahead = (row + width) * size + begin * width  # of the next tile's matrices
        for line in range(ahead, min(ahead + width * width, out.size), _CACHE_LINE_BYTES // out.itemsize):
            prefetch_to_write(out, line)
        if whole:
            store_columns(block, entry * width, out, row * size + entry, size, width - 1, width)
        else:
            store_columns(block, entry * width, out, row * size + entry, size, last, min(width, size - entry))


@step
def _write_lines(shares: Array, winner: int, rest: float, root: float, part: Part, out: Array, place: int) -> None:
    """The entries of one matrix, or of some lines of it, from its shares.

    Whole vectors are stored: what they write past a line belongs to the next one, which follows. Only at the end of
    `out` is the store masked, which many CPUs are slow at.
    """
    width = lanes(out)
    whole = (part.breadth + width - 1) // width * width
    for j in range(part.first, part.first + part.height):
        line = place + (j - part.first) * part.breadth
        share = shares[j]
        if line + whole > out.size:
            _write_last_line(shares, part.second, share, part.breadth, out, line)
        else:
            for k in range(0, part.breadth, width):
                store(out, line + k, _product(shares, part.second + k, share))
        if part.second <= j < part.second + part.breadth:
            complement = rest if j == winner else root - share
            out[line + j - part.second] = share * complement


@step
def _write_last_line(shares: Array, i: int, share: float, breadth: int, out: Array, line: int) -> None:
    width = lanes(out)
    for k in range(0, breadth, width):
        store_first(out, line + k, min(width, breadth - k), _product(shares, i + k, share))


@step
def _product(shares: Array, i: int, share: float) -> Vector:
    return fma(load(shares, i), fill(shares, -share), fill(shares, 0.0))  # plus 0: a masked class has 0, not -0
