"""Between NumPy and Arrow: what pyarrow makes of the same values, or says of the same arrays."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softmax_dask_pipelines import arrow

ODD = [None, 3, None, -1, 0, 7, None, 2, 2, None, 5]


@pytest.mark.parametrize("dtype", ["int8", "uint64", "int64", "float16", "float32", "float64"])
def test_numbers_are_in_the_memory_of_the_array(dtype):
    values = np.arange(7, dtype=dtype)

    made = arrow.numbers(values)

    assert made.equals(pa.array(values.copy()))
    assert made.buffers()[1].address == values.ctypes.data


@given(st.lists(st.text()))
def test_texts_are_those_that_pyarrow_makes(texts):
    assert arrow.texts(texts).equals(pa.array(texts, pa.string()))


@pytest.mark.parametrize("dtype", [pa.int8(), pa.uint16(), pa.int64(), pa.float32(), pa.float64()])
def test_stored_numbers_are_read_again_from_any_place(dtype):
    values = pa.array(range(20), dtype)

    np.testing.assert_array_equal(arrow.stored(values[3:9]), np.arange(3, 9))
    assert arrow.stored(values).dtype == dtype.to_pandas_dtype()
    assert len(arrow.stored(values[20:])) == 0


@pytest.mark.parametrize("start", [0, 1, 8, 9, 11])
def test_what_is_null_is_not_known(start):
    values = pa.array(ODD)[start:]

    assert arrow.is_known(values).tolist() == [value is not None for value in ODD[start:]]


def test_where_nothing_is_null_all_is_known():
    assert arrow.is_known(pa.array([1, 2])).tolist() == [True, True]
    assert arrow.is_known(pa.array([None, 2])[1:]).tolist() == [True]
