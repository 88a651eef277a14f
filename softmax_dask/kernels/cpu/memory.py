"""Vectors to and from memory: masked loads and stores, 16-bit floats, and the transpose of a tile of rows."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from softmax_dask.kernels.cpu.simd import (
    BFLOAT16,
    CONVERTS_HALVES,
    HALF,
    I32,
    I64,
    MINUS_INFINITY,
    Vec,
    call,
    constant,
    lane_dtype,
    lane_numbers,
    splat,
    suffix,
    vector_type,
)


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def _as_pointer_to(builder: Any, vector: ir.VectorType, address: Any) -> Any:
    return builder.bitcast(address, vector.as_pointer())


def _memory_type(context: Any, array_type: Any) -> ir.VectorType:
    return ir.VectorType(context.get_data_type(array_type.dtype), Vec(lane_dtype(array_type)).lanes)


def _item_bytes(array_type: Any) -> int:
    return int(array_type.dtype.bitwidth // 8)


def _first(builder: Any, count: int, lanes_wanted: Any) -> Any:
    """Mask of the first `lanes_wanted` of `count` lanes."""
    wanted = splat(builder, ir.VectorType(I32, count), builder.trunc(lanes_wanted, I32))
    return builder.icmp_signed("<", lane_numbers(count), wanted)


def _decode(builder: Any, stored: Any, dtype: Any) -> Any:
    """Lanes from what an array stores: halves and bfloat16 become float32."""
    count = stored.type.count
    floats, words = ir.VectorType(ir.FloatType(), count), ir.VectorType(I32, count)
    if dtype == BFLOAT16:
        widened = builder.zext(stored, words)
        return builder.bitcast(builder.shl(widened, constant(words, 16)), floats)
    if dtype != HALF:
        return stored
    if CONVERTS_HALVES:
        return builder.fpext(builder.bitcast(stored, ir.VectorType(ir.HalfType(), count)), floats)
    return _decode_half_by_integers(builder, builder.zext(stored, words), floats, words)


def _decode_half_by_integers(builder: Any, bits: Any, floats: Any, words: Any) -> Any:
    """For CPUs without f16c, where LLVM calls a function that Numba does not link and the process aborts.

    The 15 bits of magnitude, shifted into place, are the number times 2**-112: one exact
    multiplication also normalises subnormals. Exponent 31 (inf, NaN) is set to float32's 255.
    """
    magnitude = builder.shl(builder.and_(bits, constant(words, 0x7FFF)), constant(words, 13))
    scaled = builder.fmul(builder.bitcast(magnitude, floats), constant(floats, 2.0**112))
    special = builder.icmp_unsigned(">=", magnitude, constant(words, 0x0F800000))
    infinite = builder.or_(magnitude, constant(words, 0x7F800000))
    sign = builder.shl(builder.and_(bits, constant(words, 0x8000)), constant(words, 16))
    return builder.bitcast(builder.or_(builder.select(special, infinite, builder.bitcast(scaled, words)), sign), floats)


def _masked_load(
    context: Any, builder: Any, array_type: Any, address: Any, wanted: Any, blank: float = MINUS_INFINITY
) -> Any:
    memory = _memory_type(context, array_type)
    if blank == MINUS_INFINITY:
        blank = {HALF: 0xFC00, BFLOAT16: 0xFF80}.get(array_type.dtype, blank)
    stored = call(
        builder,
        f"llvm.masked.load.{suffix(memory)}.p0",
        memory,
        _as_pointer_to(builder, memory, address),
        ir.Constant(I32, _item_bytes(array_type)),
        _first(builder, memory.count, wanted),
        constant(memory, blank),
    )
    return _decode(builder, stored, array_type.dtype)


def _converted(builder: Any, array_type: Any, vector: Any) -> Any:
    """The vector narrowed to float32 or converted to int32 where the array is of that type."""
    count = vector.type.count
    if array_type.dtype == types.int32:
        return builder.fptosi(vector, ir.VectorType(I32, count))
    if array_type.dtype == types.float32 and isinstance(vector.type.element, ir.DoubleType):
        return builder.fptrunc(vector, ir.VectorType(ir.FloatType(), count))
    return vector


def _whole_store(builder: Any, array_type: Any, address: Any, vector: Any) -> None:
    builder.store(vector, _as_pointer_to(builder, vector.type, address)).align = _item_bytes(array_type)


def _masked_store(builder: Any, array_type: Any, address: Any, wanted: Any, vector: Any) -> None:
    """Store the first lanes."""
    count = vector.type.count
    call(
        builder,
        f"llvm.masked.store.{suffix(vector.type)}.p0",
        ir.VoidType(),
        vector,
        _as_pointer_to(builder, vector.type, address),
        ir.Constant(I32, _item_bytes(array_type)),
        _first(builder, count, wanted),
    )


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """A full vector from array[index:]."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _as_pointer_to(
            builder, _memory_type(context, array), _address(context, builder, array, args[0], args[1])
        )
        loaded = builder.load(pointer)
        loaded.align = _item_bytes(array)
        return _decode(builder, loaded, array.dtype)

    return Vec(lane_dtype(array))(array, types.intp), generate


