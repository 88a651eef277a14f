"""Columns of what lies beyond the k largest classes: beside SciPy in float64, whatever the backend."""

import dask
import dask.array as da
import ml_dtypes
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from softmax_dask import decisions
from softmax_dask.dispatch import Backend
from softmax_dask.errors import ColumnError
from softmax_dask.kernels import reference
from softmax_dask.tails import fill_tails

NAMES = ("top_k_log_probabilities", "tail_mass", "tail_divergence")
DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
SIZES = [(2, 1), (5, 3), (17, 16), (100, 7), (300, 64), (4097, 5)]
EPS = {2: np.finfo(np.float32).eps, 4: np.finfo(np.float32).eps, 8: np.finfo(np.float64).eps}


def sample(rows, classes, dtype=np.float32, scale=3.0):
    """Coarse enough that some logits are equal."""
    return np.random.default_rng(classes).normal(0, scale, (rows, classes)).round(2).astype(dtype)


def truth(x, k, temperature=1.0):
    """The three columns by their definitions: the divergence is the sum of p log(p / q) over all classes."""
    wide = np.longdouble if x.dtype == np.float64 else np.float64
    logs = log_softmax(x.astype(wide) / wide(temperature), axis=1)
    labels = np.argsort(-x.astype(np.float64), axis=1, kind="stable")
    kept, rest = (np.take_along_axis(logs, part, axis=1) for part in (labels[:, :k], labels[:, k:]))
    log_mass = logsumexp(rest, axis=1) if rest.shape[1] else np.full(len(x), -np.inf)
    with np.errstate(invalid="ignore"):  # of a tail that is masked
        gaps = np.where(rest > -np.inf, rest - (log_mass - np.log(max(1, rest.shape[1])))[:, None], 0)
    return {NAMES[0]: kept, NAMES[1]: np.exp(log_mass), NAMES[2]: (np.exp(rest) * gaps).sum(axis=1)}


def find(x, k, temperature=1.0, **options):
    return decisions(x, NAMES, top_k=k, temperature=temperature, **options)


