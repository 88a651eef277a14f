"""One contract for the row kernels of every backend: each column, in each dtype, against exact arithmetic."""

from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest

FLOAT16, FLOAT32, FLOAT64 = (np.dtype(name) for name in ("float16", "float32", "float64"))
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = (FLOAT16, BFLOAT16, FLOAT32, FLOAT64)
EVERY_CLASS_COUNT = (1, 2, 3, 15, 16, 17, 100, 128, 129, 256, 257, 1000, 1024, 1025, 4097)
# A class count of each structure of the kernels: a tile, a tile beside a row, a row, several blocks of a row.
CLASS_COUNTS = (3, 100, 200, 257, 2500)
ROWS = 33

INTEGERS = ("label", "target_rank")
WIDE = ("probabilities", "log_probabilities")
SCALARS = ("confidence", "margin", "entropy", "logsumexp", "max_logit", "nll", "target_probability", "brier")
COLUMNS = (*INTEGERS, *SCALARS, *WIDE)
NEED_TARGETS = ("nll", "target_probability", "brier", "target_rank")


class Case(NamedTuple):
    """Logits to decide."""

    dtype: np.dtype[Any]
    classes: int
    spread: str = "normal"
    temperature: float = 1.0

    def __str__(self) -> str:
        return f"{self.dtype}-{self.classes}-{self.spread}-T{self.temperature:g}"


SPREADS = {
    "normal": lambda rng, shape: rng.normal(0, 6, shape),
    "uniform": lambda rng, shape: rng.uniform(-80, 80, shape),
    "offset 1e4": lambda rng, shape: 1e4 + rng.normal(0, 6, shape),
    "offset 1e7": lambda rng, shape: 1e7 + rng.normal(0, 6, shape),
    "offset -1e7": lambda rng, shape: -1e7 + rng.normal(0, 6, shape),
}
CASES = [Case(dtype, classes) for dtype in DTYPES for classes in EVERY_CLASS_COUNT] + [
    Case(dtype, classes, spread, temperature)
    for dtype in (FLOAT32, FLOAT64)
    for classes in (16, 257, 1025)
    for spread in SPREADS
    for temperature in (0.1, 1.0, 1.7, 100.0)
    if (spread, temperature) != ("normal", 1.0)
]


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


# ---- finite rows


def test_softmax_rows_are_within_the_promised_relative_error(kernels, case):
    logits, _ = sample(case)

    found = probabilities_of(kernels, logits, case.temperature)

    assert relative_error(found, exact(case)["probabilities"]) <= probability_tolerance(case.dtype, kernels)


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
def test_a_sum_of_one_and_many_small_terms_is_within_the_promised_relative_error(kernels, dtype):
    # Each small term is about half an eps: a plain sum, in which it follows the 1, loses it.
    for classes in (10, 16, 33, 100, 129, 252, 257, 1025):
        rng, small = np.random.default_rng(classes), float(np.log(np.finfo(dtype).eps / 2))
        logits = small + rng.uniform(-0.1, 0.2, (99, 1)) + rng.normal(0, 0.01, (99, classes))
        logits[range(99), np.arange(99) % 3] = 0.0
        expected = exact_columns(logits.astype(dtype), np.zeros(99, np.int64), 1.0)["probabilities"]

        found = probabilities_of(kernels, logits.astype(dtype))
        beside = decide(kernels, logits.astype(dtype), None, ("label", "probabilities"), 1.0)["probabilities"]

        tolerance = probability_tolerance(dtype, kernels)
        assert relative_error(found, expected) <= tolerance, classes
        assert relative_error(beside, expected) <= tolerance, classes


def test_a_sum_of_float64_over_many_blocks_is_within_the_promised_relative_error(kernels):
    # Two classes tie far above all others, of which those of a block of 1024 together are less than half an eps.
    logits = np.random.default_rng(1).normal(np.log(1e-16 / 1024), 0.01, (2, 100_000))
    logits[:, [0, 3]] = 0.0
    expected = exact_columns(logits, None, 1.0)

    found = decide(kernels, logits, None, ("confidence", "probabilities"), 1.0)

    for column in found:
        assert relative_error(found[column], expected[column]) <= 8 * eps_of(FLOAT64), column
    assert relative_error(probabilities_of(kernels, logits), expected["probabilities"]) <= 8 * eps_of(FLOAT64)


def test_far_float64_logits_that_rise_along_the_row_are_within_the_promised_relative_error(kernels):
    if kernels.__name__.endswith("cuda"):
        pytest.skip("not kept by the CUDA kernels yet: docs/numerics.md")
    # The largest logit of each block is a little above that of the one before.
    logits = 1e10 + np.repeat([np.arange(244) / 244], 1024, axis=1)

    found = decide(kernels, logits, None, ("confidence",), 1.0)["confidence"]

    assert relative_error(found, exact_columns(logits, None, 1.0)["confidence"]) <= 8 * eps_of(FLOAT64)