@intrinsic
def load_first(typing: Any, array: Any, index: Any, wanted: Any) -> Any:
    """The first `wanted` lanes from array[index:], -inf in the others, whose memory is not touched."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _masked_load(context, builder, array, _address(context, builder, array, args[0], args[1]), args[2])

    return Vec(lane_dtype(array))(array, types.intp, types.intp), generate


@intrinsic
def load_first_or_zeros(typing: Any, array: Any, index: Any, wanted: Any) -> Any:
    """As `load_first`, with 0 in the other lanes."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = _address(context, builder, array, args[0], args[1])
        return _masked_load(context, builder, array, address, args[2], 0.0)

    return Vec(lane_dtype(array))(array, types.intp, types.intp), generate


@intrinsic
def load_integers(typing: Any, like: Any, array: Any, index: Any, last: Any) -> Any:
    """Lane l is float(array[index + min(l, last)]), of int64, in the lane type of `like`."""
    dtype = lane_dtype(like)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = vector_type(dtype)
        result = ir.Constant(vector, ir.Undefined)
        for lane in range(vector.count):
            row = _clamped(builder, lane, args[3])
            address = _address(context, builder, array, args[1], builder.add(args[2], row))
            number = builder.sitofp(builder.load(address), vector.element)
            result = builder.insert_element(result, number, ir.Constant(I32, lane))
        return result

    return Vec(dtype)(like, array, types.intp, types.intp), generate


@intrinsic
def load_lanes(typing: Any, array: Any, index: Any, rows: Any) -> Any:
    """Lane l is array[index + rows[l] * lanes + l], of a tile: a row for each lane."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        memory = _memory_type(context, array)
        numbers, words = ir.VectorType(I32, memory.count), ir.VectorType(I64, memory.count)
        first = builder.mul(builder.fptosi(args[2], numbers), constant(numbers, memory.count))
        offsets = builder.mul(
            builder.zext(builder.add(first, lane_numbers(memory.count)), words), constant(words, _item_bytes(array))
        )
        base = builder.ptrtoint(_address(context, builder, array, args[0], args[1]), I64)
        pointers = ir.VectorType(memory.element.as_pointer(), memory.count)
        return call(
            builder,
            f"llvm.masked.gather.{suffix(memory)}.v{memory.count}p0",
            memory,
            builder.inttoptr(builder.add(offsets, splat(builder, words, base)), pointers),
            ir.Constant(I32, _item_bytes(array)),
            constant(ir.VectorType(ir.IntType(1), memory.count), 1),
            ir.Constant(memory, ir.Undefined),
        )

    return Vec(lane_dtype(array))(array, types.intp, rows), generate


@intrinsic
def store(typing: Any, array: Any, index: Any, vector: Any) -> Any:
    """Store a full vector at array[index:]; the array has the vector's lane type."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _whole_store(builder, array, _address(context, builder, array, args[0], args[1]), args[2])
        return context.get_dummy_value()

    return types.none(array, types.intp, vector), generate


@intrinsic
def store_first(typing: Any, array: Any, index: Any, wanted: Any, vector: Any) -> Any:
    """Store the first `wanted` lanes at array[index:], as float32, float64 or int32, which the array decides.

    All of them without a mask, which many CPUs are slow at.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = _address(context, builder, array, args[0], args[1])
        converted = _converted(builder, array, args[3])
        all_wanted = builder.icmp_signed(">=", args[2], ir.Constant(I64, vector.lanes))
        with builder.if_else(all_wanted, likely=True) as (then, otherwise):
            with then:
                _whole_store(builder, array, address, converted)
            with otherwise:
                _masked_store(builder, array, address, args[2], converted)
        return context.get_dummy_value()

    return types.none(array, types.intp, types.intp, vector), generate


@intrinsic
def stream(typing: Any, array: Any, index: Any, vector: Any) -> Any:
    """Store a full vector past the caches; the address of array[index] is a multiple of the vector's size."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = _address(context, builder, array, args[0], args[1])
        written = builder.store(args[2], _as_pointer_to(builder, args[2].type, address))
        written.align = _item_bytes(array) * args[2].type.count
        written.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(I32, 1)]))
        return context.get_dummy_value()

    return types.none(array, types.intp, vector), generate


