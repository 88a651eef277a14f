"""Vectors to and from memory: whole and masked loads and stores, 16-bit floats."""

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
    STORED_MINUS_INFINITY,
    Vec,
    call,
    constant,
    lane_dtype,
    lane_numbers,
    splat,
    suffix,
    vector_type,
)


def address_of(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Of array[index]."""
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


def decoded(builder: Any, stored: Any, dtype: Any) -> Any:
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


def encoded(builder: Any, x: Any, dtype: Any) -> Any:
    """The 16 bits of a float32 that is a half or a bfloat16, by integers: as `_decode_half_by_integers`, backwards."""
    upper = builder.lshr(builder.bitcast(x, I32), ir.Constant(I32, 16))
    if dtype == BFLOAT16:
        return builder.trunc(upper, ir.IntType(16))
    sign = builder.and_(upper, ir.Constant(I32, 0x8000))
    scaled = builder.bitcast(builder.fmul(x, ir.Constant(x.type, 2.0**-112)), I32)
    magnitude = builder.and_(builder.lshr(scaled, ir.Constant(I32, 13)), ir.Constant(I32, 0x7FFF))
    return builder.trunc(builder.or_(magnitude, sign), ir.IntType(16))


def masked_load(
    context: Any, builder: Any, array_type: Any, address: Any, wanted: Any, blank: float = MINUS_INFINITY
) -> Any:
    """The first lanes, `blank` in the others."""
    return decoded(builder, masked_stored(context, builder, array_type, address, wanted, blank), array_type.dtype)


def masked_stored(
    context: Any, builder: Any, array_type: Any, address: Any, wanted: Any, blank: float = MINUS_INFINITY
) -> Any:
    """As `masked_load`, as the array stores them."""
    memory = _memory_type(context, array_type)
    if blank == MINUS_INFINITY:
        blank = STORED_MINUS_INFINITY.get(array_type.dtype, blank)
    return call(
        builder,
        f"llvm.masked.load.{suffix(memory)}.p0",
        memory,
        _as_pointer_to(builder, memory, address),
        ir.Constant(I32, _item_bytes(array_type)),
        _first(builder, memory.count, wanted),
        constant(memory, blank),
    )


def whole_load(context: Any, builder: Any, array_type: Any, address: Any) -> Any:
    """All lanes."""
    stored = whole_stored(builder, array_type, address, _memory_type(context, array_type))
    return decoded(builder, stored, array_type.dtype)


def whole_stored(builder: Any, array_type: Any, address: Any, memory: ir.VectorType) -> Any:
    """A vector of type `memory`, as the array stores it."""
    loaded = builder.load(_as_pointer_to(builder, memory, address))
    loaded.align = _item_bytes(array_type)
    return loaded


def clamped(builder: Any, row: int, last: Any) -> Any:
    """The smaller of a row's number and that of the last one."""
    number = ir.Constant(I64, row)
    return builder.select(builder.icmp_signed("<", number, last), number, last)


def _converted(builder: Any, array_type: Any, vector: Any) -> Any:
    """The vector narrowed to float32 or converted to int32 where the array is of that type."""
    count = vector.type.count
    if array_type.dtype == types.int32:
        return builder.fptosi(vector, ir.VectorType(I32, count))
    if array_type.dtype == types.float32 and isinstance(vector.type.element, ir.DoubleType):
        return builder.fptrunc(vector, ir.VectorType(ir.FloatType(), count))
    return vector


def whole_store(builder: Any, array_type: Any, address: Any, vector: Any) -> None:
    """Store all lanes."""
    builder.store(vector, _as_pointer_to(builder, vector.type, address)).align = _item_bytes(array_type)


def masked_store(builder: Any, array_type: Any, address: Any, wanted: Any, vector: Any) -> None:
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
        return whole_load(context, builder, array, address_of(context, builder, array, args[0], args[1]))

    return Vec(lane_dtype(array))(array, types.intp), generate


@intrinsic
def load_first(typing: Any, array: Any, index: Any, wanted: Any) -> Any:
    """The first `wanted` lanes from array[index:], -inf in the others, whose memory is not touched."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return masked_load(context, builder, array, address_of(context, builder, array, args[0], args[1]), args[2])

    return Vec(lane_dtype(array))(array, types.intp, types.intp), generate


@intrinsic
def load_first_or_zeros(typing: Any, array: Any, index: Any, wanted: Any) -> Any:
    """As `load_first`, with 0 in the other lanes."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = address_of(context, builder, array, args[0], args[1])
        return masked_load(context, builder, array, address, args[2], 0.0)

    return Vec(lane_dtype(array))(array, types.intp, types.intp), generate


@intrinsic
def load_integers(typing: Any, like: Any, array: Any, index: Any, last: Any) -> Any:
    """Lane l is float(array[index + min(l, last)]), of int64, in the lane type of `like`."""
    dtype = lane_dtype(like)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = vector_type(dtype)
        result = ir.Constant(vector, ir.Undefined)
        for lane in range(vector.count):
            row = clamped(builder, lane, args[3])
            address = address_of(context, builder, array, args[1], builder.add(args[2], row))
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
        base = builder.ptrtoint(address_of(context, builder, array, args[0], args[1]), I64)
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
        whole_store(builder, array, address_of(context, builder, array, args[0], args[1]), args[2])
        return context.get_dummy_value()

    return types.none(array, types.intp, vector), generate


@intrinsic
def store_first(typing: Any, array: Any, index: Any, wanted: Any, vector: Any) -> Any:
    """Store the first `wanted` lanes at array[index:], as float32, float64 or int32, which the array decides.

    All of them without a mask, which many CPUs are slow at.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = address_of(context, builder, array, args[0], args[1])
        converted = _converted(builder, array, args[3])
        all_wanted = builder.icmp_signed(">=", args[2], ir.Constant(I64, vector.lanes))
        with builder.if_else(all_wanted, likely=True) as (then, otherwise):
            with then:
                whole_store(builder, array, address, converted)
            with otherwise:
                masked_store(builder, array, address, args[2], converted)
        return context.get_dummy_value()

    return types.none(array, types.intp, types.intp, vector), generate


@intrinsic
def stream(typing: Any, array: Any, index: Any, vector: Any) -> Any:
    """Store a full vector past the caches; the address of array[index] is a multiple of the vector's size."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = address_of(context, builder, array, args[0], args[1])
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
            line = builder.bitcast(address_of(context, builder, array, args[0], args[1]), ir.IntType(8).as_pointer())
            how = (ir.Constant(I32, value) for value in (intent, 3, 1))  # near, data
            call(builder, "llvm.prefetch.p0", ir.VoidType(), line, *how)
            return context.get_dummy_value()

        return types.none(array, types.intp), generate

    return ask


prefetch = _prefetching(0)
"""Ask for the cache line of array[index], which need not exist; prefetch_to_write, in order to write it."""
prefetch_to_write = _prefetching(1)
