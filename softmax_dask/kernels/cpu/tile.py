"""Kernels for few classes: as many rows at a time as a register has lanes, a row a lane.

The rows are transposed into a tile, (classes, lanes), that stays in the first-level cache.
All that a row needs (largest logit, anchor, sums, logarithms) is then one vector for many rows,
and nothing is ever reduced across lanes. Where rows, and not classes, lie next to each other
((N, C, H, W), or an array in Fortran order), nothing needs transposing.
"""

from typing import Any, NamedTuple

import numpy as np

from softmax_dask.kernels.cpu.band import in_band
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
from softmax_dask.kernels.cpu.exp2 import (
    FOLD,
    Anchor,
    Inverse,
    Scale,
    add_exactly,
    anchor,
    exponential,
    inverse_in,
    log1p,
    one_over_sum,
    scale_in,
)
from softmax_dask.kernels.cpu.finish import Outputs, Statistics, finish_rows, over_temperature
from softmax_dask.kernels.cpu.memory import (
    load,
    load_first,
    load_integers,
    load_lanes,
    prefetch,
    prefetch_to_write,
    store,
    store_first,
)
from softmax_dask.kernels.cpu.simd import (
    Vector,
    fill,
    fma,
    lanes,
    larger,
    next_above,
    smaller,
    where_equal,
    where_greater,
    where_reaching,
)
from softmax_dask.kernels.cpu.transpose import load_columns, load_few, store_columns, store_few

Array = Any
"""A flat array inside compiled code."""

# Results ahead whose lines are asked for by hand, to be written.
_AHEAD = 1024
_CACHE_LINE_BYTES = 64
# Up to so many classes, looking at all logits finds the target's sooner than 16 loads from where they lie.
_SEARCHED = 32
# Tiles that are loaded together: half of a first-level cache.
_TILES_BYTES = 16 << 10


Items = tuple[int, ...]
"""Of a `Shape` or of `Strides`, as kernels are given them: to look at a named tuple takes Numba 2 microseconds."""


class Shape(NamedTuple):
    """Of an array of logits or of wide results."""

    groups: int
    rows: int
    """of a group"""
    classes: int


class Strides(NamedTuple):
    """How many items apart they lie; rows or classes are next to each other."""

    group: int
    row: int
    class_: int


@kernel
def softmax_tile(logits: Array, source: Items, shape: Items, constants: Array, out: Array, target: Items) -> None:
    """Fill `out`, of strides `target`, with probabilities of logits of strides `source`."""
    source, shape, target = Strides(*source), Shape(*shape), Strides(*target)
    scale = scale_in(constants)
    width, classes = lanes(logits), shape.classes
    together = _rows_together(logits, classes, out.itemsize)
    tiles = np.empty(together * classes + width * width, out.dtype)
    nothing = Behind(0, 0, 0, 0, 0)
    for group in range(shape.groups):
        for row in range(0, shape.rows, together):
            count = min(together, shape.rows - row)
            _load_tiles(logits, group * source.group + row * source.row, source, count, classes, tiles)
            for i in range(0, count, width):
                at = i * classes
                base = anchor(_largest(tiles, at, classes), scale)
                soon = _ahead(group, row + together + i, source, width)
                later = _ahead(group, row + together + i, target, width)
                factor = _exponentials(tiles, at, classes, base, scale, logits, soon, out, later, tiles, nothing)
                _scale_tile(tiles, at, classes, factor)
            _store_tiles(tiles, out, group * target.group + row * target.row, target, count, classes)


@kernel
def softmax_tile_past_caches(logits: Array, stride: int, rows: int, classes: int, constants: Array, out: Array) -> None:
    """As `softmax_tile`, of rows and into C order; a tile is streamed while the next one is computed."""
    scale = scale_in(constants)
    width, source = lanes(logits), Strides(0, stride, 1)
    together = _rows_together(logits, classes, out.itemsize)
    tiles = np.empty(together * classes + width * width, out.dtype)
    behind = nothing_behind(out, classes * width + width * width)
    room = room_for(behind, out)
    for row in range(0, rows, together):
        count = min(together, rows - row)
        _load_tiles(logits, row * stride, source, count, classes, tiles)
        for i in range(0, count, width):
            at = i * classes
            base = anchor(_largest(tiles, at, classes), scale)
            soon = _ahead(0, row + together + i, source, width)
            factor = _exponentials(tiles, at, classes, base, scale, logits, soon, out, Ahead(0, 0), room, behind)
            _scale_tile(tiles, at, classes, factor)
            store_rows(tiles, at, classes, room, place_of_block(behind), classes)
            behind = put_behind(room, behind, min(width, count - i) * classes, out, (row + i) * classes)
    finish_behind(room, behind, out)


