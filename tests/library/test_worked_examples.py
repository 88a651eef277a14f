"""The worked examples of the tutorials that the project grew from, number by number."""

import numpy as np
import pytest
from scipy.special import expit

from softmax_dask import decisions, jacobian, jvp, softmax, vjp

FIVE_SCORES = [1.3, 5.1, 2.2, 0.7, 1.1]
THREE_SCORES = [0.25, 1.23, -0.8]
ANIMALS = ("cat", "dog", "tiger", "none")
ANIMAL_SCORES = [1.25, 2.44, 0.78, 0.12]

# The tutorials print 8, 3, 2 decimals or all of a float64: half a unit of the last place printed.
EIGHT_PLACES, THREE_PLACES = 0.5e-8, 0.5e-3
FLOAT64_PROBABILITY = 8 * np.finfo(np.float64).eps


def test_softmax_of_five_scores():
    found = softmax(FIVE_SCORES)

    expected = [0.02019046, 0.90253769, 0.04966053, 0.01108076, 0.01653055]
    np.testing.assert_allclose(found, expected, rtol=0, atol=EIGHT_PLACES)


def test_softmax_of_five_scores_sums_to_one():
    total = softmax(FIVE_SCORES).sum()

    np.testing.assert_allclose(total, 1, rtol=0, atol=1e-15)


def test_the_exponentials_of_five_scores_sum_to_181_73_and_not_to_the_misprint_181_37():
    found = decisions(FIVE_SCORES, ("logsumexp",))["logsumexp"]

    np.testing.assert_allclose(np.exp(found), 181.73, rtol=0, atol=0.005)


def test_the_label_of_five_scores_is_the_class_of_the_largest():
    found = decisions(FIVE_SCORES)

    assert found["label"] == 1


def test_the_confidence_of_five_scores_is_the_largest_probability():
    found = decisions(FIVE_SCORES)

    np.testing.assert_allclose(found["confidence"], 0.90253769, rtol=0, atol=EIGHT_PLACES)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (THREE_SCORES, [0.249, 0.664, 0.087]),
        ([0.1, 0.9, 0.2], [0.231, 0.514, 0.255]),
        ([0, 0.9, 0.1], [0.219, 0.539, 0.242]),
    ],
)
def test_softmax_rounded_to_three_places(scores, expected):
    found = softmax(scores)

    np.testing.assert_allclose(found, expected, rtol=0, atol=THREE_PLACES)


def test_argmax_of_three_scores():
    found = decisions(THREE_SCORES, ("label",))["label"]

    assert found == 1


@pytest.mark.parametrize("temperature", [0.01, 1e-3, 1e-30])
def test_softmax_becomes_one_hot_as_the_temperature_falls(temperature):
    found = softmax(THREE_SCORES, temperature=temperature)

    # The scores are 0.98 apart: the others are at most exp(-98), which 1 absorbs.
    np.testing.assert_allclose(found, [0, 1, 0], rtol=0, atol=np.exp(-97))


def test_softmax_becomes_uniform_as_the_temperature_rises():
    found = softmax(THREE_SCORES, temperature=1e12)

    np.testing.assert_allclose(found, 1 / 3, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("scores", "expected"), [(THREE_SCORES, [0.368, 1.809, -1.176]), ([0.1, 0.9, 0.2], [0.083, 0.75, 0.167])]
)
def test_the_tutorials_figures_of_dividing_by_the_sum(scores, expected):
    found = np.divide(scores, np.sum(scores))

    np.testing.assert_allclose(found, expected, rtol=0, atol=THREE_PLACES)


def test_dividing_by_the_sum_gives_no_probabilities_where_softmax_does():
    divided, found = np.divide(THREE_SCORES, np.sum(THREE_SCORES)), softmax(THREE_SCORES)

    assert (divided.min() < 0, found.min() > 0) == (True, True)


def test_softmax_of_scores_that_sum_to_zero_is_finite():
    scores = [-0.25, 1, -0.75]

    found = softmax(scores)

    assert (sum(scores), bool(np.isfinite(found).all())) == (0, True)


@pytest.mark.parametrize("z", [*np.linspace(-10, 10, 200), -745.0, 745.0, -1000.0, 1000.0])
def test_sigmoid_is_softmax_of_z_and_zero(z):
    found = softmax([z, 0.0])

    # Relative, down to the smallest subnormal: beyond the contract's 1e-30 only "nearly 0" is promised.
    np.testing.assert_allclose(found, [expit(z), expit(-z)], rtol=FLOAT64_PROBABILITY, atol=1e-300)


