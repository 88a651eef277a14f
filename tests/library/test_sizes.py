"""Dtypes of the arithmetic and of results, and rows of a block."""

import ml_dtypes
import numpy as np
import pytest

from softmax_dask.columns import COLUMNS
from softmax_dask.errors import DtypeError
from softmax_dask.sizes import column_dtype, float_dtype, kernel_dtype, result_dtype, rows_in

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

# DESIGN section 4: float32 if every value of the dtype is exact in it, else float64; 16-bit floats are decoded inside.
KERNEL_DTYPES = {
    "float16": "float16",
    BFLOAT16: BFLOAT16,
    "float32": "float32",
    "float64": "float64",
    "int8": "float32",
    "int16": "float32",
    "int32": "float64",
    "uint8": "float32",
    "uint16": "float32",
    "uint32": "float64",
}
REFUSED = ["int64", "uint64", "bool", "complex64", "object", "U3", "S3", "datetime64[s]", "longdouble"]


@pytest.mark.parametrize(("logits", "expected"), KERNEL_DTYPES.items(), ids=str)
def test_kernels_read_logits_in_a_dtype_that_holds_them_exactly(logits, expected):
    found = kernel_dtype(logits)

    assert found == np.dtype(expected)


@pytest.mark.parametrize("logits", [">f2", ">f4", ">f8", ">i4", ">u2"])
def test_the_byte_order_of_logits_does_not_matter(logits):
    found = kernel_dtype(logits)

    assert found == kernel_dtype(np.dtype(logits).newbyteorder("="))


@pytest.mark.parametrize("logits", REFUSED)
def test_other_logits_are_refused_with_the_cast(logits):
    with pytest.raises(DtypeError, match=r"logits have dtype .*Cast them first, e\.g\. logits\.astype\('float32'\)"):
        kernel_dtype(logits)


@pytest.mark.parametrize("logits", KERNEL_DTYPES, ids=str)
def test_float64_results_are_computed_in_float64(logits):
    found = kernel_dtype(logits, dtype="float64")

    assert found == np.float64


@pytest.mark.parametrize("temperature", [1e-36, 1e36])
def test_temperatures_beyond_float32_are_computed_in_float64(temperature):
    found = kernel_dtype("float32", temperature=temperature)

    assert found == np.float64


@pytest.mark.parametrize("temperature", [1e-35, 1.0, 1e30])
def test_other_temperatures_are_computed_in_float32(temperature):
    found = kernel_dtype("float32", temperature=temperature)

    assert found == np.float32


@pytest.mark.parametrize(
    ("logits", "expected"),
    [(d, "float64" if str(d) in ("float64", "int32", "uint32") else "float32") for d in KERNEL_DTYPES],
    ids=str,
)
def test_results_are_float32_or_float64(logits, expected):
    found = (float_dtype(logits), result_dtype(logits))

    assert found == (np.dtype(expected), np.dtype(expected))


@pytest.mark.parametrize("wanted", ["float16", BFLOAT16, "float32", "float64"], ids=str)
def test_results_have_the_dtype_asked_for(wanted):
    found = result_dtype("float32", wanted)

    assert found == np.dtype(wanted)


@pytest.mark.parametrize("wanted", ["int32", "bool", "complex64", "longdouble"])
def test_results_of_other_dtypes_are_refused(wanted):
    with pytest.raises(DtypeError, match="expected float16, bfloat16, float32 or float64"):
        result_dtype("float32", wanted)


@pytest.mark.parametrize(
    ("column", "expected"),
    [("label", "int32"), ("correct", "int8"), ("margin", "float32"), ("probabilities", "float16")],
)
def test_only_wide_columns_follow_the_dtype_asked_for(column, expected):
    found = column_dtype(COLUMNS[column], "float32", "float16")

    assert found == np.dtype(expected)


@pytest.mark.parametrize(
    ("bytes_wanted", "row_bytes", "rows"), [(100, 10, 10), (99, 10, 9), (5, 10, 1), (100, 0, 100), (0, 1, 1)]
)
def test_rows_fit_the_bytes_and_are_at_least_one(bytes_wanted, row_bytes, rows):
    found = rows_in(bytes_wanted, row_bytes)

    assert found == rows