def assert_within_contract(found, expected, dtype, rtol=None):
    eps = EPS[np.dtype(dtype).itemsize]
    mass = expected[NAMES[1]].astype(np.float64)
    wanted = {name: array.astype(np.float64) for name, array in expected.items()}
    # As probabilities, 4 or in float64 8 eps; the logarithms absolutely, with the rounding of the gap itself.
    relative = rtol or (8 if eps < 1e-10 else 4) * eps
    gap = relative * np.maximum(1, np.abs(wanted[NAMES[0]]))
    finite = gap < np.inf
    np.testing.assert_array_equal(np.isfinite(found[NAMES[0]]), finite)  # masked classes may be among the k largest
    assert (np.abs(found[NAMES[0]][finite] - wanted[NAMES[0]][finite]) <= gap[finite]).all()
    # In float64 the distance from the largest logit, in nats, is rounded too.
    distance = np.abs(np.log(np.maximum(mass, 1e-300))) if eps < 1e-10 else 0
    assert (np.abs(found[NAMES[1]] - mass) <= (relative + eps * distance) * mass + 1e-30).all()
    # The entropy of the tail is within 2e-6 (of float64 4e-15), and the tail has no more than its mass.
    error = 4e-15 if eps < 1e-10 else 2e-6
    assert (np.abs(found[NAMES[2]] - wanted[NAMES[2]]) <= (error + relative * 12) * mass + 1e-30).all()


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
@pytest.mark.parametrize(("classes", "k"), SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_they_are_those_of_the_definition(dtype, classes, k, temperature):
    x = sample(33, classes, dtype)

    found = find(x, k, temperature)

    assert_within_contract(found, truth(x, k, temperature), dtype)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_every_backend_gives_them(kernels, dtype):
    x = sample(9, 300, dtype)
    labels = np.argsort(-x.astype(np.float64), axis=1, kind="stable")[:, :5].astype(np.int32)
    out = {NAMES[0]: np.empty((9, 5), np.float32), NAMES[1]: np.empty(9, np.float32), NAMES[2]: np.empty(9, np.float32)}

    fill_tails(Backend(np, kernels, 1 << 20), x, labels, out, np.dtype(np.float32), 1.3)

    # The exponential of 16-bit logits is a GPU's own: 1e-5.
    rtol = 1e-5 if kernels.__name__.endswith("cuda") and np.dtype(dtype).itemsize == 2 else None
    assert_within_contract(out, truth(x, 5, 1.3), dtype, rtol)


def test_a_sum_of_many_ranks_keeps_what_is_small_beside_the_first(kernels):
    if not kernels.fills_tails(1000, 500):
        pytest.skip("finds them without a sum of its own")
    x = np.random.default_rng(1).normal(np.log(1e-16 / 8), 0.01, (3, 1000))
    x[:, [0, 700]] = 0.0
    out = {"top_k_labels": np.empty((3, 500), np.int32), "top_k_probabilities": np.empty((3, 500))}

    kernels.decision_rows(x, None, out, 1.0)

    exact = np.exp(x.astype(np.longdouble))
    exact = np.take_along_axis(exact / exact.sum(axis=1, keepdims=True), out["top_k_labels"].astype(np.int64), axis=1)
    assert (np.abs(out["top_k_probabilities"] - exact) <= 8 * EPS[8] * exact).all()


def test_a_tail_far_below_the_rounding_of_one_keeps_its_digits():
    x = sample(20, 50, np.float32)
    x[:, 7] = 60.0

    found = find(x, 1)

    expected = truth(x, 1)
    assert expected["tail_mass"].max() < 1e-18
    np.testing.assert_allclose(found["tail_mass"], expected["tail_mass"], rtol=4.8e-7)
    # log(1 - tail), which SciPy rounds to 0.
    np.testing.assert_allclose(found["top_k_log_probabilities"][:, 0], -expected["tail_mass"], rtol=4.8e-7)


def awkward_rows(dtype):
    """Rows whose order, ties, gaps and masks are the worst for whoever looks for the k largest in one sweep."""
    falling = np.linspace(9, -9, 1000)
    outliers, mostly_masked, apart, far = falling / 9, np.full(1000, -np.inf), falling.copy(), falling.copy()
    outliers[::100] = 60
    mostly_masked[::7] = falling[::7]
    apart[3:] -= 95
    far[:4] += 6e4
    rows = [falling, falling[::-1], np.zeros(1000), np.repeat(falling[::10], 10), outliers, mostly_masked, apart, far]
    return np.array(rows).astype(dtype)


@pytest.mark.parametrize("temperature", [0.02, 1.0, 40.0])
@pytest.mark.parametrize("k", [1, 3, 16, 100, 999])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_awkward_rows_are_within_the_contract(dtype, k, temperature):
    x = awkward_rows(dtype)

    found = find(x, k, temperature)

    assert_within_contract(found, truth(x, k, temperature), dtype)


@pytest.mark.parametrize("k", [1, 16, 100])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_k_largest_of_awkward_rows_are_in_order_with_ties_by_class(dtype, k):
    x = awkward_rows(dtype)

    found = decisions(x, ("top_k_labels", "tail_mass"), top_k=k)["top_k_labels"]

    np.testing.assert_array_equal(found, np.argsort(-x.astype(np.float64), axis=1, kind="stable")[:, :k])


@pytest.mark.parametrize("k", [1, 16, 64, 250])
@pytest.mark.parametrize("classes", [257, 1025, 5000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_row_has_the_same_bits_alone_as_behind_any_other(dtype, classes, k):
    """The bar of a row is found beside the row before it, in whose pool there may be too many."""
    x = np.concatenate([np.resize(awkward_rows(dtype), (8, classes)), sample(8, classes, dtype)])
    x = x[np.random.default_rng(k).permutation(16)]
    names = ("label", "confidence", "entropy", "top_k_labels", "top_k_probabilities", *NAMES)

    found = decisions(x, names, top_k=k)

    for row in range(len(x)):
        alone = decisions(x[row : row + 1], names, top_k=k)
        for name in names:
            np.testing.assert_array_equal(found[name][row], alone[name][0], name)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_columns_of_the_row_beside_those_of_its_tail_are_within_the_contract(dtype):
    x = sample(40, 700, dtype)
    targets = np.arange(40) * 17 % 700
    targets[5] = -1
    names = ("label", "confidence", "margin", "entropy", "logsumexp", "max_logit", "nll", "brier", "target_rank")
    wide = ("probabilities", "log_probabilities", "top_k_labels", "top_k_probabilities")
    expected = {
        name: np.empty((40, *{"p": [700], "l": [700], "t": [9]}[name[0]]) if name in wide else 40)
        for name in names + wide
    }
    reference.decision_rows(x, targets, expected, 1.3)

    found = decisions(x, (*names, *wide, "tail_mass"), targets=targets, top_k=9, temperature=1.3)

    for name in ("label", "max_logit", "target_rank", "top_k_labels"):
        np.testing.assert_array_equal(found[name], expected[name])
    for name in ("confidence", "probabilities", "top_k_probabilities"):
        np.testing.assert_allclose(found[name], expected[name], rtol=4.8e-7, atol=1e-30)
    for name, error in {"margin": 4.8e-7, "entropy": 2e-6, "brier": 1e-6}.items():
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=error)
    for name in ("logsumexp", "nll", "log_probabilities"):
        np.testing.assert_allclose(found[name], expected[name], rtol=4.8e-7, atol=4.8e-7 * np.abs(x).max())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_with_few_logits_left_are_undecidable(bad):
    x = np.full((5, 300), bad, np.float32)
    x[1:4] = sample(3, 300)
    x[2, 3:] = np.nan

    found = decisions(x, ("label", "top_k_labels", "top_k_probabilities", *NAMES), top_k=5)

    assert (found["label"] < 0).tolist() == [True, False, True, False, True]
    assert (found["top_k_labels"][[0, 2, 4]] == -1).all()
    for name in ("top_k_probabilities", *NAMES):
        assert np.isnan(found[name][[0, 2, 4]]).all()
        np.testing.assert_array_equal(found[name][[1, 3]], decisions(x[[1, 3]], (name,), top_k=5)[name])


def test_an_even_tail_loses_nothing():
    x = np.full((3, 20), -1.5, np.float32)
    x[:, 4] = 2.0

    found = find(x, 1)

    assert (found["tail_divergence"] >= 0).all()
    assert (found["tail_divergence"] <= 2e-6).all()


def test_nothing_is_beyond_all_classes():
    x = sample(9, 6)

    found = find(x, 6)

    assert (found["tail_mass"] == 0).all()
    assert (found["tail_divergence"] == 0).all()
    np.testing.assert_allclose(found["top_k_log_probabilities"], truth(x, 6)["top_k_log_probabilities"], rtol=4.8e-7)


@pytest.mark.parametrize("classes", [6, 300])
def test_masked_classes_have_no_part_of_the_tail(classes):
    x = np.full((2, classes), -np.inf, np.float32)
    x[:, 4], x[:, 2] = 1.0, 2.0

    one, many = find(x, 1), find(x, 4)

    np.testing.assert_allclose(one["tail_mass"], 1 / (1 + np.e), rtol=4.8e-7)
    np.testing.assert_allclose(one["tail_divergence"], np.log(classes - 1) / (1 + np.e), rtol=4.8e-7)
    assert (many["tail_mass"] == 0).all()
    assert (many["tail_divergence"] == 0).all()
    assert (many["top_k_log_probabilities"][:, 2:] == -np.inf).all()


@pytest.mark.parametrize("classes", [5, 300])
def test_undecidable_rows_are_nan_and_leave_their_neighbours_alone(classes):
    clean = sample(20, classes)
    x = clean.copy()
    x[3, -1], x[7, 0], x[11] = np.nan, np.inf, -np.inf  # the last class: what -1 would pick
    bad = [3, 7, 11]

    found, expected = find(x, 4), find(clean, 4)

    for name in NAMES:
        assert np.isnan(found[name][bad]).all()
        np.testing.assert_array_equal(np.delete(found[name], bad, axis=0), np.delete(expected[name], bad, axis=0))


@pytest.mark.parametrize("split", [1, 7, 16, 31])
def test_any_cut_of_the_rows_gives_the_same_bits(split):
    x = sample(33, 300)

    whole, parts = find(x, 5), [find(x[:split], 5), find(x[split:], 5)]

    for name in NAMES:
        np.testing.assert_array_equal(whole[name], np.concatenate([part[name] for part in parts]))


@pytest.mark.parametrize("name", NAMES)
def test_a_column_has_the_same_bits_whatever_stands_beside_it(name):
    x = sample(33, 300)

    alone = decisions(x, (name,), top_k=5)[name]

    beside = decisions(x, ("label", "entropy", "top_k_probabilities", "probabilities", *NAMES), top_k=5)[name]
    np.testing.assert_array_equal(alone, beside)


def test_logits_are_read_only_as_they_were_given():
    x = sample(9, 300)
    before = x.copy()
    x.flags.writeable = False

    find(x, 5)

    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_the_ranks_stand_where_the_classes_stood(axis):
    x = np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32)

    found = find(x, 3, axis=axis)

    moved = np.moveaxis(x, axis, -1)
    expected = find(np.ascontiguousarray(moved), 3)
    np.testing.assert_array_equal(np.moveaxis(found[NAMES[0]], axis, -1), expected[NAMES[0]])
    np.testing.assert_array_equal(found[NAMES[1]], expected[NAMES[1]])


def test_dask_gives_lazy_arrays_of_the_same_bits():
    x = sample(40, 30)

    lazy = find(da.from_array(x, chunks=(11, 30)), 5, dtype=np.float16)

    expected = find(x, 5, dtype=np.float16)
    assert {name: array.dtype for name, array in lazy.items()} == {n: a.dtype for n, a in expected.items()}
    for name, array in dask.compute(lazy)[0].items():
        np.testing.assert_array_equal(array, expected[name])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtype_is_that_of_the_log_probabilities(dtype):
    x = sample(9, 30)

    found = find(x, 5, dtype=dtype)

    assert found[NAMES[0]].dtype == dtype
    expected = truth(x, 5)[NAMES[0]]
    np.testing.assert_allclose(found[NAMES[0]], expected, rtol=2 * np.finfo(dtype).eps + 1e-15, atol=4.8e-7)


@pytest.mark.parametrize("name", NAMES)
def test_they_need_a_number_of_classes(name):
    with pytest.raises(ColumnError, match=f"'{name}' needs top_k"):
        decisions(sample(2, 3), (name,))