@kernel
def decision_tile(
    logits: Array,
    source: Items,
    shape: Items,
    constants: Array,
    targets: Array,
    out: tuple[Array, ...],
    wide: Items,
) -> None:
    """Fill the columns of `Outputs` that are wanted; `targets` is int64, a class a row, or empty.

    `wide` has the strides of the probabilities, then those of the log-probabilities.
    """
    source, shape, out = Strides(*source), Shape(*shape), Outputs(*out)
    scale, inverse = scale_in(constants), inverse_in(constants)
    strides = Strides(wide[0], wide[1], wide[2]), Strides(wide[3], wide[4], wide[5])
    width, classes = lanes(logits), shape.classes
    together = _rows_together(logits, classes, out.confidence.itemsize)
    tiles = np.empty(together * classes + width * width, out.confidence.dtype)
    block = np.empty((classes + width) * width, out.confidence.dtype)
    for group in range(shape.groups):
        for row in range(0, shape.rows, together):
            count = min(together, shape.rows - row)
            _load_tiles(logits, group * source.group + row * source.row, source, count, classes, tiles)
            for i in range(0, count, width):
                part = Part(group, row + i, min(width, count - i), classes)
                soon = _ahead(group, row + together + i, source, width)
                before = group * shape.rows
                _decide(tiles, i * classes, block, logits, soon, before, part, scale, inverse, targets, out, strides)


class Ahead(NamedTuple):
    """Where the same tile of the next strip lies in memory.

    It is asked for by hand while this one is computed: the hardware's prefetcher does not follow 16 interleaved rows,
    and memory would rest while exponentials are computed, a third of the time of softmax at 100 classes.
    """

    first: int
    apart: int
    """Items from what is asked for beside one class to what is asked for beside the next."""


@step
def _ahead(group: int, row: int, strides: Strides, width: int) -> Ahead:
    apart = width if strides.class_ == 1 else strides.class_
    return Ahead(group * strides.group + row * strides.row, apart)


class Part(NamedTuple):
    """The rows of a tile."""

    group: int
    row: int
    """the first of them in the group,"""
    rows: int
    """and how many there are."""
    classes: int


@step
def _decide(
    tile: Array,
    at: int,
    block: Array,
    logits: Array,
    soon: Ahead,
    before: int,
    part: Part,
    scale: Scale,
    inverse: Inverse,
    targets: Array,
    out: Outputs,
    wide: tuple[Strides, Strides],
) -> None:
    """Fill the columns of the rows of a tile; `before` rows are in the groups before its own."""
    classes, count, row = part.classes, part.rows, before + part.row
    peak, second, label = two_largest(tile, at, classes)
    base = anchor(peak, scale)
    # Two calls, so that the sweep whose squares nobody wants has none.
    if out.brier.size:
        others, weight, squares = sums_of_others(tile, at, classes, label, base, scale, logits, soon, True)
    else:
        others, weight, squares = sums_of_others(tile, at, classes, label, base, scale, logits, soon, False)
    unit, unit_log2 = exponential(peak, base, scale)
    others, weight = others / unit, (weight - others * unit_log2) / unit
    second = exponential(second, base, scale)[0] / unit
    if out.label.size:
        store_first(out.label, row, count, where_equal(others, others, label, -1.0))
    target, gap = fill(peak, np.nan), fill(peak, np.nan)
    if targets.size:
        number = load_integers(logits, targets, row, count - 1)
        logit = _logit_of(tile, at, classes, number)
        target, gap = exponential(logit, base, scale)[0] / unit, peak - logit
        if out.target_rank.size:
            known = gap + others  # NaN without a target, and where the row is undecidable
            rank = where_equal(known, known, _rank(tile, at, classes, number, logit), -1.0)
            store_first(out.target_rank, row, count, rank)
    statistics = Statistics(peak, others, second, weight, squares / (unit * unit), target, gap)
    finish_rows(row, count, statistics, inverse, out)
    if out.probabilities.size:
        probabilities(tile, at, block, classes, base, scale, fill(peak, 1.0) / (unit * (others + 1.0)))
        _store_part(block, out.probabilities, wide[0], part)
    if out.log_probabilities.size:
        _log_probabilities(tile, at, block, classes, peak, log1p(others), inverse)
        _store_part(block, out.log_probabilities, wide[1], part)


# ---- tiles from memory, and back


