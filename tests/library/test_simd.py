"""Vectors of the CPU kernels, operation by operation, against NumPy; and the error bounds of exp and log1p."""

import math
import subprocess
import sys
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numba import njit

from softmax_dask.kernels.cpu import exp2, memory, simd, transpose

FLOATS = (np.float32, np.float64)
WIDTHS = {np.float32: simd.FLOAT32_LANES, np.float64: simd.FLOAT32_LANES // 2}
TAILS = range(simd.FLOAT32_LANES + 1)

# Comparisons meet NaN and infinities on either side.
SPECIAL = [0.0, -0.0, 1.0, -1.0, 2.5, np.inf, -np.inf, np.nan]
LEFT, RIGHT = (np.array(side) for side in zip(*[(x, y) for x in SPECIAL for y in SPECIAL], strict=True))


@pytest.fixture(params=FLOATS, ids=lambda kind: kind.__name__)
def dtype(request: pytest.FixtureRequest) -> Any:
    return request.param


# ---- memory


@pytest.mark.parametrize("tail", TAILS)
def test_load_first_gives_minus_infinity_past_the_end(dtype, tail):
    width = WIDTHS[dtype]
    source, out = numbers(2 * width, dtype), np.zeros(width, dtype)

    copy_tail(source, 3, min(tail, width), out, width)

    np.testing.assert_array_equal(out, [*source[3 : 3 + min(tail, width)], *[-np.inf] * (width - tail)])


@pytest.mark.parametrize("tail", TAILS)
def test_store_first_leaves_what_is_past_the_end(dtype, tail):
    width = WIDTHS[dtype]
    source, out = numbers(2 * width, dtype), np.full(width, 7, dtype)

    copy_tail(source, 0, width, out, min(tail, width))

    np.testing.assert_array_equal(out, [*source[: min(tail, width)], *[7] * (width - tail)])


def test_load_and_store_move_whole_vectors(dtype):
    source, out = numbers(4 * WIDTHS[dtype], dtype), np.zeros(4 * WIDTHS[dtype], dtype)

    copy_whole(source, out)

    np.testing.assert_array_equal(out, source)


@pytest.mark.parametrize(("kind", "values"), [("int32", [-1.0, 0.0, 2147483520.0]), ("float32", [0.1, -2.5, 1e30])])
def test_store_first_converts_to_the_dtype_of_the_array(dtype, kind, values):
    source, out = np.resize(np.array(values, dtype), WIDTHS[dtype]), np.zeros(WIDTHS[dtype], kind)

    copy_tail(source, 0, WIDTHS[dtype], out, WIDTHS[dtype])

    np.testing.assert_array_equal(out, source.astype(kind))


def test_every_half_loads_as_its_float32():
    patterns = np.arange(65536, dtype=np.uint16)

    found = widened(copy_whole, patterns)

    np.testing.assert_array_equal(found, patterns.view(np.float16).astype(np.float32))


def test_every_half_loads_as_its_float32_without_f16c(monkeypatch):
    monkeypatch.setattr(memory, "CONVERTS_HALVES", False)
    patterns = np.arange(65536, dtype=np.uint16)

    found = widened(fresh_copy(), patterns)

    np.testing.assert_array_equal(found, patterns.view(np.float16).astype(np.float32))


def test_every_half_keeps_the_sign_of_zero():
    found = widened(copy_whole, np.full(simd.FLOAT32_LANES, 0x8000, np.uint16))

    assert np.signbit(found).all()


def test_every_bfloat16_loads_as_its_float32():
    patterns = np.arange(65536, dtype=np.uint16)

    found = widened(copy_whole, patterns.view(np.int16))

    np.testing.assert_array_equal(found, patterns.view(ml_dtypes.bfloat16).astype(np.float32))


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("stored", ["uint16", "int16"])
def test_load_first_of_16_bit_floats_gives_minus_infinity_past_the_end(tail, stored):
    width, one = simd.FLOAT32_LANES, {"uint16": 0x3C00, "int16": 0x3F80}[stored]
    source, out = np.full(width, one, stored), np.zeros(width, np.float32)

    copy_tail(source, 0, tail, out, width)

    np.testing.assert_array_equal(out, [*[1] * tail, *[-np.inf] * (width - tail)])


@pytest.mark.parametrize("last", [0, 2, 100])
def test_load_integers_repeats_the_last_one_wanted(dtype, last):
    width = WIDTHS[dtype]
    source, out = np.arange(-1, 2 * width, dtype=np.int64), np.zeros(width, dtype)

    convert_integers(out, source, 1, last)

    np.testing.assert_array_equal(out, [source[1 + min(i, last)] for i in range(width)])


@pytest.mark.parametrize("columns", TAILS)
def test_load_columns_transposes_a_tile(dtype, columns):
    width = WIDTHS[dtype]
    columns = min(columns, width)
    source, tile = numbers(width * (width + 3), dtype), np.zeros(width * width + 5, dtype)

    load_tile(source, 2, width + 1, width - 1, columns, tile, 5)

    rows = [source[2 + r * (width + 1) :][:columns] for r in range(width)]
    expected = np.full((width, width), -np.inf)
    expected[:columns] = np.transpose(rows)
    np.testing.assert_array_equal(tile[5:].reshape(width, width), expected)


@pytest.mark.parametrize("last", [0, 1, 2])
def test_load_columns_repeats_the_last_row(dtype, last):
    width = WIDTHS[dtype]
    source, tile = numbers(width * width, dtype), np.zeros(width * width, dtype)

    load_tile(source, 0, width, last, width, tile, 0)

    expected = source.reshape(width, width)[np.minimum(np.arange(width), last)].T
    np.testing.assert_array_equal(tile.reshape(width, width), expected)


@pytest.mark.parametrize("columns", TAILS)
def test_store_columns_transposes_back_and_touches_nothing_else(dtype, columns):
    width = WIDTHS[dtype]
    columns, last = min(columns, width), width - 2
    tile, out = numbers(width * width, dtype), np.full((width, width), 7, dtype)
    tile.reshape(width, width)[:, last + 1] = tile.reshape(width, width)[:, last]  # rows past the end repeat the last

    store_tile(tile, 0, out.reshape(-1), 0, width, last, columns)

    expected = np.full((width, width), 7, dtype)
    expected[: last + 1, :columns] = tile.reshape(width, width)[:columns, : last + 1].T
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("classes", range(1, 9))
def test_rows_of_few_classes_are_taken_apart_and_put_together(dtype, classes):
    width = WIDTHS[dtype]
    classes = min(classes, width // 2)
    source = numbers(3 + width * classes, dtype)
    tile, out = np.full((classes + 1) * width, 7, dtype), np.full(width * classes + 4, 7, dtype)

    load_few(source, 3, classes, tile, 0)
    store_few(tile, 0, out, 2, classes)

    np.testing.assert_array_equal(tile[:-width].reshape(classes, width), source[3:].reshape(width, classes).T)
    np.testing.assert_array_equal(tile[-width:], 7)
    np.testing.assert_array_equal(out, [7, 7, *source[3:], 7, 7])


# ---- lane by lane


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (lambda x, y: x + y, np.add),
        (lambda x, y: x - y, np.subtract),
        (lambda x, y: x * y, np.multiply),
        (lambda x, y: x / y, np.divide),
        (simd.larger, lambda most, x: np.where(most < x, x, most)),
        (simd.smaller, lambda least, x: np.where(x < least, x, least)),
        (simd.at_least, lambda x, low: np.where(x < low, low, x)),
    ],
    ids=["+", "-", "*", "/", "larger", "smaller", "at_least"],
)
def test_operations_on_two_vectors_match_numpy(dtype, operation, expected):
    x, y = LEFT.astype(dtype), RIGHT.astype(dtype)

    found = of_two(operation)(x, y)

    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(found, expected(x, y))


