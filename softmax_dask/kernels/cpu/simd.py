"""Explicit vectors in Numba: `Vec` is one machine register of float32 or float64 lanes.

Nothing is left to the auto-vectoriser: a kernel says `load`, `fma`, `store`, and LLVM emits
just that, for any number of classes; the end of a row is one masked load or store, not a
remainder loop. A scalar beside a vector stands for that value in every lane.

16-bit logits come as integer views, because Numba knows neither type on the CPU: an array of
uint16 holds IEEE halves, one of int16 holds bfloat16; both load as float32 lanes.
"""

import operator
from collections.abc import Callable, Sequence
from inspect import signature as parameters_of
from math import isqrt
from typing import Any

from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.core.imputils import lower_builtin
from numba.core.registry import cpu_target
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model

Vector = Any
"""A `Vec` inside compiled code, where Python's types do not reach."""

I32, I64 = ir.IntType(32), ir.IntType(64)
_LLVM = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}
_BITS = {types.float32: 32, types.float64: 64}
HALF, BFLOAT16 = types.uint16, types.int16
MINUS_INFINITY = float("-inf")
STORED_MINUS_INFINITY = {HALF: 0xFC00, BFLOAT16: 0xFF80}


def _host_has(feature: str) -> bool:
    if config.CPU_NAME is not None:  # NUMBA_CPU_NAME and NUMBA_CPU_FEATURES stand in for the host
        return f"+{feature}" in (config.CPU_FEATURES or "")
    return f"+{feature}" in cpu_target.target_context.codegen()._get_host_cpu_features()


FLOAT32_LANES = 16 if _host_has("avx512f") else 8
"""One register: as many vectors as lanes must be transposed in registers."""

CONVERTS_HALVES = _host_has("f16c")

_SETS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX"}
INSTRUCTION_SET = next((name for feature, name in _SETS.items() if _host_has(feature)), "baseline")


class Vec(types.Type):  # type: ignore[misc]
    """Numba type of a vector of float32 or float64 lanes."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        self.lanes = FLOAT32_LANES * 32 // _BITS[dtype]
        super().__init__(name=f"Vec({dtype})")


@register_model(Vec)
class _VecModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vec: Vec) -> None:
        super().__init__(manager, vec, vector_type(vec.dtype))


def vector_type(dtype: Any) -> ir.VectorType:
    """LLVM's type of a `Vec` of `dtype`."""
    return ir.VectorType(_LLVM[dtype], Vec(dtype).lanes)


def lane_dtype(array_or_vec: Any) -> Any:
    """Numba dtype of the lanes that an array loads into; 16-bit floats load as float32."""
    dtype = array_or_vec.dtype
    return types.float32 if dtype in (HALF, BFLOAT16) else dtype


def suffix(vector: ir.VectorType) -> str:
    """How LLVM's intrinsics spell a vector type, e.g. v16f32."""
    names = {"float": "f32", "double": "f64"}
    return f"v{vector.count}{names.get(str(vector.element), vector.element)}"


def call(builder: Any, name: str, returns: Any, *args: Any) -> Any:
    """Call an LLVM intrinsic by its full name."""
    function_type = ir.FunctionType(returns, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), args)


def constant(vector: ir.VectorType, value: float) -> Any:
    """A constant vector."""
    return ir.Constant(vector, [value] * vector.count)


def _integers(vector: ir.VectorType) -> ir.VectorType:
    return ir.VectorType(I32 if isinstance(vector.element, ir.FloatType) else I64, vector.count)


def splat(builder: Any, vector: ir.VectorType, scalar: Any) -> Any:
    """A run-time scalar in every lane."""
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count))


def _as_vectors(builder: Any, vector: ir.VectorType, values: Sequence[Any]) -> list[Any]:
    return [v if isinstance(v.type, ir.VectorType) else splat(builder, vector, v) for v in values]


# ---- lane by lane: operators and functions