def test_an_exponential_of_float64_takes_less_than_half_of_the_promised_error(kernels):
    # The other half is for the sum, which is exact here: of two terms, one of them 1. Over a factor of two, and more.
    logits = np.stack([np.zeros(2000), np.linspace(-41, -40, 2000)], axis=1)

    found = probabilities_of(kernels, logits)

    assert relative_error(found, exact_columns(logits, None, 1.0)["probabilities"]) <= 3.5 * eps_of(FLOAT64)


def test_softmax_rows_sum_to_one(kernels, case):
    logits, _ = sample(case)

    found = probabilities_of(kernels, logits, case.temperature)

    # The contract: within 1e-6, summed in float64.
    np.testing.assert_allclose(found.sum(axis=1, dtype=np.float64), 1, rtol=0, atol=1e-6)


def test_probabilities_beside_other_columns_are_within_the_promised_relative_error(kernels, case):
    found = decided(kernels, case)["probabilities"]

    assert relative_error(found, exact(case)["probabilities"]) <= probability_tolerance(case.dtype, kernels)


@pytest.mark.parametrize("column", ["confidence", "target_probability"])
def test_probabilities_of_single_classes_are_within_the_promised_relative_error(kernels, case, column):
    found = decided(kernels, case)[column]

    assert relative_error(found, exact(case)[column]) <= probability_tolerance(case.dtype, kernels)


@pytest.mark.parametrize("column", INTEGERS)
def test_label_and_rank_are_exact(kernels, case, column):
    found = decided(kernels, case)[column]

    np.testing.assert_array_equal(found, exact(case)[column])


def test_max_logit_is_the_largest_logit_as_stored(kernels, case):
    found = decided(kernels, case)["max_logit"]

    np.testing.assert_array_equal(found, exact(case)["max_logit"].astype(found.dtype))


def test_margin_is_within_four_eps(kernels, case):
    found = decided(kernels, case)["margin"]

    np.testing.assert_allclose(found, exact(case)["margin"], rtol=0, atol=4 * eps_of(case.dtype))


def test_entropy_is_within_the_promised_error(kernels, case):
    found = decided(kernels, case)["entropy"]

    # The contract: 2e-6 nats.
    np.testing.assert_allclose(found, exact(case)["entropy"], rtol=0, atol=2e-6)


