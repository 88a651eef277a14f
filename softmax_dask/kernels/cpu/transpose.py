"""Rows into a tile, a row a lane, and back: as many rows as a register has lanes."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from softmax_dask.kernels.cpu.memory import address_of, clamped, masked_load, masked_store, whole_load, whole_store
from softmax_dask.kernels.cpu.simd import I32, I64, Vec, lane_dtype


def _transpose(builder: Any, rows: list[Any]) -> list[Any]:
    """n vectors of n lanes, transposed: as blocks of 128 bits a lane, then within each of these.

    Shuffles within 128 bits are the cheapest there are; without AVX-512 others take two instructions.
    """
    count = len(rows)
    block = 128 // (32 if isinstance(rows[0].type.element, ir.FloatType) else 64)
    distance = count // 2
    while distance >= block:
        rows = _swap_blocks(builder, rows, distance)
        distance //= 2
    groups = [rows[i : i + block] for i in range(0, count, block)]
    return [row for group in groups for row in _transpose_blocks(builder, group)]


def _swap_blocks(builder: Any, rows: list[Any], distance: int) -> list[Any]:
    """Of rows i and i + distance: the right halves of the one's blocks for the left halves of the other's."""
    count = len(rows)
    swapped = list(rows)
    left = [k if not k & distance else count + k - distance for k in range(count)]
    right = [k + distance if not k & distance else count + k for k in range(count)]
    for i in range(count):
        if not i & distance:
            pair = (rows[i], rows[i + distance])
            swapped[i], swapped[i + distance] = (_shuffle(builder, *pair, picks) for picks in (left, right))
    return swapped


def _transpose_blocks(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose within 128 bits, as many rows as lanes there: rounds of a perfect shuffle of the pairs (i, i + n/2)."""
    count, size = rows[0].type.count, len(rows)
    half = size // 2
    low = [start + k // 2 + (k % 2) * count for start in range(0, count, size) for k in range(size)]
    high = [pick + half for pick in low]
    for _ in range(size.bit_length() - 1):
        pairs = [(rows[i], rows[i + half]) for i in range(half)]
        rows = [_shuffle(builder, *pair, picks) for pair in pairs for picks in (low, high)]
    return rows


def _shuffle(builder: Any, x: Any, y: Any, picks: list[int]) -> Any:
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(picks)), picks))


def _row_address(context: Any, builder: Any, array_type: Any, array: Any, start: Any, stride: Any, row: Any) -> Any:
    return address_of(context, builder, array_type, array, builder.add(start, builder.mul(row, stride)))


def _addresses(context: Any, builder: Any, array_type: Any, array: Any, start: Any, lanes: int) -> Callable[[int], Any]:
    """Where the i-th register from array[start] on lies."""
    return lambda i: address_of(context, builder, array_type, array, builder.add(start, ir.Constant(I64, i * lanes)))


@intrinsic
def load_columns(
    typing: Any, source: Any, start: Any, stride: Any, last: Any, columns: Any, tile: Any, place: Any
) -> Any:
    """tile[place + c*n + r] = source[start + min(r, last)*stride + c] for n rows r and c < columns <= n.

    Rows past the end repeat the last one, so no lane is ever masked out; columns past the end are -inf.
    """
    count = Vec(lane_dtype(source)).lanes

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, start, stride, last, columns, tile_array, place = args
        rows = []
        for row in range(count):
            address = _row_address(context, builder, source, array, start, stride, clamped(builder, row, last))
            rows.append(masked_load(context, builder, source, address, columns))
        column = _addresses(context, builder, tile, tile_array, place, count)
        for k, vector in enumerate(_transpose(builder, rows)):
            whole_store(builder, tile, column(k), vector)
        return context.get_dummy_value()

    index = types.intp
    return types.none(source, index, index, index, index, tile, index), generate