def _define_operator(op: Any, instruction: str) -> None:
    @infer_global(op)
    class _Template(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            vec = next((arg for arg in args if isinstance(arg, Vec)), None)
            if vec is None or len(args) != 2:
                return None
            return signature(vec, *[arg if isinstance(arg, Vec) else vec.dtype for arg in args])

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*_as_vectors(builder, vector_type(sig.return_type.dtype), args))

    for kinds in ((Vec, Vec), (Vec, types.Float), (types.Float, Vec)):
        lower_builtin(op, *kinds)(lower)


_define_operator(operator.add, "fadd")
_define_operator(operator.sub, "fsub")
_define_operator(operator.mul, "fmul")
_define_operator(operator.truediv, "fdiv")


def _lanewise(body: Callable[..., Any]) -> Any:
    """Intrinsic from `body(builder, vector type, *vectors)`: at least one argument is a Vec, others may be scalars."""

    def typed(args: tuple[Any, ...]) -> Any:
        vec = next(arg for arg in args if isinstance(arg, Vec))

        def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            vector = vector_type(vec.dtype)
            return body(builder, vector, *_as_vectors(builder, vector, values))

        return vec(*[arg if isinstance(arg, Vec) else vec.dtype for arg in args]), generate

    # Numba counts the parameters of an intrinsic, so each number of them is spelt out.
    by_count: dict[int, Callable[..., Any]] = {
        1: lambda typing, a: typed((a,)),
        2: lambda typing, a, b: typed((a, b)),
        3: lambda typing, a, b, c: typed((a, b, c)),
        4: lambda typing, a, b, c, d: typed((a, b, c, d)),
    }
    return intrinsic(by_count[len(parameters_of(body).parameters) - 2])


def _select(builder: Any, comparison: str, x: Any, y: Any, then: Any, otherwise: Any) -> Any:
    return builder.select(builder.fcmp_ordered(comparison, x, y), then, otherwise)


def larger_lanes(builder: Any, most: Any, x: Any) -> Any:
    """The larger lanes of two vectors; a NaN in x is ignored."""
    return _select(builder, "<", most, x, x, most)


fma = _lanewise(lambda b, t, x, y, z: call(b, f"llvm.fma.{suffix(t)}", t, x, y, z))
nearest = _lanewise(lambda b, t, x: call(b, f"llvm.rint.{suffix(t)}", t, x))
absolute = _lanewise(lambda b, t, x: call(b, f"llvm.fabs.{suffix(t)}", t, x))
larger = _lanewise(lambda b, t, most, x: larger_lanes(b, most, x))
"""larger(most, x): a NaN in x is ignored."""
smaller = _lanewise(lambda b, t, least, x: _select(b, "<", x, least, x, least))
at_least = _lanewise(lambda b, t, x, low: _select(b, "<", x, low, low, x))
"""at_least(x, low): a NaN in x stays."""
where_greater = _lanewise(lambda b, t, x, y, then, otherwise: _select(b, ">", x, y, then, otherwise))
where_reaching = _lanewise(lambda b, t, x, y, then, otherwise: _select(b, ">=", x, y, then, otherwise))
where_equal = _lanewise(lambda b, t, x, y, then, otherwise: _select(b, "==", x, y, then, otherwise))


