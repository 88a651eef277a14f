"""What a first reader found wrong: extremes of temperature, masks, memory and other libraries' state."""

import decimal

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from softmax_dask import decisions, log_softmax, softmax, top_k
from softmax_dask.errors import ClassAxisError, OutputBufferError, TargetError, UnsupportedArrayError

TEMPERATURES = np.geomspace(1e-34, 1e34, 300)


@pytest.mark.parametrize("classes", [2, 300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_masked_class_has_log_probability_minus_infinity_at_any_temperature(dtype, classes):
    x = np.zeros((1, classes), dtype)
    x[0, 1] = -np.inf

    found = [log_softmax(x, temperature=t)[0, 1] for t in TEMPERATURES]

    assert set(found) == {-np.inf}


@pytest.mark.parametrize("classes", [2, 300])
def test_the_nll_of_a_masked_target_is_infinite_at_any_temperature(classes):
    x = np.zeros((1, classes), np.float32)
    x[0, 1] = -np.inf

    found = [decisions(x, ("nll",), targets=[1], temperature=t)["nll"][0] for t in TEMPERATURES]

    assert set(found) == {np.inf}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("temperature", [1e29, 1e33, 1e290])
def test_a_mask_beside_the_lowest_number_is_a_mask(dtype, temperature):
    x = np.array([np.finfo(dtype).min, -np.inf], dtype)

    found = softmax(x, temperature=temperature)

    np.testing.assert_array_equal(found, [1, 0])


@pytest.mark.parametrize("classes", [128, 200, 255, 256])
def test_entropy_of_almost_uniform_rows_keeps_its_bound(classes):
    x = (np.random.default_rng(0).normal(size=(20_000, classes)) + 5).astype(np.float32)

    found = decisions(x, ("entropy",))["entropy"]

    wide = x.astype(np.float64)
    probs = np.exp(wide - wide.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    exact = -(probs * np.log(probs)).sum(axis=1)
    assert np.abs(found - exact).max() <= 2e-6  # the contract of docs/numerics.md


def test_the_decimal_context_of_the_caller_is_left_alone():
    before = decimal.getcontext().prec

    softmax([0.0, 1.0], temperature=1.2345)

    assert decimal.getcontext().prec == before


def test_numpy_may_be_told_to_raise():
    with np.errstate(all="raise"):
        found = softmax(np.array([[0, -12, -200]], np.float32), dtype="float16")

    assert found[0, 2] == 0


def test_an_unknown_number_of_classes_is_refused_with_the_remedy():
    x = da.from_array(np.zeros((4, 5), np.float32))
    masked = x[:, da.from_array(np.array([True, True, True, False, False]))]

    with pytest.raises(ClassAxisError, match="compute_chunk_sizes"):
        top_k(masked, 4)


def test_dask_blocks_that_are_masked_arrays_are_refused():
    x = da.ma.masked_array(da.zeros((4, 5)), mask=da.ones((4, 5), dtype=bool))

    with pytest.raises(UnsupportedArrayError, match="filled"):
        softmax(x)


def test_masked_targets_are_refused():
    with pytest.raises(TargetError, match="filled"):
        decisions(np.zeros((2, 3)), ("nll",), targets=np.ma.masked_array([0, 1], mask=[0, 1]))


def test_no_rows_take_an_empty_list_of_targets():
    assert decisions(np.zeros((0, 3)), ("nll",), targets=[])["nll"].shape == (0,)


def test_out_that_overlaps_the_logits_is_refused():
    x = np.zeros((4, 300), np.float32)

    with pytest.raises(OutputBufferError, match="overlaps"):
        decisions(x, ("probabilities",), out={"probabilities": x})


def test_one_array_for_two_columns_is_refused():
    one = np.empty(4, np.float32)

    with pytest.raises(OutputBufferError, match="one for each"):
        decisions(np.zeros((4, 3), np.float32), ("margin", "entropy"), out={"margin": one, "entropy": one})


@pytest.fixture
def grid():
    values = np.random.default_rng(0).normal(size=(3, 3, 4)).astype(np.float32)
    names = {"a": [0, 1, 2], "name": ("class", list("wxyz"))}
    return xr.DataArray(values, dims=("a", "b", "class"), coords=names, attrs={"source": "model"})


def test_xarray_targets_are_paired_by_dimension(grid):
    targets = xr.DataArray(np.arange(9).reshape(3, 3) % 4, dims=("a", "b"), coords={"a": [0, 1, 2]})

    found = decisions(grid, ("nll",), axis="class", targets=targets.transpose("b", "a"))["nll"]

    np.testing.assert_array_equal(found, decisions(grid, ("nll",), axis="class", targets=targets)["nll"])


@pytest.mark.parametrize(
    "targets",
    [
        xr.DataArray(np.zeros((3, 3), int), dims=("a", "c")),
        xr.DataArray(np.zeros((3, 3), int), dims=("a", "b"), coords={"a": [2, 1, 0]}),
    ],
)
def test_xarray_targets_of_other_rows_are_refused(grid, targets):
    with pytest.raises(TargetError):
        decisions(grid, ("nll",), axis="class", targets=targets)


def test_xarray_ranks_have_no_coordinates_of_classes(grid):
    assert list(top_k(grid, 2, axis="class")[0].coords) == ["a"]


def test_xarray_results_forget_how_the_logits_were_packed(grid):
    grid.encoding = {"dtype": "int16", "scale_factor": 0.5}

    found = softmax(grid, axis="class")

    assert found.encoding == {}
    assert found.attrs == {"source": "model"}
