"""exp, log and exact sums in vectors, with the error bounds that the contract needs.

The exponential of softmax is computed as a power of two that never forms x - max. With
a = log2(e) / temperature in two parts (a_hi + a_lo, about twice the digits of one),

    n = round(8 * x * a_hi) / 8                by adding and subtracting a magic constant
    f = fma(x, a_lo, fma(x, a_hi, -n))         the fraction, |f| <= 1/16, right to the last digits of x * a
    e = 2**f * 2**(n - k)                      k = round(max * a_hi), the row's anchor

n is in eighths because a register holds eight numbers: 2**0 to 2**(7/8) are looked up there in one instruction, which
spares three of the polynomial. The row's largest logit enters only as the integer k, inside the magic constant, so
nothing is rounded by subtracting it, and 2**-k cancels in every ratio of two exponentials. Rows whose largest logit is
so big that n would not fit are shifted by it first: there x - max is exact (Sterbenz). Temperature costs no operation
and no digit.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload
from numpy.typing import NDArray

from softmax_dask.kernels.cpu.compile import step
from softmax_dask.kernels.cpu.simd import (
    Vector,
    absolute,
    at_least,
    exponent,
    fill,
    fma,
    mantissa,
    nearest,
    power_of_eighths,
    where_equal,
    where_greater,
)
from softmax_dask.kernels.scales import log2e_over, one_over

Scalar = Any
"""A float32 or float64 inside compiled code."""

Array = Any
"""A flat array inside compiled code."""


class Scale(NamedTuple):
    """What the temperature turns into, in the kernel's arithmetic (float32 or float64)."""

    a_hi: Scalar
    """log2(e) / temperature, leading digits"""
    a_lo: Scalar
    """and what is missing there."""


class Inverse(NamedTuple):
    """1 / temperature in two parts, in the arithmetic of the finishing step."""

    hi: Scalar
    lo: Scalar


def constants_of(temperature: float, dtype: Any) -> NDArray[Any]:
    """The two parts of log2(e) / temperature, and of 1 / temperature: how kernels are given them."""
    return np.array([*log2e_over(temperature, dtype), *one_over(temperature, dtype)], dtype)


@step
def scale_in(constants: Array) -> Scale:
    """What `constants_of` made, for the exponential,"""
    return Scale(constants[0], constants[1])


@step
def inverse_in(constants: Array) -> Inverse:
    """and for what is divided by the temperature."""
    return Inverse(constants[2], constants[3])


# Coefficients of q in 2**f = 1 + f * q(f), |f| <= 1/16: least squares of (2**f - 1) / f at 400 Chebyshev nodes, lowest
# first. Written down and not fitted anew, because the last digits of a fit are those of a machine's LAPACK. Degrees 3
# and 7 keep float32 within 4 eps and float64 within 8: tests/library/test_simd.py, test_kernels.py.
_S1, _S2, _S3 = (np.float32(float.fromhex(digits)) for digits in ("0x1.62e43p-1", "0x1.ec0aa6p-3", "0x1.c6bb7ap-5"))
_D1, _D2, _D3, _D4, _D5, _D6, _D7 = (
    np.float64(float.fromhex(digits))
    for digits in (
        "0x1.62e42fefa39f0p-1",
        "0x1.ebfbdff82c6e5p-3",
        "0x1.c6b08d7049e06p-5",
        "0x1.3b2ab6f1ab526p-7",
        "0x1.5d87fe67d4495p-10",
        "0x1.430df85732ec9p-13",
        "0x1.ffdbc8b69f72cp-17",
    )
)

# Adding MAGIC rounds to eighths and leaves their number, biased like an exponent, in the low bits.
# Beyond BIG they would not fit, and the row is shifted by its largest logit.
_MAGIC32, _BIG32, _BIAS32 = np.float32(1.5 * 2**20 + 127), np.float32(2**17), np.float32(127)
_MAGIC64, _BIG64, _BIAS64 = np.float64(1.5 * 2**49 + 1023), np.float64(2**30), np.float64(1023)
_LN2 = float.fromhex("0x1.62e42fefa39efp-1")

FOLD = 8
"""Terms that are added plainly before the exact sum takes them: few enough to stay within 4 eps of float32.

Where the largest is among them, they are added by turns to two sums: beside a term of 1, up to half an eps is lost of
each that follows it in the same sum.
"""


@step
def _q32(f: Vector) -> Vector:
    return fma(f, fma(f, _S3, _S2), _S1)


@step
def _q64(f: Vector) -> Vector:
    return fma(f, fma(f, fma(f, fma(f, fma(f, fma(f, _D7, _D6), _D5), _D4), _D3), _D2), _D1)