def test_softmax_of_two_one_and_a_tenth_is_about_seven_two_one_tenths():
    found = softmax([2, 1, 0.1])

    np.testing.assert_allclose(found, [0.7, 0.2, 0.1], rtol=0, atol=0.05)


def test_softmax_of_scores_near_a_thousand_does_not_overflow():
    found = softmax([1000, 1000, 999, -1000])

    e = np.exp(-1)
    np.testing.assert_allclose(found, [1 / (2 + e), 1 / (2 + e), e / (2 + e), 0], rtol=FLOAT64_PROBABILITY)


@pytest.mark.parametrize("row", range(4))
def test_rows_of_a_batch_equal_rows_alone(row):
    batch = np.array([[1, 2, 3, 4], [1000, 1000, 999, -1000], [0, 0, 0, 0], ANIMAL_SCORES])

    found = softmax(batch)

    np.testing.assert_array_equal(found[row], softmax(batch[row]))


def test_softmax_of_the_animals():
    found = softmax(ANIMAL_SCORES)

    expected = [0.19101770813831334, 0.627890718698843, 0.11938650086860875, 0.061705072294234845]
    np.testing.assert_allclose(found, expected, rtol=FLOAT64_PROBABILITY)


def test_the_animal_is_a_dog():
    label = decisions(ANIMAL_SCORES, ("label",))["label"]

    assert ANIMALS[label] == "dog"


# ---- the derivative: s_j (1 - s_j) on the diagonal, -s_j s_k beside it

BATCH = np.array([[2, 1, 0.1], [1000, 1000, 999], THREE_SCORES, [0, 0, 0]])
# Three float64 probabilities multiplied and subtracted, here and in the expected values: some eps of 1.
FLOAT64_PRODUCT = 1e-15


def test_the_jacobian_of_two_one_and_a_tenth_is_about_that_of_seven_two_one_tenths():
    found = jacobian([2, 1, 0.1])

    # Each probability is rounded by up to 0.05, and so is each factor of a product.
    s = np.array([0.7, 0.2, 0.1])
    np.testing.assert_allclose(found, np.diag(s) - np.outer(s, s), rtol=0, atol=0.1)


def test_the_diagonal_of_a_jacobian_is_s_times_one_minus_s():
    s = softmax([2, 1, 0.1])

    found = np.diagonal(jacobian([2, 1, 0.1]))

    np.testing.assert_allclose(found, s * (1 - s), rtol=0, atol=FLOAT64_PRODUCT)


@pytest.mark.parametrize(("j", "k"), [(0, 1), (0, 2), (1, 2), (2, 0)])
def test_beside_the_diagonal_a_jacobian_has_minus_the_product_of_two_probabilities(j, k):
    s = softmax([2, 1, 0.1])

    found = jacobian([2, 1, 0.1])[j, k]

    np.testing.assert_allclose(found, -s[j] * s[k], rtol=0, atol=FLOAT64_PRODUCT)


def test_the_jacobians_of_a_batch_are_those_by_einsum():
    s = softmax(BATCH)

    found = jacobian(BATCH)

    expected = np.einsum("ij,jk->ijk", s, np.eye(3)) - np.einsum("ij,ik->ijk", s, s)
    np.testing.assert_allclose(found, expected, rtol=0, atol=FLOAT64_PRODUCT)


@pytest.mark.parametrize("row", range(len(BATCH)))
def test_jacobians_of_a_batch_equal_those_of_rows_alone(row):
    found = jacobian(BATCH)[row]

    np.testing.assert_array_equal(found, jacobian(BATCH[row]))


@pytest.mark.filterwarnings("ignore::softmax_dask.SingleClassWarning")
def test_the_jacobian_of_one_class_is_zero():
    found = jacobian([[5.0]])

    np.testing.assert_array_equal(found, [[[0]]])


@pytest.mark.parametrize("scores", [FIVE_SCORES, THREE_SCORES, ANIMAL_SCORES])
def test_a_jacobian_holds_the_differences_of_softmax(scores):
    step = 1e-6 * np.eye(len(scores))

    found = jacobian(scores)

    # The truncation error is below 1e-12, and eps / step, 2e-10, is the rounding error.
    differences = (softmax(np.array(scores) + step) - softmax(np.array(scores) - step)).T / 2e-6
    np.testing.assert_allclose(found, differences, rtol=0, atol=1e-9)


@pytest.mark.parametrize("function", [jvp, vjp])
def test_products_are_those_with_the_jacobian(function):
    direction = np.arange(12.0).reshape(4, 3)

    found = function(BATCH, direction)

    # Directions of up to 11.
    np.testing.assert_allclose(
        found, np.einsum("ijk,ik->ij", jacobian(BATCH), direction), rtol=0, atol=24 * FLOAT64_PRODUCT
    )