@intrinsic
def store_columns(
    typing: Any, tile: Any, place: Any, target: Any, start: Any, stride: Any, last: Any, columns: Any
) -> Any:
    """The way back, for rows r <= last: target[start + r*stride + c] = tile[place + c*n + r]."""
    count = Vec(tile.dtype).lanes

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        tile_array, place, array, start, stride, last, columns = args
        column = _addresses(context, builder, tile, tile_array, place, count)
        loaded = [whole_load(context, builder, tile, column(k)) for k in range(count)]
        for row, value in enumerate(_transpose(builder, loaded)):
            number = ir.Constant(I64, row)
            address = _row_address(context, builder, target, array, start, stride, number)
            wanted = builder.select(builder.icmp_signed("<=", number, last), columns, ir.Constant(I64, 0))
            masked_store(builder, target, address, wanted, value)
        return context.get_dummy_value()

    index = types.intp
    return types.none(tile, index, target, index, index, index, index), generate


# ---- few classes: registers of rows that follow each other are taken apart lane by lane, and not as a square


def _gathered(builder: Any, sources: list[Any], picks: list[tuple[int, int]]) -> Any:
    """A vector of lanes of several, each given as (source, lane)."""
    count = len(picks)
    gathered = sources[0]
    chosen = [lane if source == 0 else 0 for source, lane in picks]
    for number, source in enumerate(sources[1:], 1):
        chosen = [count + pick[1] if pick[0] == number else old for pick, old in zip(picks, chosen, strict=True)]
        gathered = _shuffle(builder, gathered, source, chosen)
        chosen = list(range(count))
    return gathered


def _for_each_few(builder: Any, lanes: int, classes: Any, generate: Callable[[int], None]) -> None:
    """Code for every number of classes up to half of the lanes, of which one runs."""
    end = builder.append_basic_block("few_end")
    choice = builder.switch(classes, end)
    for few in range(1, lanes // 2 + 1):
        block = builder.append_basic_block(f"few_{few}")
        choice.add_case(few, block)
        builder.position_at_end(block)
        generate(few)
        builder.branch(end)
    builder.position_at_end(end)


def _regroup(
    context: Any,
    builder: Any,
    lanes: int,
    classes: Any,
    source: tuple[Any, Any, Any],
    target: tuple[Any, Any, Any],
    pick: Callable[[int, int], tuple[int, int]],
) -> None:
    """As many registers as classes from one array to another.

    The n-th number comes from register and lane `pick(n, classes)`. An array is given as its type, itself,
    and where its registers begin.
    """
    read, write = (_addresses(context, builder, *array, lanes) for array in (source, target))

    def generate(few: int) -> None:
        registers = [whole_load(context, builder, source[0], read(i)) for i in range(few)]
        for i in range(few):
            picks = [pick(i * lanes + lane, few) for lane in range(lanes)]
            whole_store(builder, target[0], write(i), _gathered(builder, registers, picks))

    _for_each_few(builder, lanes, classes, generate)


@intrinsic
def load_few(typing: Any, source: Any, start: Any, classes: Any, tile: Any, place: Any) -> Any:
    """tile[place + c*n + r] = source[start + r*classes + c] for n rows r of up to n / 2 classes c."""
    lanes = Vec(lane_dtype(source)).lanes

    def from_rows(n: int, few: int) -> tuple[int, int]:
        return divmod(n % lanes * few + n // lanes, lanes)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, start, classes, tile_array, place = args
        rows, columns = (source, array, start), (tile, tile_array, place)
        _regroup(context, builder, lanes, classes, rows, columns, from_rows)
        return context.get_dummy_value()

    index = types.intp
    return types.none(source, index, index, tile, index), generate


@intrinsic
def store_few(typing: Any, tile: Any, place: Any, target: Any, start: Any, classes: Any) -> Any:
    """The way back: target[start + r*classes + c] = tile[place + c*n + r]."""
    lanes = Vec(tile.dtype).lanes

    def from_columns(n: int, few: int) -> tuple[int, int]:
        return n % few, n // few

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        tile_array, place, array, start, classes = args
        columns, rows = (tile, tile_array, place), (target, array, start)
        _regroup(context, builder, lanes, classes, columns, rows, from_columns)
        return context.get_dummy_value()

    index = types.intp
    return types.none(tile, index, target, index, index), generate