@pytest.mark.parametrize("halves", [False, True], ids=["equal", "two kinds"])
def test_entropy_of_many_equal_logits_is_within_the_promised_error(kernels, halves):
    # Roundings of a sum of equal terms are alike, and add up.
    for classes in (256, 1000, 1024, 4096):
        rng = np.random.default_rng(classes)
        logits = np.repeat(rng.uniform(-9, -2, (200, 1)), classes, axis=1)
        if halves:
            logits[:, classes // 2 :] -= rng.uniform(0, 3, (200, 1))
        logits[:, 0] = 0.0
        logits = logits.astype(np.float32)

        found = decide(kernels, logits, None, ("entropy",), 1.0)["entropy"]

        expected = exact_columns(logits, None, 1.0)["entropy"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6, err_msg=str(classes))


def test_brier_is_within_the_promised_error(kernels, case):
    found = decided(kernels, case)["brier"]

    np.testing.assert_allclose(found, exact(case)["brier"], rtol=0, atol=brier_tolerance(case.dtype, kernels))


def test_brier_of_confident_rows_keeps_its_digits(kernels):
    gap = 15.0
    logits = np.array([[0.0, -gap, -np.inf]], np.float32)

    found = decide(kernels, logits, np.array([0]), ("brier",), 1.0)

    # Two classes: p = 1 / (1 + e) and 1 - p, so that the score is 2 (1 - p)^2. An exponential is within 4 eps.
    np.testing.assert_allclose(found["brier"], 2 * (np.exp(-gap) / (1 + np.exp(-gap))) ** 2, rtol=8 * eps_of(FLOAT32))


@pytest.mark.parametrize("column", ["logsumexp", "nll", "log_probabilities"])
def test_logarithms_are_within_four_eps_of_the_largest_number_involved(kernels, case, column):
    truth = exact(case)

    found = decided(kernels, case)[column]

    assert_logarithm(found, truth[column], truth, case.dtype)


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
def test_a_logsumexp_near_zero_is_within_four_eps_of_the_logarithm_of_its_sum(kernels, dtype):
    temperature, classes = 0.1, 1000
    rng = np.random.default_rng(1)
    logits = temperature * (rng.normal(0, 0.3, (ROWS, classes)) - np.log(classes) + rng.normal(0, 0.02, (ROWS, 1)))
    truth = exact_columns(logits.astype(dtype), None, temperature)

    found = decide(kernels, logits.astype(dtype), None, ("logsumexp",), temperature)["logsumexp"]

    assert_logarithm(found, truth["logsumexp"], truth, dtype)


def test_logarithms_of_confident_rows_keep_their_digits(kernels):
    gap = 30.0
    logits = np.array([[0.0, -gap, -np.inf]], np.float32)

    found = decide(kernels, logits, np.array([0]), ("nll", "entropy"), 1.0)

    # log1p(e) is e to within e / 2; 4 eps of that, and not 4 eps of 1, because the winner's term is kept apart.
    np.testing.assert_allclose(found["nll"], np.exp(-gap), rtol=4 * eps_of(FLOAT32))


# ---- any number of rows, any split of them


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", CLASS_COUNTS)
@pytest.mark.parametrize("rows", [1, 2, 15, 16, 17])
def test_rows_alone_have_the_bits_that_they_have_among_others(kernels, dtype, classes, rows):
    case = Case(dtype, classes)
    logits, targets = sample(case)

    found = decide(kernels, logits[:rows], targets[:rows], COLUMNS, 1.0)

    assert_same_bits(found, {name: array[:rows] for name, array in decided(kernels, case).items()})


@pytest.mark.parametrize("classes", CLASS_COUNTS)
@pytest.mark.parametrize("split", range(1, ROWS))
def test_a_split_of_the_rows_changes_no_bit(kernels, classes, split):
    case = Case(FLOAT32, classes)
    logits, targets = sample(case)

    parts = [
        decide(kernels, logits[part], targets[part], COLUMNS, 1.0) for part in (slice(None, split), slice(split, None))
    ]

    joined = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
    assert_same_bits(joined, decided(kernels, case))


@pytest.mark.parametrize("classes", CLASS_COUNTS)
@pytest.mark.parametrize("split", range(1, ROWS, 5))
def test_a_split_of_the_rows_changes_no_bit_of_softmax_rows(kernels, classes, split):
    logits, _ = sample(Case(FLOAT32, classes))

    parts = [probabilities_of(kernels, part) for part in (logits[:split], logits[split:])]

    np.testing.assert_array_equal(np.concatenate(parts), probabilities_of(kernels, logits))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_rows_are_fine(kernels, dtype):
    logits = np.empty((0, 5), dtype)

    found = decide(kernels, logits, np.empty(0, np.int64), COLUMNS, 1.0)

    assert {array.shape[0] for array in found.values()} == {0}


@pytest.mark.parametrize("classes", CLASS_COUNTS)
@pytest.mark.parametrize("rows", [1, 15, 17])
def test_nothing_is_written_outside_the_rows(kernels, classes, rows):
    logits, targets = sample(Case(FLOAT32, classes))
    guarded = allocate(("label", "confidence", "probabilities"), rows + 2, classes, FLOAT32)
    before = {name: array.copy() for name, array in guarded.items()}

    kernels.decision_rows(logits[:rows], targets[:rows], {name: a[1:-1] for name, a in guarded.items()}, 1.0)

    assert_same_bits({n: a[[0, -1]] for n, a in guarded.items()}, {n: a[[0, -1]] for n, a in before.items()})


# ---- columns beside each other


@pytest.mark.parametrize("classes", CLASS_COUNTS)
@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_alone_has_the_bits_that_it_has_among_all(kernels, classes, column):
    case = Case(FLOAT32, classes)
    logits, targets = sample(case)

    found = decide(kernels, logits, targets if column in NEED_TARGETS else None, (column,), 1.0)

    assert_same_bits(found, {column: decided(kernels, case)[column]})


@pytest.mark.parametrize("classes", CLASS_COUNTS)
@pytest.mark.parametrize("column", COLUMNS)
def test_leaving_a_column_out_changes_no_bit_of_the_others(kernels, classes, column):
    case = Case(FLOAT32, classes)
    logits, targets = sample(case)
    others = tuple(name for name in COLUMNS if name != column)

    found = decide(kernels, logits, targets, others, 1.0)

    assert_same_bits(found, {name: decided(kernels, case)[name] for name in others})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_probabilities_agree_with_softmax_rows(kernels, dtype, classes):
    case = Case(dtype, classes)
    logits, _ = sample(case)

    found = decided(kernels, case)["probabilities"]

    # Each is within the tolerance of the exact value, so they are within twice of each other.
    expected = probabilities_of(kernels, logits)
    assert relative_error(found, expected) <= 2 * probability_tolerance(dtype, kernels)


# ---- rows that lie next to each other, as in (N, C, H, W)

PLANES = ((1, ROWS), (3, 11), (11, 3), (ROWS, 1))
"""Groups, and rows of a group: more than a register, less, and one."""


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", [1, 2, 3, 7, 8, 17, 100, 150, 256])
@pytest.mark.parametrize("planes", PLANES, ids=str)
def test_columns_of_planes_have_the_bits_of_rows(kernels, dtype, classes, planes):
    require_planes(kernels, ("label", "probabilities"), classes)
    case = Case(dtype, classes)
    logits, targets = sample(case)
    out = {name: as_planes(array, planes) if name in WIDE else array for name, array in allocated(logits).items()}

    kernels.decision_rows(as_planes(logits, planes), targets, out, 1.0)

    assert_same_bits(
        {name: array.reshape(decided(kernels, case)[name].shape) for name, array in out.items()}, decided(kernels, case)
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", [1, 2, 3, 8, 17, 40, 100, 150])
@pytest.mark.parametrize("planes", PLANES, ids=str)
@pytest.mark.parametrize("results", ["planes", "rows"])
def test_softmax_of_planes_has_the_bits_of_rows(kernels, dtype, classes, planes, results):
    require_planes(kernels, ("probabilities",), classes)
    logits, _ = sample(Case(dtype, classes))
    empty = allocated(logits)["probabilities"]
    out = as_planes(empty, planes) if results == "planes" else empty.reshape(*planes, classes)

    kernels.softmax_rows(as_planes(logits, planes), out, 1.0)

    np.testing.assert_array_equal(out.reshape(logits.shape), probabilities_of(kernels, logits))


@pytest.mark.parametrize("classes", [2, 17])
@pytest.mark.parametrize("planes", PLANES, ids=str)
def test_nothing_is_written_between_planes(kernels, classes, planes):
    require_planes(kernels, ("probabilities",), classes)
    logits, _ = sample(Case(FLOAT32, classes))
    groups, rows = planes
    guarded = np.full((groups, classes + 1, rows + 1), -77, np.float32)

    kernels.softmax_rows(as_planes(logits, planes), guarded[:, :-1, :-1].swapaxes(1, 2), 1.0)

    assert {*guarded[:, -1].flat, *guarded[:, :, -1].flat} == {-77}


# ---- undecidable rows

BAD_ROWS = {
    "NaN": lambda row, place: put(row, place, np.nan),
    "+inf": lambda row, place: put(row, place, np.inf),
    "only -inf": lambda row, place: np.full_like(row, -np.inf),
    "NaN beside -inf": lambda row, place: put(np.full_like(row, -np.inf), place, np.nan),
    "+inf beside -inf": lambda row, place: put(np.full_like(row, -np.inf), place, np.inf),
    "NaN beside +inf": lambda row, place: put(put(row, 0, np.inf), -1, np.nan),
    "only NaN": lambda row, place: np.full_like(row, np.nan),
}
PLACES = {"first": 0, "middle": 0.6, "last": -1}
DTYPES_AND_PLACES = [(dtype, "middle") for dtype in DTYPES] + [(FLOAT32, "first"), (FLOAT32, "last")]


@pytest.fixture(params=BAD_ROWS)
def bad(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize(("dtype", "place"), DTYPES_AND_PLACES, ids=str)
@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_undecidable_rows_have_the_values_of_the_table(kernels, dtype, classes, place, bad):
    logits, targets, spoilt = spoil(Case(dtype, classes), bad, place)

    found = decide(kernels, logits, targets, COLUMNS, 1.0)

    expected = {name: np.full_like(a[spoilt], -1 if name in INTEGERS else np.nan) for name, a in found.items()}
    assert_same_values({name: array[spoilt] for name, array in found.items()}, expected)


@pytest.mark.parametrize(("dtype", "place"), DTYPES_AND_PLACES, ids=str)
@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_softmax_of_undecidable_rows_is_nan(kernels, dtype, classes, place, bad):
    logits, _, spoilt = spoil(Case(dtype, classes), bad, place)

    found = probabilities_of(kernels, logits)

    np.testing.assert_array_equal(found[spoilt], np.nan)


@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_undecidable_rows_change_no_bit_of_their_neighbours(kernels, classes, bad):
    case = Case(FLOAT32, classes)
    logits, targets, spoilt = spoil(case, bad, "middle")

    found = decide(kernels, logits, targets, COLUMNS, 1.0)

    kept = np.setdiff1d(np.arange(ROWS), spoilt)
    assert_same_bits(
        {name: array[kept] for name, array in found.items()},
        {name: array[kept] for name, array in decided(kernels, case).items()},
    )


@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_undecidable_rows_change_no_bit_of_the_softmax_of_their_neighbours(kernels, classes, bad):
    logits, _, spoilt = spoil(Case(FLOAT32, classes), bad, "middle")

    found = probabilities_of(kernels, logits)

    clean = probabilities_of(kernels, sample(Case(FLOAT32, classes))[0])
    kept = np.setdiff1d(np.arange(ROWS), spoilt)
    np.testing.assert_array_equal(found[kept], clean[kept])


def test_an_undecidable_single_class_is_undecidable(kernels):
    logits = np.array([[np.nan], [np.inf], [-np.inf], [0.0]], np.float32)

    found = decide(kernels, logits, None, ("label", "confidence"), 1.0)

    np.testing.assert_array_equal(found["label"], [-1, -1, -1, 0])


# ---- masks

MASKS = {
    "half at random": lambda rng, shape: rng.random(shape) < 0.5,
    "all but one": lambda rng, shape: np.arange(shape[1]) != shape[1] * 2 // 3,
    "first block": lambda rng, shape: np.broadcast_to(np.arange(shape[1]) < min(1024, shape[1] - 1), shape),
    "last block": lambda rng, shape: np.broadcast_to(np.arange(shape[1]) >= max(1, shape[1] - 1024), shape),
    "every second": lambda rng, shape: np.broadcast_to(np.arange(shape[1]) % 2 == 1, shape),
}


@pytest.fixture(params=MASKS)
def mask(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_masked_classes_have_probability_exactly_zero(kernels, dtype, classes, mask):
    logits, _ = masked(dtype, classes, mask)

    found = decide(kernels, logits, None, ("probabilities",), 1.0)["probabilities"]

    assert not found[np.isneginf(logits)].any()


@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_masked_classes_have_probability_exactly_zero_in_softmax_rows(kernels, classes, mask):
    logits, _ = masked(FLOAT32, classes, mask)

    found = probabilities_of(kernels, logits)

    assert not found[np.isneginf(logits)].any()


@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_masked_classes_have_log_probability_minus_infinity(kernels, classes, mask):
    logits, _ = masked(FLOAT32, classes, mask)

    found = decide(kernels, logits, None, ("log_probabilities",), 1.0)["log_probabilities"]

    np.testing.assert_array_equal(np.isneginf(found), np.isneginf(logits))


@pytest.mark.parametrize("dtype", [FLOAT16, FLOAT32], ids=str)
@pytest.mark.parametrize("classes", CLASS_COUNTS)
@pytest.mark.parametrize("column", COLUMNS)
def test_columns_of_masked_rows_are_those_of_the_other_classes(kernels, dtype, classes, mask, column):
    logits, targets = masked(dtype, classes, mask)

    found = decide(kernels, logits, targets, (column,), 1.0)[column]

    assert_column(column, found, exact_columns(logits, targets, 1.0), dtype, kernels)


@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_a_masked_target_has_probability_zero(kernels, classes):
    logits, targets = masked_targets(classes)

    found = decide(kernels, logits, targets, ("target_probability",), 1.0)

    np.testing.assert_array_equal(found["target_probability"], 0)


@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_a_masked_target_has_infinite_nll(kernels, classes):
    logits, targets = masked_targets(classes)

    found = decide(kernels, logits, targets, ("nll",), 1.0)

    np.testing.assert_array_equal(found["nll"], np.inf)


@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_a_masked_target_ranks_after_earlier_masked_classes(kernels, classes):
    logits, targets = masked_targets(classes)

    found = decide(kernels, logits, targets, ("target_rank",), 1.0)

    higher = (logits > -np.inf).sum(axis=1)
    earlier = [np.isneginf(row[:target]).sum() for row, target in zip(logits, targets, strict=True)]
    np.testing.assert_array_equal(found["target_rank"], higher + earlier)


# ---- ties


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", [2, *CLASS_COUNTS])
def test_the_lowest_class_wins_a_tie(kernels, dtype, classes):
    logits, tied = tie(dtype, classes)

    found = decide(kernels, logits, None, ("label",), 1.0)["label"]

    np.testing.assert_array_equal(found, tied.min(axis=1))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", [2, *CLASS_COUNTS])
def test_a_tie_has_margin_zero(kernels, dtype, classes):
    logits, _ = tie(dtype, classes)

    found = decide(kernels, logits, None, ("margin",), 1.0)["margin"]

    np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", [2, *CLASS_COUNTS])
def test_the_higher_class_of_a_tie_has_rank_one(kernels, dtype, classes):
    logits, tied = tie(dtype, classes)

    found = decide(kernels, logits, tied.max(axis=1), ("target_rank",), 1.0)["target_rank"]

    np.testing.assert_array_equal(found, 1)


@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_equal_logits_rank_by_class(kernels, classes):
    targets = np.linspace(0, classes - 1, ROWS).astype(np.int64)

    found = decide(kernels, np.zeros((ROWS, classes), np.float32), targets, ("target_rank",), 1.0)["target_rank"]

    np.testing.assert_array_equal(found, targets)


@pytest.mark.parametrize("classes", CLASS_COUNTS)
@pytest.mark.parametrize("zeros", [(-0.0, 0.0), (0.0, -0.0)])
def test_zeros_of_both_signs_are_equal_logits(kernels, classes, zeros):
    logits = np.resize(np.array(zeros, np.float32), (ROWS, classes))
    targets = np.linspace(0, classes - 1, ROWS).astype(np.int64)

    found = decide(kernels, logits, targets, ("target_rank", "label"), 1.0)

    np.testing.assert_array_equal(found["target_rank"], targets)
    np.testing.assert_array_equal(found["label"], 0)


# ---- targets


@pytest.mark.parametrize("classes", CLASS_COUNTS)
@pytest.mark.parametrize("column", NEED_TARGETS)
def test_rows_without_a_target_have_the_value_of_the_table(kernels, classes, column):
    logits, _ = sample(Case(FLOAT32, classes))

    found = decide(kernels, logits, np.full(ROWS, -1), (column,), 1.0)[column]

    np.testing.assert_array_equal(found, -1 if column in INTEGERS else np.nan)


@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_the_target_that_wins_has_rank_zero(kernels, classes):
    case = Case(FLOAT32, classes)
    logits, _ = sample(case)

    found = decide(kernels, logits, exact(case)["label"], ("target_rank",), 1.0)["target_rank"]

    np.testing.assert_array_equal(found, 0)


# ---- one class


@pytest.mark.parametrize(
    ("column", "value"),
    [("label", 0), ("confidence", 1), ("margin", 1), ("entropy", 0), ("probabilities", 1), ("log_probabilities", 0)],
)
def test_one_class_is_certain(kernels, column, value):
    logits = np.array([[-3e38], [-5.0], [0.0], [1e7]], np.float32)

    found = decide(kernels, logits, None, (column,), 1.7)[column]

    np.testing.assert_array_equal(found, value)


# ---- enormous logits

HUGE_ROWS = {
    "both ends": [3e38, -3e38, 0.0],
    "tie at the top": [3e38, 3e38, 1.0],
    "all at the bottom": [-3e38, -3e38, -3.4e38],
    "one at the bottom": [-3e38, -3.4e38, -3.4e38],
    "1e30": [1e30, -1e30, 1e30],
    "1e30 beside small": [1e30, 2.0, 1.0],
    "small beside -1e30": [1.0, 0.0, -1e30],
}


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize("classes", [3, 200, 2500])
@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("row", HUGE_ROWS)
def test_enormous_logits_neither_overflow_nor_lose_digits(kernels, dtype, classes, column, row):
    logits = np.resize(np.array(HUGE_ROWS[row]), (4, classes)).astype(dtype)
    targets = np.array([0, 1, 2, -1])

    found = decide(kernels, logits, targets, (column,), 1.0)[column]

    assert_column(column, found, exact_columns(logits, targets, 1.0), dtype, kernels)


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize("classes", [3, 2500])
@pytest.mark.parametrize("temperature", [1e-3, 1e3, 1e36])
def test_softmax_of_enormous_logits_holds_at_any_temperature(kernels, dtype, classes, temperature):
    logits = np.resize(np.array([3e38, 2.9e38, -3e38]), (2, classes)).astype(dtype)

    found = probabilities_of(kernels, logits, temperature)

    expected = exact_columns(logits, None, temperature)["probabilities"]
    assert relative_error(found, expected) <= probability_tolerance(dtype, kernels)


# ---- rows as they lie in memory


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_rows_may_lie_apart(kernels, dtype, classes):
    case = Case(dtype, classes)
    logits, targets = sample(case)
    apart = np.full((ROWS, classes + 5), np.nan, dtype)[:, 2:-3]
    apart[...] = logits

    found = decide(kernels, apart, targets, COLUMNS, 1.0)

    assert_same_bits(found, decided(kernels, case))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_a_row_may_be_broadcast(kernels, dtype, classes):
    case = Case(dtype, classes)
    logits, targets = sample(case)

    found = decide(kernels, np.broadcast_to(logits[5], logits.shape), np.full(ROWS, targets[5]), COLUMNS, 1.0)

    assert_same_bits(found, {name: np.repeat(a[5:6], ROWS, axis=0) for name, a in decided(kernels, case).items()})


@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_logits_may_be_read_only(kernels, classes):
    case = Case(FLOAT32, classes)
    logits, targets = sample(case)
    locked = logits.copy()
    locked.flags.writeable = False

    found = decide(kernels, locked, targets, COLUMNS, 1.0)

    assert_same_bits(found, decided(kernels, case))


@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_logits_are_not_changed(kernels, classes):
    logits, targets = sample(Case(FLOAT32, classes))
    before = logits.copy()

    decide(kernels, logits, targets, COLUMNS, 1.0)

    np.testing.assert_array_equal(logits, before)


# ---- samples


@cache
def sample(case: Case) -> tuple[Any, Any]:
    """Logits, (33, classes), and targets, some of them -1."""
    rng = np.random.default_rng(case.classes)
    logits = SPREADS[case.spread](rng, (ROWS, case.classes)).astype(case.dtype)
    targets = np.where(rng.random(ROWS) < 0.2, -1, rng.integers(0, case.classes, ROWS))
    return logits, targets


def put(row: Any, place: float, value: float) -> Any:
    changed = row.copy()
    changed[int(place * len(row)) if isinstance(place, float) else place] = value
    return changed


def spoil(case: Case, bad: str, place: str) -> tuple[Any, Any, Any]:
    """A sample with some undecidable rows, and the numbers of these."""
    logits, targets = sample(case)
    logits, spoilt = logits.copy(), np.array([0, 7, 15, 16, 32])
    for i in spoilt:
        logits[i] = BAD_ROWS[bad](logits[i], PLACES[place])
    labelled = targets.copy()
    labelled[spoilt] = np.maximum(targets[spoilt], 0)
    return logits, labelled, spoilt


@cache
def masked(dtype: np.dtype[Any], classes: int, mask: str) -> tuple[Any, Any]:
    logits, targets = sample(Case(dtype, classes))
    hidden = MASKS[mask](np.random.default_rng(classes), logits.shape) | np.zeros(logits.shape, bool)
    hidden[np.arange(ROWS), np.where(hidden.all(axis=1), 0, hidden.argmin(axis=1))] = False  # one class stays
    return np.where(hidden, np.array(-np.inf, dtype), logits), targets


def masked_targets(classes: int) -> tuple[Any, Any]:
    """Rows in which the target, and about half of the other classes, are masked."""
    logits, _ = masked(FLOAT32, classes, "every second")
    targets = np.random.default_rng(classes).integers(0, classes // 2, ROWS) * 2 + 1
    return logits, targets


def tie(dtype: np.dtype[Any], classes: int) -> tuple[Any, Any]:
    """Rows whose largest logit stands twice, and the two classes."""
    logits = sample(Case(dtype, classes))[0].copy()
    rng = np.random.default_rng(classes)
    tied = np.array([rng.choice(classes, 2, replace=False) for _ in range(ROWS)])
    logits[np.arange(ROWS)[:, None], tied] = 100
    return logits, tied


# ---- calls


def require_planes(kernels: ModuleType, columns: tuple[str, ...], classes: int) -> None:
    if not kernels.takes_planes(columns, classes):
        pytest.skip("the backend reads rows")


def as_planes(array: Any, planes: tuple[int, int]) -> Any:
    """The same values with rows next to each other in memory: (groups, rows, classes)."""
    shaped = array.reshape(*planes, array.shape[-1])
    return np.ascontiguousarray(shaped.swapaxes(1, 2)).swapaxes(1, 2)


def allocated(logits: Any) -> dict[str, Any]:
    return allocate(COLUMNS, *logits.shape, logits.dtype)


def allocate(columns: tuple[str, ...], rows: int, classes: int, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Arrays to fill, with a value that no kernel writes."""
    floats = FLOAT64 if dtype == FLOAT64 else FLOAT32
    return {
        name: np.full((rows, classes) if name in WIDE else rows, -77, np.int32 if name in INTEGERS else floats)
        for name in columns
    }


def decide(kernels: ModuleType, logits: Any, targets: Any, columns: tuple[str, ...], temperature: float) -> Any:
    out = allocate(columns, *logits.shape, logits.dtype)
    kernels.decision_rows(logits, targets, out, temperature)
    return out


@cache
def decided(kernels: ModuleType, case: Case) -> dict[str, Any]:
    """All columns of a sample."""
    return decide(kernels, *sample(case), COLUMNS, case.temperature)


def probabilities_of(kernels: ModuleType, logits: Any, temperature: float = 1.0) -> Any:
    out = allocate(("probabilities",), *logits.shape, logits.dtype)["probabilities"]
    kernels.softmax_rows(logits, out, temperature)
    return out


# ---- truth, in the 64 bits of mantissa of x86's long double; independent of `kernels.reference`


@cache
def exact(case: Case) -> Mapping[str, Any]:
    return exact_columns(*sample(case), case.temperature)


def exact_columns(logits: Any, targets: Any, temperature: float) -> dict[str, Any]:
    x = logits.astype(np.float64).astype(np.longdouble)
    label = np.array([list(row).index(max(row)) for row in x])
    rows = np.arange(len(x))
    peak = x[rows, label]
    gaps = (x - peak[:, None]) / np.longdouble(temperature)
    terms = np.exp(gaps)
    others = np.where(np.arange(x.shape[1]) == label[:, None], 0, terms)
    total, log_total = 1 + others.sum(axis=1), np.log1p(others.sum(axis=1))
    log_probabilities = gaps - log_total[:, None]
    finite = np.where(np.isneginf(gaps), 0, gaps)  # 0 * -inf: a masked class adds nothing
    columns = {
        "label": label,
        "confidence": 1 / total,
        "margin": (1 - others.max(axis=1)) / total,
        "entropy": log_total - (others * finite).sum(axis=1) / total,
        "log_total": log_total,
        "logsumexp": peak / np.longdouble(temperature) + log_total,
        "max_logit": peak,
        "probabilities": terms / total[:, None],
        "log_probabilities": log_probabilities,
    }
    if targets is None:
        return columns
    ranks = [sum(x[i] > x[i, t]) + sum(x[i, :t] == x[i, t]) if t >= 0 else -1 for i, t in enumerate(targets)]
    known = targets >= 0
    hits = np.arange(x.shape[1]) == targets[:, None]
    brier = ((columns["probabilities"] - hits) ** 2).sum(axis=1)
    return columns | {
        "target_rank": np.array(ranks),
        "target_probability": np.where(known, columns["probabilities"][rows, targets], np.nan),
        "nll": np.where(known, -log_probabilities[rows, targets], np.nan),
        "brier": np.where(known, brier, np.nan),
    }


# ---- tolerances


def eps_of(dtype: np.dtype[Any]) -> float:
    return float(np.finfo(np.float64 if dtype == FLOAT64 else np.float32).eps)


def probability_tolerance(dtype: np.dtype[Any], kernels: ModuleType) -> float:
    """The contract: 4 eps of float32 (4.8e-7), of 16-bit logits on a GPU 1e-5; of float64 logits 8 eps of float64."""
    if dtype.itemsize == 2 and kernels.__name__.endswith("cuda"):
        return 1e-5
    return 8 * eps_of(FLOAT64) if dtype == FLOAT64 else 4.8e-7


def relative_error(found: Any, expected: Any) -> float:
    """The largest, over the values above 1e-30, below which the contract says nothing."""
    counted = expected > 1e-30
    errors = np.abs(found[counted] - expected[counted]) / expected[counted]
    return float(errors.max(initial=0))


def assert_logarithm(found: Any, expected: Any, truth: Mapping[str, Any], dtype: np.dtype[Any]) -> None:
    """4 eps of max(1, |max_logit|, log of the sum), and of the value itself: a float holds no more of it."""
    sizes = np.maximum(1, np.maximum(np.abs(truth["max_logit"]), np.abs(truth["logsumexp"])))
    sizes = np.maximum(sizes, truth["log_total"])
    largest = float(np.finfo(found.dtype).max)
    expected = np.where(np.abs(expected) > largest, np.copysign(np.inf, expected), expected)
    sizes = np.maximum(sizes.reshape(-1, *[1] * (found.ndim - 1)), np.abs(np.where(np.isfinite(expected), expected, 0)))
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        near = np.abs(found - expected) <= 4 * eps_of(dtype) * sizes
    assert (same | near).all(), f"{found[~(same | near)][:5]} beside {expected[~(same | near)][:5]}"


def brier_tolerance(dtype: np.dtype[Any], kernels: ModuleType) -> float:
    """The contract: 1e-6, or that of two probabilities."""
    return max(1e-6, 2 * probability_tolerance(dtype, kernels))


def assert_column(column: str, found: Any, truth: Mapping[str, Any], dtype: np.dtype[Any], kernels: ModuleType) -> None:
    """The tolerance of the contract, column by column."""
    if column in (*INTEGERS, "max_logit"):
        np.testing.assert_array_equal(found, truth[column].astype(found.dtype))
    elif column in ("confidence", "target_probability", "probabilities"):
        assert relative_error(found, truth[column]) <= probability_tolerance(dtype, kernels)
    elif column == "margin":
        np.testing.assert_allclose(found, truth[column], rtol=0, atol=4 * eps_of(dtype))
    elif column == "entropy":
        np.testing.assert_allclose(found, truth[column], rtol=0, atol=2e-6)
    elif column == "brier":
        np.testing.assert_allclose(found, truth[column], rtol=0, atol=brier_tolerance(dtype, kernels))
    else:
        assert_logarithm(found, truth[column], truth, dtype)


def assert_same_bits(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert {n: a.tobytes() for n, a in found.items()} == {n: a.tobytes() for n, a in expected.items()}


def assert_same_values(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    np.testing.assert_equal(found, expected)