@pytest.mark.parametrize(
    ("operation", "expected"), [(simd.nearest, np.rint), (simd.absolute, np.abs)], ids=["nearest", "absolute"]
)
def test_operations_on_one_vector_match_numpy(dtype, operation, expected):
    x = np.resize(np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 1e9, -np.inf, np.inf, np.nan, 0.49999997]), 32).astype(
        dtype
    )

    found = of_one(operation)(x)

    np.testing.assert_array_equal(found, expected(x))


@pytest.mark.parametrize("x", [0.0, -0.0, 1.0, -1.0, 1e-40, -1e-45, 3e38, "-max", -np.inf])
def test_next_above_matches_numpy(dtype, x):
    x = np.full(32, -np.finfo(dtype).max if x == "-max" else x, dtype)

    found = of_one(simd.next_above)(x)

    np.testing.assert_array_equal(found, np.nextafter(x, dtype(np.inf)))


@pytest.mark.parametrize("x", [np.inf, np.nan])
def test_nothing_is_above_infinity(dtype, x):
    found = of_one(simd.next_above)(np.full(32, x, dtype))

    np.testing.assert_array_equal(found, np.nan)


def test_larger_ignores_nan_on_the_right(dtype):
    nan, one = np.full(32, np.nan, dtype), np.ones(32, dtype)

    found = of_two(simd.larger)(one, nan)

    np.testing.assert_array_equal(found, 1)


