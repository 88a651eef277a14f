"""One contract for the Jacobian kernels of every backend, against pairwise sums in x86's long double."""

from functools import cache
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest

FLOAT16, FLOAT32, FLOAT64 = (np.dtype(name) for name in ("float16", "float32", "float64"))
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = (FLOAT16, BFLOAT16, FLOAT32, FLOAT64)
# A class count of each structure of the kernels and beside their borders: part of a register, a tile, rows.
CLASS_COUNTS = (1, 2, 3, 10, 16, 24, 25, 100, 257)
FEW = (3, 10, 30, 100)
ROWS = 19
TEMPERATURES = (0.1, 1.0, 1.7, 100.0)
PRODUCTS = ("jvp_rows", "log_jvp_rows", "log_vjp_rows")

SPREADS = {
    "normal": lambda rng, shape: rng.normal(0, 6, shape),
    "uniform": lambda rng, shape: rng.uniform(-80, 80, shape),
    "offset 1e4": lambda rng, shape: 1e4 + rng.normal(0, 6, shape),
    "confident": lambda rng, shape: np.where(np.arange(shape[1]) == shape[1] // 2, 50, rng.normal(0, 3, shape)),
}
BAD_ROWS = {
    "NaN": lambda row: np.where(np.arange(row.size) == row.size // 2, np.nan, row),
    "+inf": lambda row: np.where(np.arange(row.size) == row.size // 2, np.inf, row),
    "only -inf": lambda row: np.full_like(row, -np.inf),
    "only NaN": lambda row: np.full_like(row, np.nan),
    "NaN beside -inf": lambda row: np.where(np.arange(row.size) == row.size - 1, np.nan, -np.inf),
}


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request: pytest.FixtureRequest) -> np.dtype[Any]:
    return request.param


# ---- the matrix


@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_entries_are_within_the_promised_relative_error(kernels, dtype, classes):
    logits, _ = sample(dtype, classes)

    found = matrices(kernels, logits)

    assert matrix_error(found, logits, 1.0) <= matrix_tolerance(dtype)


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("classes", FEW)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_entries_are_that_near_for_any_logits_and_temperature(kernels, classes, spread, temperature):
    logits, _ = sample(FLOAT32, classes, spread)

    found = matrices(kernels, logits, temperature)

    assert matrix_error(found, logits, temperature) <= matrix_tolerance(FLOAT32)


@pytest.mark.parametrize("temperature", [1e-35, 1e-20, 1e20, 1e30])
@pytest.mark.parametrize("classes", [3, 30])
def test_entries_are_that_near_at_the_ends_of_the_range_of_float32(kernels, classes, temperature):
    logits = (sample(FLOAT32, classes)[0] * min(temperature, 1)).astype(np.float32)

    found = matrices(kernels, logits, temperature)

    assert matrix_error(found, logits, temperature) <= matrix_tolerance(FLOAT32)


@pytest.mark.parametrize("classes", [2, 30])
def test_a_confident_winner_keeps_the_digits_of_its_complement(kernels, classes):
    logits = np.full((1, classes), -50.0, np.float32)
    logits[0, 0] = 0

    found = matrices(kernels, logits)[0, 0, 0]

    # s rounds to 1, and 1 - s = (classes - 1) e^-50 = 2e-22 would be 0.
    rest = (classes - 1) * np.exp(-50.0)
    np.testing.assert_allclose(found, rest / (1 + rest) ** 2, rtol=matrix_tolerance(FLOAT32))


@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_a_matrix_is_symmetric_to_the_bit(kernels, dtype, classes):
    logits, _ = sample(dtype, classes)

    found = matrices(kernels, logits, 1.7)

    assert found.tobytes() == np.ascontiguousarray(found.transpose(0, 2, 1)).tobytes()


@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_lines_of_a_matrix_sum_to_zero(kernels, dtype, classes):
    logits, _ = sample(dtype, classes)

    found = matrices(kernels, logits).astype(np.longdouble)

    # Diagonal and other entries are each within the tolerance of numbers that cancel exactly.
    bound = 2.1 * matrix_tolerance(dtype) * np.diagonal(found, axis1=1, axis2=2) + 1e-30
    assert (np.abs(found.sum(axis=2)) <= bound).all()


@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_a_matrix_is_positive_semi_definite(kernels, dtype, classes):
    logits, _ = sample(dtype, classes)

    found = matrices(kernels, logits).astype(np.float64)

    # Gershgorin: no eigenvalue lies further below 0 than a line's sum. eigvalsh itself is off by some eps of float64.
    smallest, largest = np.linalg.eigvalsh(found)[:, 0], np.abs(found).max(axis=(1, 2))
    assert (smallest >= -(2.1 * matrix_tolerance(dtype) + 1e-14 * classes) * largest - 1e-30).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("classes", [2, 10, 30])
def test_a_matrix_holds_the_central_differences_of_softmax(kernels, classes, temperature):
    logits, step = sample(FLOAT64, classes)[0][:3], np.longdouble(1e-6)
    moved = step * np.eye(classes, dtype=np.longdouble)
    ahead, behind = (shares(logits[:, None] + sign * moved, temperature) for sign in (1, -1))

    found = matrices(kernels, logits, temperature)

    # The error of central differences is step**2 / 6 times a third derivative of at most (1 / T)**3.
    differences = ((ahead - behind) / (2 * step)).transpose(0, 2, 1)
    np.testing.assert_allclose(found, differences.astype(float), rtol=0, atol=1e-11 / min(1, temperature) ** 3)


@pytest.mark.parametrize("classes", CLASS_COUNTS[1:])
def test_a_line_is_the_product_with_a_unit_vector(kernels, dtype, classes):
    logits, _ = sample(dtype, classes)
    unit = np.zeros(logits.shape, floats_of(dtype))
    unit[:, classes // 2] = 1

    found = multiplied(kernels, "jvp_rows", logits, unit)

    bound = product_bound("jvp_rows", logits, unit, 1.0) * (product_tolerance(dtype) + matrix_tolerance(dtype))
    assert (np.abs(found - matrices(kernels, logits)[:, :, classes // 2]) <= bound + 1e-30).all()


# ---- parts of it


@pytest.mark.parametrize("classes", [1, 2, 3, 10, 24, 25, 100])
@pytest.mark.parametrize("rows", [1, 7, 8, 9, 16, 17])
def test_rows_alone_have_the_bits_that_they_have_among_others(kernels, classes, rows):
    logits, _ = sample(FLOAT32, classes)

    found = matrices(kernels, logits[:rows])

    assert found.tobytes() == matrices(kernels, logits)[:rows].tobytes()


@pytest.mark.parametrize("classes", [3, 10, 24, 25, 100])
@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("height", [1, 2])
@pytest.mark.parametrize("second", [0, 1, 2])
@pytest.mark.parametrize("breadth", [1, 2, 20, 97])
def test_a_part_has_the_bits_of_the_whole(kernels, classes, first, height, second, breadth):
    logits, _ = sample(FLOAT32, classes)
    lines, columns = slice(first, min(first + height, classes)), slice(second, min(second + breadth, classes))
    whole = matrices(kernels, logits)[:, lines, columns]
    out = np.full(whole.shape, -77, np.float32)

    kernels.jacobian_rows(logits, out, 1.0, first, second)

    assert out.tobytes() == whole.tobytes()


@pytest.mark.parametrize("classes", CLASS_COUNTS)
@pytest.mark.parametrize("rows", [1, 7, 9])
def test_nothing_is_written_outside_the_matrices(kernels, classes, rows):
    logits, _ = sample(FLOAT32, classes)
    guarded = np.full((rows + 2, classes, classes), -77, np.float32)

    kernels.jacobian_rows(logits[:rows], guarded[1:-1], 1.0)

    np.testing.assert_array_equal(guarded[[0, -1]], -77)


# ---- products


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_products_are_within_the_promised_error(kernels, dtype, classes, name):
    logits, vectors = sample(dtype, classes)

    found = multiplied(kernels, name, logits, vectors)

    assert product_error(found, name, logits, vectors, 1.0) <= product_tolerance(dtype)


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("classes", FEW)
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("precision", [FLOAT32, FLOAT64], ids=str)
def test_products_are_that_near_for_any_logits_and_temperature(kernels, precision, classes, spread, temperature, name):
    logits, vectors = sample(precision, classes, spread)

    found = multiplied(kernels, name, logits, vectors, temperature)

    assert product_error(found, name, logits, vectors, temperature) <= product_tolerance(precision)


def test_the_gradient_of_a_confident_loss_keeps_its_digits(kernels):
    logits, target = np.array([[0.0, -50.0, -51.0]], np.float32), np.array([[-1.0, 0.0, 0.0]], np.float32)

    found = multiplied(kernels, "log_vjp_rows", logits, target)[0, 0]

    # -(1 - s), which would be 0 if it were computed from s.
    rest = np.exp(-50.0) + np.exp(-51.0)
    np.testing.assert_allclose(found, -rest / (1 + rest), rtol=product_tolerance(FLOAT32))


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("classes", [1, 3, 10, 100])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_not_finite_makes_its_row_nan(kernels, classes, name, value):
    logits, vectors = sample(FLOAT32, classes)
    vectors = vectors.copy()
    vectors[5, classes // 2] = value

    found = multiplied(kernels, name, logits, vectors)

    np.testing.assert_array_equal(np.isnan(found).all(axis=1), np.arange(ROWS) == 5)


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("classes", FEW)
@pytest.mark.parametrize("split", [1, 8, 18])
def test_a_split_of_the_rows_changes_no_bit_of_products(kernels, classes, split, name):
    logits, vectors = sample(FLOAT32, classes)

    parts = [multiplied(kernels, name, logits[at], vectors[at]) for at in (slice(None, split), slice(split, None))]

    assert np.concatenate(parts).tobytes() == multiplied(kernels, name, logits, vectors).tobytes()


# ---- undecidable rows and masks


@pytest.mark.parametrize("bad", BAD_ROWS)
@pytest.mark.parametrize("classes", [1, 3, 10, 30, 100])
def test_matrices_of_undecidable_rows_are_nan_and_their_neighbours_keep_their_bits(kernels, dtype, classes, bad):
    logits = spoilt(dtype, classes, bad)

    found = matrices(kernels, logits)

    expected = matrices(kernels, sample(dtype, classes)[0])
    expected[7] = np.nan
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("bad", BAD_ROWS)
@pytest.mark.parametrize("classes", [1, 3, 10, 30, 100])
def test_products_of_undecidable_rows_are_nan_and_their_neighbours_keep_their_bits(kernels, classes, bad, name):
    logits, (clean, vectors) = spoilt(FLOAT32, classes, bad), sample(FLOAT32, classes)

    found = multiplied(kernels, name, logits, vectors)

    expected = multiplied(kernels, name, clean, vectors)
    expected[7] = np.nan
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("classes", FEW)
def test_masked_classes_have_rows_and_columns_of_plain_zeros(kernels, dtype, classes):
    logits = masked(dtype, classes)

    found = matrices(kernels, logits)[:, 1::2]

    assert found.tobytes() == bytes(found.nbytes)  # and not -0


@pytest.mark.parametrize("classes", FEW)
def test_the_other_classes_of_masked_rows_have_the_matrix_without_the_masked_ones(kernels, classes):
    logits = masked(FLOAT32, classes)

    found = matrices(kernels, logits)[:, ::2, ::2]

    assert matrix_error(found, logits[:, ::2], 1.0) <= matrix_tolerance(FLOAT32)


@pytest.mark.parametrize("classes", FEW)
def test_a_product_is_zero_where_the_class_is_masked(kernels, dtype, classes):
    found = multiplied(kernels, "jvp_rows", masked(dtype, classes), sample(dtype, classes)[1])

    np.testing.assert_array_equal(found[:, 1::2], 0)


@pytest.mark.parametrize("name", ["jacobian_rows", "jvp_rows"])
def test_one_class_has_derivative_zero(kernels, name):
    logits, out = np.array([[-3e38], [0.0], [7.0]], np.float32), np.full((3, 1, 1), -77, np.float32)

    if name == "jacobian_rows":
        kernels.jacobian_rows(logits, out, 1.7)
    else:
        kernels.jvp_rows(logits, np.full((3, 1), 5, np.float32), out[:, 0], 1.7)

    np.testing.assert_array_equal(out, 0)


# ---- rows as they lie in memory


@pytest.mark.parametrize("classes", FEW)
def test_rows_of_logits_and_vectors_may_lie_apart(kernels, dtype, classes):
    logits, vectors = sample(dtype, classes)
    apart, vectors_apart = (np.full((ROWS, classes + 5), np.nan, a.dtype)[:, 2:-3] for a in (logits, vectors))
    apart[...], vectors_apart[...] = logits, vectors

    found = multiplied(kernels, "log_vjp_rows", apart, vectors_apart)

    assert found.tobytes() == multiplied(kernels, "log_vjp_rows", logits, vectors).tobytes()


@pytest.mark.parametrize("name", ["jacobian_rows", *PRODUCTS])
def test_no_rows_are_fine(kernels, name):
    logits, out = np.empty((0, 5), np.float32), np.empty((0, 5, 5), np.float32)

    if name == "jacobian_rows":
        kernels.jacobian_rows(logits, out, 1.0)
    else:
        getattr(kernels, name)(logits, logits, out[:, 0], 1.0)

    assert out.size == 0


# ---- samples and calls


@cache
def sample(dtype: np.dtype[Any], classes: int, spread: str = "normal") -> tuple[Any, Any]:
    """Logits and vectors, (19, classes)."""
    rng = np.random.default_rng(classes)
    logits = SPREADS[spread](rng, (ROWS, classes)).astype(dtype)
    return logits, rng.normal(1, 3, (ROWS, classes)).astype(floats_of(dtype))


def spoilt(dtype: np.dtype[Any], classes: int, bad: str) -> Any:
    logits = sample(dtype, classes)[0].copy()
    logits[7] = BAD_ROWS[bad](logits[7].astype(np.float64))
    return logits


def masked(dtype: np.dtype[Any], classes: int) -> Any:
    logits = sample(dtype, classes)[0].copy()
    logits[:, 1::2] = -np.inf
    return logits


def floats_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return FLOAT64 if dtype == FLOAT64 else FLOAT32


def matrices(kernels: ModuleType, logits: Any, temperature: float = 1.0) -> Any:
    out = np.full((*logits.shape, logits.shape[1]), -77, floats_of(logits.dtype))
    kernels.jacobian_rows(logits, out, temperature)
    return out


def multiplied(kernels: ModuleType, name: str, logits: Any, vectors: Any, temperature: float = 1.0) -> Any:
    out = np.full(logits.shape, -77, floats_of(logits.dtype))
    getattr(kernels, name)(logits, vectors, out, temperature)
    return out


# ---- truth: no sum below has terms that cancel more than the answer does


def shares(logits: Any, temperature: float) -> Any:
    x = (logits.astype(np.float64) if logits.dtype == BFLOAT16 else logits).astype(np.longdouble)
    terms = np.exp((x - x.max(axis=-1, keepdims=True)) / np.longdouble(temperature))
    return terms / terms.sum(axis=-1, keepdims=True)


def matrix_error(found: Any, logits: Any, temperature: float) -> float:
    """The largest relative error of entries above 1e-30 of probabilities (and complements) above 1e-30."""
    s = shares(logits, temperature)
    off_diagonal = s[:, :, None] * s[:, None, :] * (1 - np.eye(s.shape[1]))
    exact = np.einsum("ij,jk->ijk", off_diagonal.sum(axis=2), np.eye(s.shape[1])) - off_diagonal
    exact = exact / np.longdouble(temperature)
    likely = np.minimum(s, off_diagonal.sum(axis=2)) > 1e-30
    counted = (np.abs(exact) > 1e-30) & likely[:, :, None] & likely[:, None, :]
    return float((np.abs(found - exact)[counted] / np.abs(exact[counted])).max(initial=0))


def product_error(found: Any, name: str, logits: Any, vectors: Any, temperature: float) -> float:
    """The largest error in units of the bound of the contract."""
    s, v = shares(logits, temperature), vectors.astype(np.longdouble)
    if name == "log_vjp_rows":
        exact = (s[:, None, :] * v[:, :, None] - s[:, :, None] * v[:, None, :]).sum(axis=2)
    else:
        exact = (s[:, None, :] * (v[:, :, None] - v[:, None, :])).sum(axis=2) * (s if name == "jvp_rows" else 1)
    errors = np.abs(found - exact / np.longdouble(temperature))
    return float((errors / (product_bound(name, logits, vectors, temperature) + 1e-30)).max())


def product_bound(name: str, logits: Any, vectors: Any, temperature: float) -> Any:
    """jvp: s_k (|v_k - v_w| + <s, |v - v_w|>) / T, log_jvp: without s_k; log_vjp: the same sums without signs."""
    s, v = shares(logits, temperature), np.abs(vectors.astype(np.longdouble))
    if name == "log_vjp_rows":
        others = s.sum(axis=1, keepdims=True) - s
        return (others * v + s * (v.sum(axis=1, keepdims=True) - v)) / np.longdouble(temperature)
    winner = logits.astype(np.float64).argmax(axis=1)[:, None]
    gaps = np.abs(vectors.astype(np.longdouble) - np.take_along_axis(vectors, winner, axis=1))
    sizes = gaps + (s * gaps).sum(axis=1, keepdims=True)
    return (sizes * s if name == "jvp_rows" else sizes) / np.longdouble(temperature)


def matrix_tolerance(dtype: np.dtype[Any]) -> float:
    """The contract: two factors of 4 eps each (8 for float64) and the roundings of their product."""
    return float(20 * np.finfo(FLOAT64).eps if dtype == FLOAT64 else 10 * np.finfo(FLOAT32).eps)


def product_tolerance(dtype: np.dtype[Any]) -> float:
    """The contract: a probability outside and one inside the mean, the sum, and roundings."""
    return float(24 * np.finfo(FLOAT64).eps if dtype == FLOAT64 else 16 * np.finfo(FLOAT32).eps)