@step
def _rows_together(logits: Array, classes: int, item_bytes: int) -> Any:
    """Rows of the tiles that are loaded together, so that lines of the cache are read and written whole."""
    width = lanes(logits)
    return max(1, _TILES_BYTES // (classes * width * item_bytes)) * width


@step
def _load_tiles(logits: Array, start: int, strides: Strides, count: int, classes: int, tiles: Array) -> None:
    """Fill `tiles`, one after the other, with the logits of `count` rows from `start` on."""
    width = lanes(logits)
    if strides.class_ == 1:
        for i in range(0, count, width):
            last = min(width, count - i) - 1
            load_tile(logits, start + i * strides.row, strides.row, last, classes, tiles, i * classes)
        return
    for k in range(classes):
        place = start + k * strides.class_
        for i in range(0, count - width + 1, width):
            store(tiles, i * classes + k * width, load(logits, place + i))
        if count % width:
            i = count // width * width
            store(tiles, i * classes + k * width, load_first(logits, place + i, count - i))


@step
def _store_tiles(tiles: Array, out: Array, start: int, strides: Strides, count: int, classes: int) -> None:
    """The way back."""
    width = lanes(tiles)
    if strides.class_ == 1:
        for i in range(0, count, width):
            last = min(width, count - i) - 1
            _store_tile(tiles, i * classes, out, start + i * strides.row, strides.row, classes, last)
        return
    for k in range(classes):
        place = start + k * strides.class_
        for i in range(0, count - width + 1, width):
            store(out, place + i, load(tiles, i * classes + k * width))
        if count % width:
            i = count // width * width
            store_first(out, place + i, count - i, load(tiles, i * classes + k * width))


@step
def store_rows(tile: Array, at: int, classes: int, rows: Array, start: int, pitch: int) -> None:
    """From a row a lane to a row after the other, `pitch` items apart. All lanes, and whole registers of each."""
    width = lanes(tile)
    if classes <= width // 2 and pitch == classes:
        store_few(tile, at, rows, start, classes)
        return
    for begin in range(0, classes, width):
        first = max(0, min(begin, classes - width))
        store_columns(tile, at + first * width, rows, start + first, pitch, width - 1, width)


@step
def _store_part(tile: Array, out: Array, strides: Strides, part: Part) -> None:
    start = part.group * strides.group + part.row * strides.row
    _store_tiles(tile, out, start, strides, part.rows, part.classes)


@step
def load_tile(logits: Array, start: int, stride: int, last: int, classes: int, tile: Array, at: int) -> None:
    """Fill `tile` with the logits of the rows from `start` on, a row a lane; classes are next to each other.

    Whole registers are loaded, without a mask, which many CPUs are slow at. The last one of a row begins earlier,
    or takes in what follows the row; only at the end of the logits there is nothing to take.
    """
    width = lanes(logits)
    if classes <= width // 2 and stride == classes and last == width - 1:
        load_few(logits, start, classes, tile, at)
        return
    whole = last == width - 1 and start + last * stride + max(classes, width) <= logits.size
    for begin in range(0, classes, width):
        column = max(0, min(begin, classes - width))
        if whole:
            load_columns(logits, start + column, stride, width - 1, width, tile, at + column * width)
        else:
            load_columns(logits, start + column, stride, last, min(width, classes - column), tile, at + column * width)


@step
def _store_tile(tile: Array, at: int, out: Array, start: int, stride: int, classes: int, last: int) -> None:
    """The way back. What is written past a row belongs to the next one, which follows."""
    width = lanes(tile)
    if classes <= width // 2 and stride == classes and last == width - 1:
        for k in range(classes):
            prefetch_to_write(out, start + k * width + _AHEAD)
        store_few(tile, at, out, start, classes)
        return
    whole = last == width - 1 and start + last * stride + max(classes, width) <= out.size
    for begin in range(0, classes, width):
        column = max(0, min(begin, classes - width))
        ahead = start + begin * width + _AHEAD
        for line in range(ahead, ahead + width * width, _CACHE_LINE_BYTES // out.itemsize):
            prefetch_to_write(out, line)
        if whole:
            store_columns(tile, at + column * width, out, start + column, stride, width - 1, width)
        else:
            store_columns(tile, at + column * width, out, start + column, stride, last, min(width, classes - column))


# ---- steps


@step
def _largest(tile: Array, at: int, classes: int) -> Vector:
    width = lanes(tile)
    most = fill(tile, -np.inf)
    for k in range(classes):
        most = larger(most, load(tile, at + k * width))
    return most


@step
def two_largest(tile: Array, at: int, classes: int) -> tuple[Vector, Vector, Vector]:
    """Largest and second largest logit (equal on ties), and the lowest class of the largest."""
    width = lanes(tile)
    most = fill(tile, -np.inf)
    second, label, number, one = most, fill(tile, 0.0), fill(tile, 0.0), fill(tile, 1.0)
    for k in range(classes):
        x = load(tile, at + k * width)
        label = where_greater(x, most, number, label)
        second = larger(second, smaller(most, x))
        most = larger(most, x)
        number = number + one  # k in all lanes: to make it of k anew would take five instructions
    return most, second, label


@step
def _exponentials(
    tile: Array,
    at: int,
    classes: int,
    base: Anchor,
    scale: Scale,
    logits: Array,
    soon: Ahead,
    out: Array,
    later: Ahead,
    room: Array,
    behind: Behind,
) -> Vector:
    """Replace the logits of the tile by exponentials; what makes them probabilities, one over their sums.

    Ask for what is read `soon` and written `later`.

    Meanwhile stream what lies `behind`. Sums are added in the order of `softmax_band` where that takes the same rows
    when they are not planes.
    """
    width = lanes(tile)
    total, lost = fill(tile, 0.0), fill(tile, 0.0)
    banded = in_band(classes, width)
    parts, apart = (width, width) if banded else (-(-classes // FOLD), 1)
    for i in range(parts):
        part, other = fill(tile, 0.0), fill(tile, 0.0)
        first, stop = (i, classes) if banded else (i * FOLD, min(i * FOLD + FOLD, classes))
        for k in range(first, stop, apart):
            prefetch(logits, soon.first + k * soon.apart)
            if later.apart:
                prefetch_to_write(out, later.first + k * later.apart)
            stream_line(room, behind, k, out)
            power = exponential(load(tile, at + k * width), base, scale)[0]
            store(tile, at + k * width, power)
            part, other = other, part + power
        total, lost = add_exactly(total, lost, part + other)
    return one_over_sum(total, lost)


@step
def sums_of_others(
    tile: Array,
    at: int,
    classes: int,
    label: Vector,
    base: Anchor,
    scale: Scale,
    logits: Array,
    soon: Ahead,
    squared: bool,
) -> tuple[Vector, Vector, Vector]:
    """Sum of all exponentials but the label's, of each times its log2, and if `squared` of their squares.

    Ask for what is read `soon`.
    """
    width = lanes(tile)
    zero, one = fill(tile, 0.0), fill(tile, 1.0)
    total, lost, weight, weight_lost, squares, number = zero, zero, zero, zero, zero, zero
    for start in range(0, classes, FOLD):
        part, part_weight, part_squares = zero, zero, zero
        for k in range(start, min(start + FOLD, classes)):
            prefetch(logits, soon.first + k * soon.apart)
            power, log2 = exponential(load(tile, at + k * width), base, scale)
            power = where_equal(label, number, zero, power)
            number = number + one
            part = part + power
            part_weight = fma(power, log2, part_weight)
            if squared:
                part_squares = fma(power, power, part_squares)
        total, lost = add_exactly(total, lost, part)
        weight, weight_lost = add_exactly(weight, weight_lost, part_weight)
        squares = squares + part_squares
    return total + lost, weight + weight_lost, squares


@step
def _logit_of(tile: Array, at: int, classes: int, number: Vector) -> Vector:
    """The logit of each row's target; NaN where it is -1."""
    width, zero = lanes(tile), fill(tile, 0.0)
    if classes > _SEARCHED:
        return where_reaching(number, zero, load_lanes(tile, at, larger(zero, number)), fill(tile, np.nan))
    logit, class_, one = fill(tile, np.nan), fill(tile, 0.0), fill(tile, 1.0)
    for k in range(classes):
        logit = where_equal(number, class_, load(tile, at + k * width), logit)
        class_ = class_ + one
    return logit


@step
def _rank(tile: Array, at: int, classes: int, number: Vector, logit: Vector) -> Vector:
    """How many classes come before the target: larger logits, and equal ones of lower classes."""
    width = lanes(tile)
    zero, one, above = fill(tile, 0.0), fill(tile, 1.0), next_above(logit)
    rank, class_ = zero, zero
    for k in range(classes):
        bar = where_greater(number, class_, logit, above)
        rank = rank + where_reaching(load(tile, at + k * width), bar, one, zero)
        class_ = class_ + one
    return rank


@step
def _scale_tile(tile: Array, at: int, classes: int, factor: Vector) -> None:
    width = lanes(tile)
    for k in range(classes):
        store(tile, at + k * width, load(tile, at + k * width) * factor)


@step
def probabilities(tile: Array, at: int, wide: Array, classes: int, base: Anchor, scale: Scale, factor: Vector) -> None:
    """Fill `wide`, which may be the tile, with exponentials times `factor`."""
    width = lanes(tile)
    for k in range(classes):
        store(wide, k * width, exponential(load(tile, at + k * width), base, scale)[0] * factor)


@step
def _log_probabilities(
    tile: Array, at: int, wide: Array, classes: int, peak: Vector, log_sum: Vector, inverse: Inverse
) -> None:
    width = lanes(tile)
    for k in range(classes):
        gap = load(tile, at + k * width) - peak
        store(wide, k * width, over_temperature(gap, inverse, 0.0 - log_sum))