def _eighths(mantissa_bits: int) -> list[int]:
    """Bits of 2**(j/8) without the exponent, rounded right, and less j in the place that it is shifted to."""
    roots = [isqrt(isqrt(isqrt(1 << j + 8 * (mantissa_bits + 1)))) for j in range(8)]
    return [(root + 1) // 2 - (1 << mantissa_bits) - (j << mantissa_bits - 3) for j, root in enumerate(roots)]


@_lanewise
def power_of_eighths(builder: Any, vector: ir.VectorType, magic: Any) -> Any:
    """2**(n/8) of a number whose low bits hold n + 8 * bias (see exp2.py); exactly 0 where these are 0."""
    integers = _integers(vector)
    mantissa_bits = 23 if integers.element.width == 32 else 52
    bits = builder.bitcast(magic, integers)
    mantissas = _look_up(builder, integers, _eighths(mantissa_bits), bits)
    shifted = builder.shl(bits, constant(integers, mantissa_bits - 3))
    return builder.bitcast(builder.add(mantissas, shifted), vector)


def _look_up(builder: Any, integers: ir.VectorType, table: list[int], index: Any) -> Any:
    """Of a table of eight, what the last three bits of each lane say."""
    count, width = integers.count, integers.element.width
    entries = ir.Constant(integers, [table[i % 8] for i in range(count)])
    if FLOAT32_LANES == 16:
        letter = "s" if width == 32 else "d"
        return call(builder, f"llvm.x86.avx512.permvar.{letter}i.512", integers, entries, index)
    if INSTRUCTION_SET == "AVX2":
        if width == 32:
            return call(builder, "llvm.x86.avx2.permd", integers, entries, index)
        return _look_up_halves(builder, integers, table, index)
    which = builder.and_(index, constant(integers, 7))
    whole = ir.Constant(ir.VectorType(integers.element, 8), table)
    found = ir.Constant(integers, ir.Undefined)
    for lane_number in range(count):
        number = ir.Constant(I32, lane_number)
        entry = builder.extract_element(whole, builder.extract_element(which, number))
        found = builder.insert_element(found, entry, number)
    return found


def _look_up_halves(builder: Any, integers: ir.VectorType, table: list[int], index: Any) -> Any:
    """Four of 64 bits: AVX2 looks up eight of 32."""
    words = ir.VectorType(I32, 8)

    def half(shift: int) -> Any:
        entries = ir.Constant(words, [entry >> shift & 0xFFFFFFFF for entry in table])
        return call(builder, "llvm.x86.avx2.permd", words, entries, twice)

    pairs = builder.bitcast(index, words)
    twice = builder.shuffle_vector(pairs, pairs, ir.Constant(words, [0, 0, 2, 2, 4, 4, 6, 6]))
    merged = builder.shuffle_vector(half(0), half(32), ir.Constant(words, [0, 9, 2, 11, 4, 13, 6, 15]))
    return builder.bitcast(merged, integers)


@_lanewise
def next_above(builder: Any, vector: ir.VectorType, x: Any) -> Any:
    """The least number above x; NaN of NaN and of +inf."""
    integers = _integers(vector)
    bits = builder.bitcast(builder.fadd(x, constant(vector, 0.0)), integers)  # -0 becomes +0
    sign = builder.ashr(bits, constant(integers, integers.element.width - 1))
    return builder.bitcast(builder.add(bits, builder.or_(sign, constant(integers, 1))), vector)


def _split_float(builder: Any, vector: ir.VectorType, x: Any) -> tuple[Any, Any]:
    """x above 0 = mantissa in [0.75, 1.5) times 2**exponent: the bits of both."""
    integers = _integers(vector)
    mantissa_bits, three_quarters = (23, 0x3F400000) if integers.element.width == 32 else (52, 0x3FE8000000000000)
    bits, shift = builder.bitcast(x, integers), constant(integers, mantissa_bits)
    exponent = builder.ashr(builder.sub(bits, constant(integers, three_quarters)), shift)
    return builder.sub(bits, builder.shl(exponent, shift)), exponent


mantissa = _lanewise(lambda b, t, x: b.bitcast(_split_float(b, t, x)[0], t))
exponent = _lanewise(lambda b, t, x: b.sitofp(_split_float(b, t, x)[1], t))


@intrinsic
def fill(typing: Any, like: Any, value: Any) -> Any:
    """A vector of `value`, of the lane type of an array or vector."""
    dtype = lane_dtype(like)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return splat(builder, vector_type(dtype), context.cast(builder, args[1], sig.args[1], dtype))

    return Vec(dtype)(like, value), generate


@intrinsic
def lanes(typing: Any, like: Any) -> Any:
    """Number of lanes of vectors of an array."""
    count = Vec(lane_dtype(like)).lanes
    return types.intp(like), lambda context, builder, sig, args: ir.Constant(I64, count)


# ---- across lanes


def lane_numbers(count: int) -> Any:
    """0, 1, 2, ... as 32-bit integers."""
    return ir.Constant(ir.VectorType(I32, count), list(range(count)))


def _halves(builder: Any, vector: Any) -> tuple[Any, Any]:
    half = vector.type.count // 2

    def part(start: int) -> Any:
        picks = ir.Constant(ir.VectorType(I32, half), list(range(start, start + half)))
        return builder.shuffle_vector(vector, vector, picks)

    return part(0), part(half)


def fold_lanes(builder: Any, vector: Any, combine: Callable[[Any, Any, Any], Any]) -> Any:
    """One lane of all, by `combine(builder, half, half)`."""
    while vector.type.count > 1:
        vector = combine(builder, *_halves(builder, vector))
    return builder.extract_element(vector, ir.Constant(I32, 0))


@intrinsic
def largest_lane(typing: Any, vec: Any) -> Any:
    """The largest lane."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return fold_lanes(builder, args[0], larger_lanes)

    return vec.dtype(vec), generate


@intrinsic
def sum_lanes(typing: Any, vec: Any) -> Any:
    """The sum of the lanes, added in float64 in an order that depends on nothing but the number of lanes."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        doubles = ir.VectorType(ir.DoubleType(), vec.lanes)
        widened = args[0] if vec.dtype == types.float64 else builder.fpext(args[0], doubles)
        return fold_lanes(builder, widened, lambda b, x, y: b.fadd(x, y))

    return types.float64(vec), generate


@intrinsic
def lane(typing: Any, vec: Any, number: Any) -> Any:
    """One lane as a scalar."""
    return vec.dtype(vec, types.intp), lambda context, builder, sig, args: builder.extract_element(*args)


@intrinsic
def without_lane(typing: Any, vec: Any, number: Any) -> Any:
    """The vector with -inf in lane `number`; unchanged if there is no such lane."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        wanted = splat(builder, ir.VectorType(I32, vec.lanes), builder.trunc(args[1], I32))
        hit = builder.icmp_signed("==", lane_numbers(vec.lanes), wanted)
        return builder.select(hit, constant(vector_type(vec.dtype), MINUS_INFINITY), args[0])

    return vec(vec, types.intp), generate


def _lane_bits(builder: Any, comparison: str, vec: Any, vector: Any, scalar: Any) -> Any:
    """A bit for each lane that compares true, in an int32."""
    mask = builder.fcmp_ordered(comparison, vector, splat(builder, vector_type(vec.dtype), scalar))
    return builder.zext(builder.bitcast(mask, ir.IntType(vec.lanes)), I32)


@intrinsic
def first_reaching(typing: Any, vec: Any, value: Any) -> Any:
    """The lowest lane that is at least `value`, or the number of lanes."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = _lane_bits(builder, ">=", vec, *args)
        stop = builder.or_(bits, ir.Constant(I32, 1 << vec.lanes))
        count = call(builder, "llvm.cttz.i32", I32, stop, ir.Constant(ir.IntType(1), 0))
        return builder.zext(count, I64)

    return types.intp(vec, vec.dtype), generate


@intrinsic
def bits_above(typing: Any, vec: Any, value: Any) -> Any:
    """A bit for each lane that is above `value`."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.zext(_lane_bits(builder, ">", vec, *args), I64)

    return types.int64(vec, vec.dtype), generate


@intrinsic
def bits_reaching(typing: Any, vec: Any, value: Any) -> Any:
    """A bit for each lane that is at least `value`."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.zext(_lane_bits(builder, ">=", vec, *args), I64)

    return types.int64(vec, vec.dtype), generate


@intrinsic
def lowest_bit(typing: Any, bits: Any) -> Any:
    """Number of the lowest bit that is set; there must be one."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return call(builder, "llvm.cttz.i64", I64, args[0], ir.Constant(ir.IntType(1), 1))

    return types.intp(types.int64), generate


@intrinsic
def count_bits(typing: Any, bits: Any) -> Any:
    """How many bits are set."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return call(builder, "llvm.ctpop.i64", I64, args[0])

    return types.int64(types.int64), generate