@intrinsic
def settle(typing: Any) -> Any:
    """Wait until every other thread would read what was streamed."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.none(), generate


def _prefetching(intent: int) -> Any:
    @intrinsic
    def ask(typing: Any, array: Any, index: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            line = builder.bitcast(_address(context, builder, array, args[0], args[1]), ir.IntType(8).as_pointer())
            how = (ir.Constant(I32, value) for value in (intent, 3, 1))  # near, data
            call(builder, "llvm.prefetch.p0", ir.VoidType(), line, *how)
            return context.get_dummy_value()

        return types.none(array, types.intp), generate

    return ask


prefetch = _prefetching(0)
"""Ask for the cache line of array[index], which need not exist; prefetch_to_write, in order to write it."""
prefetch_to_write = _prefetching(1)


# ---- a tile: as many rows as lanes, a row a lane


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


def _clamped(builder: Any, row: int, last: Any) -> Any:
    number = ir.Constant(I64, row)
    return builder.select(builder.icmp_signed("<", number, last), number, last)


def _row_address(context: Any, builder: Any, array_type: Any, array: Any, start: Any, stride: Any, row: Any) -> Any:
    return _address(context, builder, array_type, array, builder.add(start, builder.mul(row, stride)))


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
            address = _row_address(context, builder, source, array, start, stride, _clamped(builder, row, last))
            rows.append(_masked_load(context, builder, source, address, columns))
        for column, vector in enumerate(_transpose(builder, rows)):
            offset = builder.add(place, ir.Constant(I64, column * count))
            address = _address(context, builder, tile, tile_array, offset)
            _whole_store(builder, tile, address, vector)
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
        vector = vector_type(tile.dtype)
        loaded = []
        for column in range(count):
            offset = builder.add(place, ir.Constant(I64, column * count))
            address = _address(context, builder, tile, tile_array, offset)
            value = builder.load(_as_pointer_to(builder, vector, address))
            value.align = _item_bytes(tile)
            loaded.append(value)
        for row, value in enumerate(_transpose(builder, loaded)):
            number = ir.Constant(I64, row)
            address = _row_address(context, builder, target, array, start, stride, number)
            wanted = builder.select(builder.icmp_signed("<=", number, last), columns, ir.Constant(I64, 0))
            _masked_store(builder, target, address, wanted, value)
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


@intrinsic
def load_few(typing: Any, source: Any, start: Any, classes: Any, tile: Any, place: Any) -> Any:
    """tile[place + c*n + r] = source[start + r*classes + c] for n rows r of up to n / 2 classes c."""
    lanes = Vec(lane_dtype(source)).lanes

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, start, classes, tile_array, place = args
        memory = _memory_type(context, source)

        def load_all(few: int) -> None:
            registers = []
            for i in range(few):
                address = _address(context, builder, source, array, builder.add(start, ir.Constant(I64, i * lanes)))
                stored = builder.load(_as_pointer_to(builder, memory, address))
                stored.align = _item_bytes(source)
                registers.append(_decode(builder, stored, source.dtype))
            for k in range(few):
                picks = [divmod(row * few + k, lanes) for row in range(lanes)]
                address = _address(context, builder, tile, tile_array, builder.add(place, ir.Constant(I64, k * lanes)))
                _whole_store(builder, tile, address, _gathered(builder, registers, picks))

        _for_each_few(builder, lanes, classes, load_all)
        return context.get_dummy_value()

    index = types.intp
    return types.none(source, index, index, tile, index), generate


@intrinsic
def store_few(typing: Any, tile: Any, place: Any, target: Any, start: Any, classes: Any) -> Any:
    """The way back."""
    lanes = Vec(tile.dtype).lanes

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        tile_array, place, array, start, classes = args
        vector = vector_type(tile.dtype)

        def store_all(few: int) -> None:
            registers = []
            for k in range(few):
                address = _address(context, builder, tile, tile_array, builder.add(place, ir.Constant(I64, k * lanes)))
                value = builder.load(_as_pointer_to(builder, vector, address))
                value.align = _item_bytes(tile)
                registers.append(value)
            for i in range(few):
                picks = [((i * lanes + lane) % few, (i * lanes + lane) // few) for lane in range(lanes)]
                address = _address(context, builder, target, array, builder.add(start, ir.Constant(I64, i * lanes)))
                _whole_store(builder, target, address, _gathered(builder, registers, picks))

        _for_each_few(builder, lanes, classes, store_all)
        return context.get_dummy_value()

    index = types.intp
    return types.none(tile, index, target, index, index), generate