def test_at_least_keeps_nan(dtype):
    nan, one = np.full(32, np.nan, dtype), np.ones(32, dtype)

    found = of_two(simd.at_least)(nan, one)

    np.testing.assert_array_equal(found, np.nan)


@pytest.mark.parametrize(
    ("operation", "compare"), [(simd.where_greater, np.greater), (simd.where_equal, np.equal)], ids=["greater", "equal"]
)
def test_where_chooses_by_an_ordered_comparison(dtype, operation, compare):
    x, y = LEFT.astype(dtype), RIGHT.astype(dtype)
    then, otherwise = np.full_like(x, 3), np.full_like(x, 4)

    found = of_four(operation)(x, y, then, otherwise)

    np.testing.assert_array_equal(found, np.where(compare(x, y), 3, 4))


def test_fma_rounds_once(dtype):
    eps = np.finfo(dtype).eps
    x, y, z = (np.full(32, value, dtype) for value in (1 + eps, 1 - eps, -1))

    found = of_three(simd.fma)(x, y, z)

    # (1 + e)(1 - e) - 1 = -e**2; rounded after the product it would be 0.
    np.testing.assert_array_equal(found, -(eps**2))


def test_fma_is_the_nearest_double_to_the_exact_result():
    rng = np.random.default_rng(0)
    x, y, z = rng.normal(size=(3, 256)) * 10.0 ** rng.integers(-8, 8, (3, 256))

    found = of_three(simd.fma)(x, y, z)

    exact = [float(Fraction(a) * Fraction(b) + Fraction(c)) for a, b, c in zip(x, y, z, strict=True)]
    np.testing.assert_array_equal(found, exact)


