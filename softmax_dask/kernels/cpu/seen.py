"""The largest logit of what is looked at, long before anything is computed of it.

16-bit floats are compared as the integers that they are stored as, twice as many in a register, and none is decoded.
Of positive floats the larger one is the larger integer. Of negative ones, whose sign bit makes them negative integers
too, it is the one with the least bits, the sign not being a sign. So both are kept: the largest signed integer, which
is right wherever it is not negative, and the least unsigned one, which is right elsewhere.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from softmax_dask.kernels.cpu.memory import (
    address_of,
    decoded,
    encoded,
    masked_load,
    masked_stored,
    whole_load,
    whole_stored,
)
from softmax_dask.kernels.cpu.simd import (
    BFLOAT16,
    HALF,
    I32,
    I64,
    MINUS_INFINITY,
    STORED_MINUS_INFINITY,
    Vec,
    call,
    constant,
    fold_lanes,
    lane_dtype,
    larger_lanes,
    splat,
    suffix,
    vector_type,
)

_I16 = ir.IntType(16)
_MAGNITUDE = 0x7FFF


class Seen(types.Type):  # type: ignore[misc]
    """Numba type of what was seen in an array of `dtype`: two registers."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"Seen({dtype})")


@register_model(Seen)
class _SeenModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, seen: Seen) -> None:
        register = _register(seen.dtype)
        super().__init__(manager, seen, ir.LiteralStructType([register, register]))


def _register(dtype: Any) -> ir.VectorType:
    return _integers(dtype) if dtype in (HALF, BFLOAT16) else vector_type(dtype)


def _integers(dtype: Any) -> ir.VectorType:
    return ir.VectorType(_I16, 2 * Vec(lane_dtype(Seen(dtype))).lanes)


def _pair(builder: Any, first: Any, second: Any) -> Any:
    pair = ir.Constant(ir.LiteralStructType([first.type, second.type]), ir.Undefined)
    return builder.insert_value(builder.insert_value(pair, first, 0), second, 1)


def _both(builder: Any, seen: Any) -> tuple[Any, Any]:
    return builder.extract_value(seen, 0), builder.extract_value(seen, 1)


@intrinsic
def nothing_seen(typing: Any, array: Any) -> Any:
    """As if only -inf had been seen."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        low = constant(_register(array.dtype), STORED_MINUS_INFINITY.get(array.dtype, MINUS_INFINITY))
        return _pair(builder, low, low)

    return Seen(array.dtype)(array), generate


@intrinsic
def look(typing: Any, array: Any, index: Any, seen: Any) -> Any:
    """What was seen, with two registers of logits from array[index:]. A NaN is passed over, or seen as the largest."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = address_of(context, builder, array, args[0], args[1])
        a, b = _both(builder, args[2])
        if array.dtype not in (HALF, BFLOAT16):
            width = ir.Constant(I64, vector_type(array.dtype).count)
            x = whole_load(context, builder, array, address)
            y = whole_load(context, builder, array, builder.gep(address, [width]))
            return _pair(builder, larger_lanes(builder, a, x), larger_lanes(builder, b, y))
        return _with_integers(builder, a, b, whole_stored(builder, array, address, _integers(array.dtype)))

    return seen(array, types.intp, seen), generate


@intrinsic
def look_first(typing: Any, array: Any, index: Any, wanted: Any, seen: Any) -> Any:
    """As `look`, of the first `wanted` logits, up to one register; the memory of others is not touched."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = address_of(context, builder, array, args[0], args[1])
        a, b = _both(builder, args[3])
        if array.dtype not in (HALF, BFLOAT16):
            return _pair(builder, larger_lanes(builder, a, masked_load(context, builder, array, address, args[2])), b)
        stored = masked_stored(context, builder, array, address, args[2])
        twice = ir.Constant(ir.VectorType(I32, 2 * stored.type.count), [*range(stored.type.count)] * 2)
        return _with_integers(builder, a, b, builder.shuffle_vector(stored, stored, twice))

    return seen(array, types.intp, types.intp, seen), generate


def _with_integers(builder: Any, most: Any, least: Any, stored: Any) -> Any:
    return _pair(builder, _extreme(builder, "smax", most, stored), _extreme(builder, "umin", least, stored))


def _extreme(builder: Any, which: str, x: Any, y: Any) -> Any:
    return call(builder, f"llvm.{which}.{suffix(x.type)}", x.type, x, y)


@intrinsic
def largest_seen(typing: Any, array: Any, seen: Any) -> Any:
    """The largest logit that was seen, in the lane type of the array."""
    dtype = lane_dtype(array)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        a, b = _both(builder, args[1])
        if array.dtype not in (HALF, BFLOAT16):
            return fold_lanes(builder, larger_lanes(builder, a, b), larger_lanes)
        return _largest_of_integers(builder, array.dtype, a, b)

    return dtype(array, seen), generate


def _largest_of_integers(builder: Any, dtype: Any, most: Any, least: Any) -> Any:
    """Negative ones are turned around, so that the largest integer is the largest number; the last one back again."""
    turn = constant(most.type, _MAGNITUDE)
    negative = builder.icmp_signed("<", most, constant(most.type, 0))
    ordered = builder.select(negative, builder.xor(least, turn), most)
    largest = fold_lanes(builder, ordered, lambda b, x, y: b.select(b.icmp_signed("<", x, y), y, x))
    back = builder.xor(largest, ir.Constant(_I16, _MAGNITUDE))
    bits = builder.select(builder.icmp_signed("<", largest, ir.Constant(_I16, 0)), back, largest)
    one = ir.VectorType(_I16, 1)
    vector = builder.insert_element(ir.Constant(one, ir.Undefined), bits, ir.Constant(I32, 0))
    return builder.extract_element(decoded(builder, vector, dtype), ir.Constant(I32, 0))


@intrinsic
def bits_equal(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """A bit for each of two registers of 16-bit floats from array[index:] that equals `value`, which is one of them."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        integers = _integers(array.dtype)
        stored = whole_stored(builder, array, address_of(context, builder, array, args[0], args[1]), integers)
        bits = encoded(builder, context.cast(builder, args[2], sig.args[2], types.float32), array.dtype)
        magnitude = builder.and_(bits, ir.Constant(_I16, _MAGNITUDE))
        is_zero = builder.icmp_signed("==", magnitude, ir.Constant(_I16, 0))
        other = builder.select(is_zero, builder.xor(bits, ir.Constant(_I16, -0x8000)), bits)  # 0 equals -0
        same = [builder.icmp_signed("==", stored, splat(builder, integers, each)) for each in (bits, other)]
        hits = builder.bitcast(builder.or_(*same), ir.IntType(integers.count))
        return builder.zext(hits, I64)

    return types.int64(array, types.intp, value), generate
