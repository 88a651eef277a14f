"""The largest logit, and where it is, of arrays as they are stored: 16-bit floats are compared as integers."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from softmax_dask import decisions
from softmax_dask.kernels.cpu import simd, sweeps

STORED = {"float16": np.uint16, "bfloat16": np.int16, "float32": np.float32, "float64": np.float64}
DTYPES = {name: np.dtype(getattr(ml_dtypes, name, name)) for name in STORED}
PATTERNS = np.arange(65536, dtype=np.uint16)
LONGEST = 6 * simd.FLOAT32_LANES

numbers = st.lists(st.floats(width=16, allow_nan=False), min_size=1, max_size=LONGEST)
negative = st.lists(st.floats(width=16, max_value=0.0, allow_nan=False), min_size=1, max_size=LONGEST)


@pytest.mark.parametrize("dtype", STORED)
@given(row=numbers | negative)
def test_the_largest_is_that_of_numpy(dtype, row):
    row = np.array(row, DTYPES[dtype])

    assert largest(row) == row.max()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_number_of_16_bits_is_the_largest_above_minus_infinity(dtype):
    for x in finite(dtype):
        assert largest(np.array([-np.inf, x, -np.inf], DTYPES[dtype])) == x


@pytest.mark.parametrize("dtype", STORED)
def test_of_nothing_the_largest_is_minus_infinity(dtype):
    assert largest(np.empty(0, DTYPES[dtype])) == -np.inf


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("sign", [1.0, -1.0])
@given(row=numbers, place=st.integers(0, LONGEST))
def test_a_nan_is_passed_over_or_the_largest(dtype, sign, row, place):
    row = np.array(row, DTYPES[dtype])

    found = largest(np.insert(row, min(place, row.size), np.copysign(np.nan, sign)))

    assert np.isnan(found) or found == row.max()


@pytest.mark.parametrize("dtype", STORED)
@given(row=numbers | negative)
def test_the_first_of_the_largest_is_found(dtype, row):
    row = np.array(row, DTYPES[dtype])

    assert place_of(row, float(row.max())) == row.argmax()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_number_of_16_bits_is_found(dtype):
    for x in finite(dtype):
        row = np.full(LONGEST, -np.inf, DTYPES[dtype])
        row[LONGEST // 2] = x
        assert place_of(row, float(x)) == (LONGEST // 2 if x > -np.inf else 0)


@pytest.mark.parametrize("dtype", STORED)
def test_a_nan_is_found_nowhere(dtype):
    assert place_of(np.full(LONGEST, np.nan, DTYPES[dtype]), np.nan) == LONGEST


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("classes", [20, 300, 2000])
@pytest.mark.parametrize("zeros", [(0.0, -0.0), (-0.0, 0.0), (-0.0, -0.0)])
def test_zeros_of_both_signs_tie_in_decisions(dtype, classes, zeros):
    row = np.full((1, classes), -1, DTYPES[dtype])
    row[0, [7, classes - 2]] = zeros

    found = decisions(row, ("label", "margin"))

    assert (found["label"][0], found["margin"][0]) == (7, 0)


def finite(dtype: str) -> Any:
    """Every number of 16 bits but NaN."""
    values = PATTERNS.view(DTYPES[dtype])
    with np.errstate(invalid="ignore"):  # signalling ones
        return values[~np.isnan(values)]


def largest(row: Any) -> Any:
    return _largest(row.view(STORED[row.dtype.name]))


def place_of(row: Any, value: float) -> Any:
    return _find(row.view(STORED[row.dtype.name]), value)


@njit(error_model="numpy")
def _largest(row):
    return sweeps.largest(row, 0, row.size)


@njit(error_model="numpy")
def _find(row, value):
    return sweeps.find(row, 0, row.size, value)