@pytest.mark.parametrize(
    ("kind", "magic", "lowest", "highest"), [(np.float32, 20, -126, 127), (np.float64, 49, -1022, 1023)]
)
def test_power_of_eighths_is_the_nearest_number(kind, magic, lowest, highest):
    powers = np.arange(lowest * 8, highest * 8 + 8) / 8
    biased = np.resize(kind(1.5 * 2**magic) - kind(lowest - 1) + powers, len(powers) // 32 * 32 + 32).astype(kind)

    found = of_one(simd.power_of_eighths)(biased)

    np.testing.assert_array_equal(found[: len(powers)], np.exp2(powers.astype(np.longdouble)).astype(kind))


@pytest.mark.parametrize(("kind", "magic"), [(np.float32, 20), (np.float64, 49)])
def test_power_of_eighths_is_zero_where_the_biased_exponent_is(kind, magic):
    found = of_one(simd.power_of_eighths)(np.full(32, 1.5 * 2**magic, kind))

    np.testing.assert_array_equal(found, 0)


def test_mantissa_lies_around_one(dtype):
    found = of_one(simd.mantissa)(positive(dtype))

    assert ((found >= 0.75) & (found < 1.5)).all()


def test_mantissa_and_exponent_make_the_number(dtype):
    x = positive(dtype)

    found = np.ldexp(of_one(simd.mantissa)(x), of_one(simd.exponent)(x).astype(int))

    np.testing.assert_array_equal(found, x)


def test_a_scalar_stands_for_every_lane(dtype):
    x = numbers(32, dtype)

    found = of_one(halved_plus_one)(x)

    np.testing.assert_array_equal(found, x * dtype(0.5) + dtype(1))


def test_lanes_fill_a_register(dtype):
    found = width_of(np.zeros(1, dtype))

    assert found == WIDTHS[dtype]


# ---- across lanes


@pytest.mark.parametrize("place", TAILS[:-1])
def test_largest_lane_is_found_in_every_lane(dtype, place):
    x = np.resize(numbers(32, dtype), WIDTHS[dtype])
    x[place % len(x)] = 1000

    found = largest_of(x)

    assert found == 1000


def test_sum_lanes_adds_in_float64():
    x = np.ones(simd.FLOAT32_LANES, np.float32)
    x[0] = 2**24  # in float32, 2**24 + 1 is 2**24

    found = sum_of(x)

    assert found == 2**24 + len(x) - 1


def test_sum_lanes_is_within_float64_rounding(dtype):
    x = np.random.default_rng(0).normal(size=WIDTHS[dtype]).astype(dtype)

    found = sum_of(x)

    # log2(lanes) additions, each rounding at most half an eps of at most the sum of magnitudes.
    assert abs(found - math.fsum(x)) <= 4 * np.finfo(np.float64).eps * np.abs(x).sum()


@pytest.mark.parametrize("place", TAILS[:-1])
def test_lane_is_one_number(dtype, place):
    x = numbers(WIDTHS[dtype], dtype)

    found = lane_of(x, place % len(x))

    assert found == x[place % len(x)]


@pytest.mark.parametrize("number", [-1, 0, 1, 7, 15, 16, 1000])
def test_without_lane_hides_that_lane_alone(dtype, number):
    x, out = numbers(WIDTHS[dtype], dtype), np.zeros(WIDTHS[dtype], dtype)

    hide_lane(x, number, out)

    np.testing.assert_array_equal(out, np.where(np.arange(len(x)) == number, -np.inf, x))


@pytest.mark.parametrize("place", TAILS)
def test_first_reaching_is_the_lowest_lane(dtype, place):
    place = min(place, WIDTHS[dtype])
    x = np.where(np.arange(WIDTHS[dtype]) < place, 1, 2).astype(dtype)

    found = first_of(x, dtype(2))

    assert found == place


def test_first_reaching_passes_over_nan(dtype):
    x = np.full(WIDTHS[dtype], np.nan, dtype)
    x[3] = 5

    found = first_of(x, dtype(2))

    assert found == 3


@pytest.mark.parametrize("place", TAILS)
def test_bits_reaching_are_those_of_larger_and_equal_lanes(dtype, place):
    x = np.where(np.arange(WIDTHS[dtype]) < place, 2, 1).astype(dtype)
    x[0], x[-1] = 3, np.nan

    found = bits_of(x, dtype(2))

    assert found == sum(1 << int(number) for number in np.flatnonzero(x >= 2))


@pytest.mark.parametrize("place", TAILS)
def test_bits_above_are_those_of_larger_lanes(dtype, place):
    x = np.where(np.arange(WIDTHS[dtype]) < place, 2, 1).astype(dtype)
    x[0], x[-1] = 3, np.nan

    found = bits_above_of(x, dtype(1))

    assert found == sum(1 << int(number) for number in np.flatnonzero(x > 1))


@pytest.mark.parametrize("bits", [0, 1, 0b1011, 2**62 + 1, -1, -(2**63)])
def test_count_bits_is_how_many_are_set(bits):
    found = count_bits_of(bits)

    assert found == (bits % 2**64).bit_count()


@pytest.mark.parametrize("number", [0, 1, 31, 32, 62, 63])
def test_lowest_bit_is_that_which_trailing_zeros_lead_to(number):
    bits = -1 << number

    found = lowest_bit_of(bits)

    assert found == number


def test_load_lanes_picks_a_row_of_a_tile_for_each_lane(dtype):
    width = 32  # lanes at most, so that any number of them finds its rows
    rows = np.random.default_rng(0).integers(0, 9, width)
    tile = np.arange(3 + 9 * width, dtype=dtype)
    out = np.full(width, -1, dtype)

    count = pick_lanes(tile, 3, rows.astype(dtype), out)

    lanes = np.arange(count)
    np.testing.assert_array_equal(out[:count], tile[3 + rows[:count] * count + lanes])
    np.testing.assert_array_equal(out[count:], -1)


# ---- exp2


@pytest.mark.parametrize(("letter", "kind", "bound_eps"), [("S", np.float32, 0.33), ("D", np.float64, 0.05)])
def test_polynomial_of_the_fraction_is_as_exact_as_it_must_be(letter, kind, bound_eps):
    coefficients = [value for name, value in sorted(vars(exp2).items()) if name[:2] == f"_{letter}" and len(name) == 3]
    f = np.linspace(-1 / 16, 1 / 16, 20_000, dtype=np.longdouble)

    found = 1 + f * np.polynomial.polynomial.polyval(f, np.array(coefficients, np.longdouble))

    assert np.max(np.abs(found / np.exp2(f) - 1)) < bound_eps * np.finfo(kind).eps


def test_no_constant_is_computed_by_the_lapack_of_the_machine():
    code = (
        "import numpy as np; np.linalg.lstsq = np.linalg.solve = np.linalg.inv = None; import softmax_dask.kernels.cpu"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")


# Of a ratio of two exponentials, which is what softmax divides out (2**-k cancels). It leaves to the sum and the
# division what is missing to the contract's 4 eps of float32 and 8 eps of float64.
@pytest.mark.parametrize(("kind", "bound_eps"), [(np.float32, 1.5), (np.float64, 6)])
@pytest.mark.parametrize("temperature", [0.1, 1.0, 1.7, 100.0])
@pytest.mark.parametrize("peak", [0.0, -37.3, 80.0, 1e4, 1e7, 1e30])
def test_ratios_of_exponentials_are_within_their_error_bound(kind, bound_eps, temperature, peak):
    x = (kind(peak) + np.linspace(-80 * temperature, 0, 4096)).astype(kind)

    powers = exponentials(x, x[-1], temperature).astype(np.longdouble)

    exact = np.exp((x.astype(np.longdouble) - x[-1]) / np.longdouble(temperature))
    assert np.max(np.abs(powers / powers[-1] - exact) / exact) <= bound_eps * np.finfo(kind).eps


@pytest.mark.parametrize(("x", "expected"), [(-np.inf, 0), (np.nan, np.nan), (-3e38, 0)])
def test_exponential_of_special_values(dtype, x, expected):
    found = exponentials(np.full(32, x, dtype), dtype(1), 1.0)

    np.testing.assert_array_equal(found, expected)


def test_exponential_of_the_peak_lies_around_one(dtype):
    peaks = np.random.default_rng(0).uniform(-1e4, 1e4, 64).astype(dtype)

    found = [exponentials(np.full(32, peak), peak, 1.7)[0] for peak in peaks]

    # k is the nearest integer, and one eps for rounding.
    assert all(0.5**0.5 - 1e-6 <= power <= 2**0.5 + 1e-6 for power in found)


@pytest.mark.parametrize("temperature", [1e-300, 0.1, 1.0, 1.7, 1e300])
def test_scale_has_about_twice_the_digits_of_a_float64(temperature):
    a_hi, a_lo, *_ = exp2.constants_of(temperature, np.float64)

    with localcontext(prec=60):
        exact = 1 / (Decimal(2).ln() * Decimal(temperature))
        error = abs((Decimal(float(a_hi)) + Decimal(float(a_lo))) / exact - 1)
    # Two parts of 53 bits: 2**-106, unless the low one is subnormal (at 1e300 it keeps 2**-1074 / 1e-300).
    assert error <= max(Decimal(2) ** -105, Decimal(2) ** -1074 / exact)


@pytest.mark.parametrize(("kind", "bound_eps"), [(np.float32, 2), (np.float64, 2)])
def test_log1p_is_within_two_eps(kind, bound_eps):
    x = np.concatenate([np.geomspace(1e-30, 1e30, 8191), [0]]).astype(kind)

    found = of_one(exp2.log1p)(x)

    exact = np.log1p(x.astype(np.longdouble))
    assert np.max(np.abs(found - exact)[:-1] / exact[:-1]) <= bound_eps * np.finfo(kind).eps


def test_log1p_of_zero_is_zero(dtype):
    found = of_one(exp2.log1p)(np.zeros(32, dtype))

    np.testing.assert_array_equal(found, 0)


def test_add_exactly_loses_nothing(dtype):
    rng = np.random.default_rng(0)
    terms = (rng.random(256) * 10.0 ** rng.integers(-3, 4, 256)).astype(dtype)

    total, lost = sum_exactly(np.repeat(terms, WIDTHS[dtype]))

    # Two floats hold twice the digits; only `lost`, a 256th of an eps of the total each step, is rounded.
    exact = sum(map(Fraction, terms.tolist()))
    assert abs(Fraction(total) + Fraction(lost) - exact) <= exact * Fraction(float(np.finfo(dtype).eps)) ** 2 * 256


# ---- samples


def numbers(count: int, dtype: Any) -> Any:
    return np.random.default_rng(count).normal(size=count).astype(dtype)


def positive(dtype: Any) -> Any:
    information = np.finfo(dtype)
    return np.geomspace(float(information.tiny), float(information.max) / 4, 4096).astype(dtype)


def widened(copy: Any, source: Any) -> Any:
    out = np.zeros(len(source), np.float32)
    copy(source, out)
    return out


def exponentials(x: Any, peak: Any, temperature: float) -> Any:
    out = np.zeros_like(x)
    fill_exponentials(x, peak, exp2.constants_of(temperature, x.dtype.type), out)
    return out


# ---- small compiled functions around the operations


@njit(error_model="numpy")
def copy_tail(source, index, wanted, out, stored):
    memory.store_first(out, 0, stored, memory.load_first(source, index, wanted))


def fresh_copy() -> Any:
    @njit(error_model="numpy")
    def copy(source, out):
        for i in range(0, out.size, simd.lanes(out)):
            memory.store(out, i, memory.load(source, i))

    return copy


copy_whole = fresh_copy()


@njit(error_model="numpy")
def convert_integers(out, source, index, last):
    memory.store(out, 0, memory.load_integers(out, source, index, last))


@njit(error_model="numpy")
def load_tile(source, start, stride, last, columns, tile, place):
    transpose.load_columns(source, start, stride, last, columns, tile, place)


@njit(error_model="numpy")
def load_few(source, start, classes, tile, place):
    transpose.load_few(source, start, classes, tile, place)


@njit(error_model="numpy")
def store_few(tile, place, out, start, classes):
    transpose.store_few(tile, place, out, start, classes)


@njit(error_model="numpy")
def store_tile(tile, place, out, start, stride, last, columns):
    transpose.store_columns(tile, place, out, start, stride, last, columns)


@njit(error_model="numpy")
def width_of(array):
    return simd.lanes(array)


@njit(error_model="numpy")
def largest_of(x):
    return simd.largest_lane(memory.load(x, 0))


@njit(error_model="numpy")
def sum_of(x):
    return simd.sum_lanes(memory.load(x, 0))


@njit(error_model="numpy")
def lane_of(x, number):
    return simd.lane(memory.load(x, 0), number)


@njit(error_model="numpy")
def hide_lane(x, number, out):
    memory.store(out, 0, simd.without_lane(memory.load(x, 0), number))


@njit(error_model="numpy")
def first_of(x, value):
    return simd.first_reaching(memory.load(x, 0), value)


@njit(error_model="numpy")
def bits_of(x, value):
    return simd.bits_reaching(memory.load(x, 0), value)


@njit(error_model="numpy")
def bits_above_of(x, value):
    return simd.bits_above(memory.load(x, 0), value)


@njit(error_model="numpy")
def count_bits_of(bits):
    return simd.count_bits(bits)


@njit(error_model="numpy")
def lowest_bit_of(bits):
    return simd.lowest_bit(bits)


@njit(error_model="numpy")
def halved_plus_one(x):
    return 1.0 + x * 0.5


@njit(error_model="numpy")
def fill_exponentials(x, peak, constants, out):
    scale = exp2.scale_in(constants)
    base = exp2.anchor(simd.fill(x, peak), scale)
    for i in range(0, x.size, simd.lanes(x)):
        memory.store(out, i, exp2.exponential(memory.load(x, i), base, scale)[0])


@njit(error_model="numpy")
def pick_lanes(tile, at, rows, out):
    memory.store(out, 0, memory.load_lanes(tile, at, memory.load(rows, 0)))
    return simd.lanes(tile)


@njit(error_model="numpy")
def sum_exactly(x):
    total, lost = simd.fill(x, 0.0), simd.fill(x, 0.0)
    for i in range(0, x.size, simd.lanes(x)):
        total, lost = exp2.add_exactly(total, lost, memory.load(x, i))
    return simd.lane(total, 0), simd.lane(lost, 0)


@cache
def of_one(operation: Any) -> Any:
    @njit(error_model="numpy")
    def fill_from(x, out):
        for i in range(0, x.size, simd.lanes(x)):
            memory.store(out, i, operation(memory.load(x, i)))

    return filled(fill_from)


@cache
def of_two(operation: Any) -> Any:
    step = operation if not hasattr(operation, "__code__") else njit(error_model="numpy")(operation)

    @njit(error_model="numpy")
    def fill_from(x, y, out):
        for i in range(0, x.size, simd.lanes(x)):
            memory.store(out, i, step(memory.load(x, i), memory.load(y, i)))

    return filled(fill_from)


@cache
def of_three(operation: Any) -> Any:
    @njit(error_model="numpy")
    def fill_from(x, y, z, out):
        for i in range(0, x.size, simd.lanes(x)):
            memory.store(out, i, operation(memory.load(x, i), memory.load(y, i), memory.load(z, i)))

    return filled(fill_from)


@cache
def of_four(operation: Any) -> Any:
    @njit(error_model="numpy")
    def fill_from(x, y, then, otherwise, out):
        for i in range(0, x.size, simd.lanes(x)):
            chosen = operation(memory.load(x, i), memory.load(y, i), memory.load(then, i), memory.load(otherwise, i))
            memory.store(out, i, chosen)

    return filled(fill_from)


def filled(fill_from: Any) -> Any:
    """`fill_from`, which fills its last argument, as a function that returns it."""

    def run(*arrays):
        out = np.zeros_like(arrays[0])
        fill_from(*arrays, out)
        return out

    return run
