"""What holds for every array of logits; SciPy in float64 is the oracle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import special

from softmax_dask import decisions, log_softmax, logsumexp, softmax

FLOAT32_EPS = float(np.finfo(np.float32).eps)
FLOAT64_EPS = float(np.finfo(np.float64).eps)
PROBABILITY = 4 * FLOAT32_EPS
modest = settings(max_examples=40)


def logits_of(dtype=np.float32, bound=80.0, classes=300):
    """(rows, classes) of finite logits, two or more classes."""
    shapes = st.tuples(st.integers(1, 20), st.one_of(st.integers(2, 20), st.integers(100, classes)))
    elements = st.floats(-bound, bound, width=8 * np.dtype(dtype).itemsize)
    return shapes.flatmap(lambda shape: arrays(dtype, shape, elements=elements, fill=elements))


@modest
@given(logits_of())
def test_rows_sum_to_one(logits):
    found = softmax(logits).sum(axis=1, dtype=np.float64)

    np.testing.assert_allclose(found, 1, rtol=0, atol=1e-6)  # the contract


@modest
@given(logits_of(), st.integers(-1024, 1024))
def test_softmax_is_unchanged_when_a_constant_is_added(logits, constant):
    whole = np.round(logits)  # integers: adding the constant rounds nothing

    found = softmax(whole + np.float32(constant))

    # Each is within 4 eps of the exact value that both share.
    np.testing.assert_allclose(found, softmax(whole), rtol=2 * PROBABILITY, atol=1e-30)


@modest
@given(logits_of())
def test_softmax_agrees_with_scipy(logits):
    found = softmax(logits)

    expected = special.softmax(logits.astype(np.float64), axis=1)
    np.testing.assert_allclose(found, expected, rtol=PROBABILITY, atol=1e-30)


@modest
@given(logits_of(np.float64))
def test_float64_softmax_agrees_with_scipy(logits):
    found = softmax(logits)

    # SciPy's own float64 softmax is itself about 20 eps off at these sizes, and |x - max| up to 160 costs it 80 more.
    np.testing.assert_allclose(found, special.softmax(logits, axis=1), rtol=120 * FLOAT64_EPS, atol=1e-300)


@modest
@given(logits_of())
def test_log_softmax_agrees_with_scipy(logits):
    found = log_softmax(logits)

    expected = special.log_softmax(logits.astype(np.float64), axis=1)
    # 4 eps of the largest number involved, at most 80 + log(300) and 160 between two logits.
    np.testing.assert_allclose(found, expected, rtol=0, atol=4 * FLOAT32_EPS * 167)


@modest
@given(logits_of())
def test_logsumexp_agrees_with_scipy(logits):
    found = logsumexp(logits)

    expected = special.logsumexp(logits.astype(np.float64), axis=1)
    sizes = np.maximum(1, np.maximum(np.abs(logits.max(axis=1)), np.abs(expected)))
    assert (np.abs(found - expected) <= 4 * FLOAT32_EPS * sizes).all()  # the contract


@modest
@given(logits_of())
def test_label_is_numpys_argmax(logits):
    found = decisions(logits, ("label",))["label"]

    np.testing.assert_array_equal(found, logits.argmax(axis=1))


@modest
@given(logits_of())
def test_confidence_is_the_largest_probability(logits):
    found = decisions(logits)["confidence"]

    # Two ways to one number, each within 4 eps.
    np.testing.assert_allclose(found, softmax(logits).max(axis=1), rtol=2 * PROBABILITY)


@modest
@given(logits_of(), st.floats(0.05, 50), st.floats(1.01, 10))
def test_confidence_falls_as_the_temperature_rises(logits, temperature, factor):
    sharp = decisions(logits, ("confidence",), temperature=temperature)["confidence"]

    soft = decisions(logits, ("confidence",), temperature=temperature * factor)["confidence"]

    assert (soft <= sharp * (1 + 2 * PROBABILITY)).all()  # each within 4 eps


@modest
@given(logits_of(), st.randoms(use_true_random=False))
def test_softmax_follows_a_permutation_of_the_classes(logits, random):
    order = list(range(logits.shape[1]))
    random.shuffle(order)

    found = softmax(logits[:, order])

    # Sums in another order: each within 4 eps of the exact value that both share.
    np.testing.assert_allclose(found, softmax(logits)[:, order], rtol=2 * PROBABILITY, atol=1e-30)


@modest
@given(logits_of(), st.data())
def test_rows_in_parts_have_the_bits_of_rows_at_once(logits, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(logits)), max_size=5)))

    parts = [softmax(part) for part in np.split(logits, cuts)]

    np.testing.assert_array_equal(np.concatenate(parts), softmax(logits))


@modest
@given(
    arrays(
        np.float32, array_shapes(min_dims=1, max_dims=4, min_side=2, max_side=6), elements=st.floats(-9, 9, width=32)
    ),
    st.data(),
)
def test_any_axis_may_be_the_class_axis(logits, data):
    axis = data.draw(st.integers(-logits.ndim, logits.ndim - 1))

    found = softmax(logits, axis=axis)

    expected = special.softmax(logits.astype(np.float64), axis=axis)
    np.testing.assert_allclose(found, expected, rtol=PROBABILITY)


@modest
@given(logits_of(bound=30.0))
def test_entropy_lies_between_zero_and_that_of_uniform_probabilities(logits):
    found = decisions(logits, ("entropy",))["entropy"]

    bound = np.log(logits.shape[1])
    assert ((found >= -2e-6) & (found <= bound + 2e-6)).all()  # the contract's 2e-6


@modest
@given(logits_of(), st.data())
def test_a_target_ranks_as_in_a_stable_sort(logits, data):
    targets = data.draw(arrays(np.int64, len(logits), elements=st.integers(-1, logits.shape[1] - 1)))

    found = decisions(logits, ("target_rank",), targets=targets)["target_rank"]

    order = np.argsort(-logits, axis=1, kind="stable")
    expected = [-1 if t < 0 else list(row).index(t) for row, t in zip(order, targets, strict=True)]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("temperature", [1e-300, 1e-36, 1e33, 1e290])
def test_temperatures_out_of_the_range_of_float32_are_taken(temperature):
    logits = np.array([[2.0, 1.0, 1.0]], np.float32)

    found = softmax(logits, temperature=temperature)

    expected = [1, 0, 0] if temperature < 1 else [1 / 3] * 3
    np.testing.assert_allclose(found[0], expected, rtol=PROBABILITY)
