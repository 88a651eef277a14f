"""The k largest classes: one contract for the backends, and the public function."""

import dask
import dask.array as da
import ml_dtypes
import numpy as np
import pytest
import scipy.special
import xarray as xr

from softmax_dask import TopKWarning, decisions, top_k
from softmax_dask.errors import ColumnError, OutputBufferError

NAMES = ("top_k_labels", "top_k_probabilities")
DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
SIZES = [(1, 1), (2, 1), (3, 3), (16, 5), (17, 16), (100, 17), (257, 5), (1000, 64), (4097, 5)]


def sample(rows, classes, dtype=np.float32):
    """Coarse enough that many logits are equal."""
    return np.random.default_rng(classes).normal(0, 3, (rows, classes)).round(1).astype(dtype)


def ranked(x, k):
    """Classes by falling logit, lower classes first among equals."""
    return np.argsort(-x.astype(np.float64), axis=1, kind="stable")[:, :k]


def tolerance(kernels, dtype):
    """The contract of probabilities: 4 eps of float32, of 16-bit logits on a GPU 1e-5, 8 eps of float64."""
    if dtype.itemsize == 2 and kernels.__name__.endswith("cuda"):
        return 1e-5
    return 8 * 2.3e-16 if dtype == np.float64 else 4.8e-7


def run(kernels, x, k, temperature=1.0):
    floats = np.float64 if x.dtype == np.float64 else np.float32
    out = {NAMES[0]: np.empty((len(x), k), np.int32), NAMES[1]: np.empty((len(x), k), floats)}
    kernels.decision_rows(x, None, out, temperature)
    return out[NAMES[0]], out[NAMES[1]]


@pytest.mark.parametrize(("classes", "k"), SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_labels_are_ranked_by_logit_and_then_by_class(kernels, dtype, classes, k):
    x = sample(33, classes, dtype)

    labels, _ = run(kernels, x, k)

    np.testing.assert_array_equal(labels, ranked(x, k))


@pytest.mark.parametrize("temperature", [0.1, 1.0, 1.7])
@pytest.mark.parametrize(("classes", "k"), SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_probabilities_are_those_of_the_labels(kernels, dtype, classes, k, temperature):
    x = sample(33, classes, dtype)
    wide = np.longdouble if dtype == np.float64 else np.float64
    exact = scipy.special.softmax(x.astype(wide) / wide(temperature), axis=1)

    labels, found = run(kernels, x, k, temperature)

    expected = np.take_along_axis(exact, labels, axis=1)
    kept = expected > 1e-30
    error = np.abs(found[kept] / expected[kept] - 1).max()
    assert error <= tolerance(kernels, np.dtype(dtype))


@pytest.mark.parametrize("classes", [5, 300, 5000])
def test_undecidable_rows_have_no_labels_and_leave_their_neighbours_alone(kernels, classes):
    clean = sample(20, classes)
    x = clean.copy()
    x[3, 1], x[7, 0], x[11] = np.nan, np.inf, -np.inf
    bad = [3, 7, 11]

    labels, found = run(kernels, x, 4)

    assert (labels[bad] == -1).all()
    assert np.isnan(found[bad]).all()
    kept = np.delete(np.arange(20), bad)
    np.testing.assert_array_equal(labels[kept], run(kernels, clean, 4)[0][kept])
    np.testing.assert_array_equal(found[kept], run(kernels, clean, 4)[1][kept])


@pytest.mark.parametrize("classes", [6, 300, 5000])
def test_masked_classes_come_last_with_probability_zero(kernels, classes):
    x = np.full((2, classes), -np.inf, np.float32)
    x[:, 4], x[:, 2] = 1.0, 2.0

    labels, found = run(kernels, x, 4)

    np.testing.assert_array_equal(labels, [[2, 4, 0, 1]] * 2)
    assert (found[:, 2:] == 0).all()


@pytest.mark.parametrize("classes", [10, 300, 5000])
def test_first_rank_is_label_and_confidence(classes):
    x = sample(50, classes)

    found = decisions(x, ("label", "confidence", *NAMES), top_k=3)

    np.testing.assert_array_equal(found["top_k_labels"][:, 0], found["label"])
    np.testing.assert_array_equal(found["top_k_probabilities"][:, 0], found["confidence"])


@pytest.mark.parametrize("classes", [300, 5000])
@pytest.mark.parametrize("split", [1, 7, 16, 31])
def test_any_cut_of_the_rows_gives_the_same_bits(split, classes):
    x = sample(33, classes)

    whole = top_k(x, 5)
    parts = [top_k(x[:split], 5), top_k(x[split:], 5)]

    for one, pair in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(one, np.concatenate(pair))


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_the_ranks_stand_where_the_classes_stood(axis):
    x = np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32)

    labels, found = top_k(x, 3, axis=axis)

    moved = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])
    np.testing.assert_array_equal(np.moveaxis(labels, axis, -1).reshape(-1, 3), ranked(moved, 3))
    assert found.shape == labels.shape


def test_dask_gives_lazy_arrays_of_the_same_bits():
    x = np.random.default_rng(0).normal(size=(40, 30, 4)).astype(np.float32)

    lazy = top_k(da.from_array(x, chunks=(11, 30, 3)), 5, axis=1)

    assert [a.shape for a in lazy] == [(40, 5, 4)] * 2
    assert [a.dtype for a in lazy] == [np.int32, np.float32]
    for found, expected in zip(dask.compute(*lazy), top_k(x, 5, axis=1), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_xarray_keeps_the_other_coordinates():
    x = xr.DataArray(sample(5, 6), dims=("image", "class"), coords={"image": list("abcde"), "class": range(6)})

    labels, _ = top_k(x, 2, axis="class")

    assert labels.dims == ("image", "class")
    assert list(labels.coords) == ["image"]
    np.testing.assert_array_equal(labels, ranked(x.values, 2))


def test_more_than_there_are_classes_is_all_of_them_and_a_warning():
    x = sample(5, 3)

    with pytest.warns(TopKWarning, match="top_k is 7, but there are 3 classes"):
        labels, _ = top_k(x, 7)

    assert labels.shape == (5, 3)


@pytest.mark.parametrize("k", [0, -1, 1.5, True, None, "3"])
def test_k_that_is_no_number_of_classes_is_refused(k):
    with pytest.raises(ColumnError, match="expected a number of classes, 1 or more"):
        top_k(sample(2, 3), k)


def test_columns_of_top_k_need_it():
    with pytest.raises(ColumnError, match="'top_k_labels' needs top_k"):
        decisions(sample(2, 3), ("top_k_labels",))


def test_out_of_another_k_is_refused():
    with pytest.raises(OutputBufferError, match=r"expected int32 \(2, 3\)"):
        decisions(sample(2, 5), ("top_k_labels",), top_k=3, out={"top_k_labels": np.empty((2, 4), np.int32)})