def _fraction_polynomial(f: Vector) -> Vector:
    raise NotImplementedError("compiled code only")


@overload(_fraction_polynomial, strict=False)
def _(f: Any) -> Any:
    if f.dtype == types.float32:
        return lambda f: _q32(f)
    return lambda f: _q64(f)


def _constants(like: Scalar) -> Any:
    raise NotImplementedError("compiled code only")


@overload(_constants, inline="always", strict=False)
def _(like: Any) -> Any:
    if like == types.float32:
        return lambda like: (_MAGIC32, _BIG32, _BIAS32)
    return lambda like: (_MAGIC64, _BIG64, _BIAS64)


class Anchor(NamedTuple):
    """What a row's largest logit sets, a row a lane or the same in all lanes."""

    shift: Vector
    """0, or the largest logit where it is beyond BIG."""
    low: Vector
    """Shifted logits below this have exponential 0."""
    magic: Vector
    """MAGIC - k."""
    k: Vector
    """round(max * a): every exponential is 2**-k times its size."""


@step
def anchor(peak: Vector, scale: Scale) -> Anchor:
    """The anchor of rows with largest logits `peak`. Of +inf it makes NaN exponentials, of -inf zeros."""
    magic, big, bias = _constants(scale.a_hi)
    scaled = peak * scale.a_hi
    zero = fill(peak, 0.0)
    k = where_greater(absolute(scaled), big, zero, nearest(scaled))
    shift = where_greater(absolute(scaled), big, peak, zero)
    shift = where_equal(peak, fill(peak, -np.inf), zero, shift)  # else -inf - -inf would be NaN
    return Anchor(shift, (k - bias) / scale.a_hi, magic - k, k)


@step
def exponential(x: Vector, row: Anchor, scale: Scale) -> tuple[Vector, Vector]:
    """exp(x / temperature) * 2**-k, and its log2. -inf gives exactly 0; NaN stays."""
    t = at_least(x - row.shift, row.low)
    rounded = fma(t, scale.a_hi, row.magic)
    fraction = fma(t, scale.a_lo, fma(t, scale.a_hi, row.magic - rounded))
    whole = power_of_eighths(rounded)
    power = fma(fraction * whole, _fraction_polynomial(fraction), whole)
    magic, _, _ = _constants(scale.a_hi)
    return power, fraction + (rounded - magic)


@step
def log1p(x: Vector) -> Vector:
    """log(1 + x) of x >= 0; small x keep their digits (the second term is what 1 + x lost)."""
    u = fill(x, 1.0) + x
    return _log(u) + (x - (u - 1.0)) / u


@step
def _log(x: Vector) -> Vector:
    """2 atanh(t) of the mantissa, |t| <= 1/5: the first term left out is below 4e-17 of the sum (1e-11 for float32)."""
    m = mantissa(x)
    t = (m - 1.0) / (m + 1.0)
    return fma(exponent(x), fill(x, _LN2), fma(t * t * t, _atanh_tail(t * t), t + t))


def _atanh_tail(q: Vector) -> Vector:
    raise NotImplementedError("compiled code only")


@overload(_atanh_tail, strict=False)
def _(q: Any) -> Any:
    if q.dtype == types.float32:
        return lambda q: _odd_terms(q, fill(q, 2 / 13))
    return lambda q: _odd_terms(
        q,
        fma(
            q,
            fma(q, fma(q, fma(q, fill(q, 2 / 21), fill(q, 2 / 19)), fill(q, 2 / 17)), fill(q, 2 / 15)),
            fill(q, 2 / 13),
        ),
    )


@step
def _odd_terms(q: Vector, rest: Vector) -> Vector:
    upper = fma(q, fma(q, rest, fill(q, 2 / 11)), fill(q, 2 / 9))
    return fma(q, fma(q, fma(q, upper, fill(q, 2 / 7)), fill(q, 2 / 5)), fill(q, 2 / 3))


@step
def add_exactly(total: Vector, lost: Vector, term: Vector) -> tuple[Vector, Vector]:
    """total + lost += term, with no error but the rounding of `lost` (Knuth's TwoSum)."""
    new = total + term
    back = new - total
    return new, lost + ((total - (new - back)) + (term - back))


@step
def one_over_sum(total: Vector, lost: Vector) -> Vector:
    """1 / (total + lost), rounded once: a step of Newton's after the division."""
    inverse = fill(total, 1.0) / total
    missing = fma(0.0 - total, inverse, 1.0) - lost * inverse
    return fma(inverse, missing, inverse)
