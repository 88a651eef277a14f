"""The public functions on Dask and xarray: lazy, in the same chunks, equal to NumPy bit for bit."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import ml_dtypes
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from softmax_dask import SingleClassWarning, blocks, decisions, log_softmax, logsumexp, softmax
from softmax_dask.errors import (
    ClassAxisError,
    ColumnError,
    DtypeError,
    OutputBufferError,
    SplitClassAxisError,
    TargetError,
    TemperatureError,
    UnsupportedArrayError,
)
from softmax_dask.kernels import cpu

ROOT = Path(__file__).parents[2]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
ROWS, CLASSES = 40, 21
PER_ROW = ("label", "confidence", "margin", "entropy", "logsumexp", "max_logit")
TARGETED = ("nll", "target_probability", "target_rank", "correct")
WIDE = ("probabilities", "log_probabilities")
COLUMNS = (*PER_ROW, *TARGETED, *WIDE)


@pytest.fixture(autouse=True)
def one_thread():
    # Threads of a pool would outlive the test; the number of them has a test of its own.
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(scope="module")
def logits() -> Any:
    return np.random.default_rng(0).normal(0, 6, (ROWS, CLASSES)).astype(np.float32)


@pytest.fixture(scope="module")
def targets() -> Any:
    return np.random.default_rng(1).integers(-1, CLASSES, ROWS)


@pytest.fixture
def lazy(logits) -> Any:
    return da.from_array(logits, chunks=((7, 13, 20), CLASSES))


# ---- Dask: kind, chunks, dtype


@pytest.mark.parametrize("function", [softmax, log_softmax])
def test_dask_in_dask_out_in_the_same_chunks(lazy, function):
    found = function(lazy)

    assert (type(found), found.chunks) == (da.Array, lazy.chunks)


def test_columns_of_one_value_a_row_have_the_row_chunks(lazy):
    found = logsumexp(lazy)

    assert found.chunks == lazy.chunks[:1]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("columns", [("margin",), ("margin", "label")], ids=["one column", "two columns"])
def test_the_class_axis_leaves_the_chunks(axis, columns):
    x = da.zeros((4, 5, 6), chunks=tuple(-1 if i == axis else 2 for i in range(3)), dtype="float32")

    found = decisions(x, columns, axis=axis)["margin"]

    assert found.chunks == x.chunks[:axis] + x.chunks[axis + 1 :]


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", BFLOAT16], ids=str)
def test_a_lazy_column_tells_the_dtype_that_it_computes_to(logits, targets, column, dtype):
    lazy = decisions(da.from_array(logits.astype(dtype), chunks=(9, -1)), (column,), targets=targets)[column]

    found = lazy.compute()

    assert found.dtype == lazy.dtype


@pytest.mark.parametrize("column", COLUMNS)
def test_a_lazy_column_among_others_tells_the_dtype_that_it_computes_to(lazy, targets, column):
    lazy_column = decisions(lazy, COLUMNS, targets=targets)[column]

    found = lazy_column.compute()

    assert (found.dtype, found.shape) == (lazy_column.dtype, lazy_column.shape)


@pytest.mark.parametrize("dtype", ["float16", BFLOAT16, "float64"], ids=str)
def test_lazy_wide_columns_have_the_dtype_asked_for(lazy, logits, dtype):
    found = softmax(lazy, dtype=dtype)

    np.testing.assert_array_equal(found.compute(), softmax(logits, dtype=dtype))


# ---- Dask: values


@pytest.mark.parametrize("column", COLUMNS)
def test_a_lazy_column_has_the_bits_of_numpy(lazy, logits, targets, column):
    found = decisions(lazy, (column,), targets=targets)[column].compute()

    assert found.tobytes() == decisions(logits, (column,), targets=targets)[column].tobytes()


def test_lazy_columns_together_have_the_bits_of_numpy(lazy, logits, targets):
    found = dask.compute(decisions(lazy, COLUMNS, targets=targets))[0]

    assert_same_bits(found, decisions(logits, COLUMNS, targets=targets))


@settings(max_examples=40)
@given(st.lists(st.integers(1, ROWS - 1), max_size=8), st.sampled_from([3, 100, 200, 300]))
def test_no_row_chunking_changes_a_bit(cuts, classes):
    x = np.random.default_rng(classes).normal(0, 6, (ROWS, classes)).astype(np.float32)
    chunks = tuple(int(size) for size in np.diff([0, *sorted(set(cuts)), ROWS]))

    found = dask.compute(decisions(da.from_array(x, chunks=(chunks, -1)), ("label", "entropy", "probabilities")))[0]

    assert_same_bits(found, decisions(x, ("label", "entropy", "probabilities")))


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_number_of_threads_changes_no_bit(lazy, logits, workers):
    with dask.config.set(scheduler="threads", num_workers=workers):
        found = softmax(lazy).compute()

    np.testing.assert_array_equal(found, softmax(logits))


@pytest.mark.parametrize("axis", [0, 1, 2, -3])
def test_the_class_axis_of_a_dask_array_may_be_any(axis):
    x = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    chunks = tuple(-1 if i == axis % 3 else 2 for i in range(3))
    targets = np.random.default_rng(1).integers(-1, x.shape[axis], np.delete(x.shape, axis))

    found = dask.compute(decisions(da.from_array(x, chunks=chunks), COLUMNS, axis=axis, targets=targets))[0]

    assert_same_bits(found, decisions(x, COLUMNS, axis=axis, targets=targets))


def test_one_lazy_row_is_taken(logits):
    found = softmax(da.from_array(logits[0], chunks=-1)).compute()

    np.testing.assert_array_equal(found, softmax(logits[0]))


@pytest.mark.parametrize("columns", [("label",), ("label", "margin")], ids=["one column", "two columns"])
def test_columns_of_one_lazy_row_are_numbers(logits, columns):
    found = decisions(da.from_array(logits[0], chunks=-1), columns)["label"].compute()

    assert found == decisions(logits[0], columns)["label"]


@pytest.mark.parametrize("columns", [("probabilities",), ("probabilities", "label")], ids=["one column", "two columns"])
def test_no_lazy_rows_give_an_empty_result(columns):
    found = decisions(da.zeros((0, 5), dtype="float32"), columns)["probabilities"].compute()

    assert (found.shape, str(found.dtype)) == ((0, 5), "float32")


def test_a_lazy_filter_leaves_chunks_of_unknown_size_that_are_taken(lazy, logits):
    kept = logits[:, 0] > 0

    found = softmax(lazy[lazy[:, 0] > 0]).compute()

    np.testing.assert_array_equal(found, softmax(logits[kept]))


# ---- Dask: laziness


def test_building_a_graph_calls_no_block(lazy, targets, monkeypatch):
    monkeypatch.setattr(blocks, "decisions", forbidden)

    found = decisions(lazy, COLUMNS, targets=targets)

    assert list(found) == list(COLUMNS)


def test_building_a_graph_reads_no_input():
    source = da.map_blocks(forbidden, chunks=((2, 2), (3,)), dtype="float32", meta=np.empty((0, 0), "float32"))

    found = softmax(source)

    assert found.shape == (4, 3)


def test_building_a_graph_imports_no_numba():
    code = (
        "import sys, dask.array as da, softmax_dask\n"
        "softmax_dask.decisions(da.zeros((8, 3), chunks=(2, 3)), ('label', 'probabilities'))\n"
        "sys.exit('numba' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)

    assert done.returncode == 0


@pytest.mark.parametrize("columns", [("label",), ("label", "margin"), COLUMNS], ids=["one", "two", "all"])
def test_columns_computed_together_cost_one_kernel_call_a_block(lazy, targets, columns, monkeypatch):
    calls = []
    kernel = cpu.decision_rows
    monkeypatch.setattr(cpu, "decision_rows", lambda *args: (calls.append(1), kernel(*args)))

    dask.compute(decisions(lazy, columns, targets=targets))

    assert len(calls) == lazy.npartitions


def test_columns_computed_together_read_each_block_once(logits):
    reads = []
    source = da.from_array(logits, chunks=(10, -1)).map_blocks(
        lambda block: (reads.append(1), block)[1], dtype="float32"
    )
    reads.clear()

    dask.compute(decisions(source, (*PER_ROW, *WIDE)))

    assert len(reads) == source.npartitions


# ---- Dask: errors


def test_a_split_class_axis_names_the_remedy(logits):
    split = da.from_array(logits, chunks=(10, (10, 11)))

    with pytest.raises(SplitClassAxisError, match=r"class chunks \(10, 11\); .*one chunk of 21.*rechunk\(\{-1: -1\}\)"):
        softmax(split)


@pytest.mark.parametrize("axis", [-1, 1, 0])
def test_the_remedy_for_a_split_class_axis_works(logits, axis):
    split = da.from_array(logits, chunks=5)
    with pytest.raises(SplitClassAxisError) as caught:
        softmax(split, axis=axis)
    remedy = str(caught.value).split("Call ")[1].split(" first")[0]

    found = softmax(eval(remedy, {"logits": split}), axis=axis).compute()

    np.testing.assert_array_equal(found, softmax(logits, axis=axis))


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (TemperatureError, {"temperature": 0}),
        (ClassAxisError, {"axis": 2}),
        (ClassAxisError, {"axis": "class"}),
        (DtypeError, {"dtype": "int8"}),
        (ColumnError, {"columns": ("lable",)}),
        (OutputBufferError, {"out": {"label": np.zeros(ROWS, np.int32)}}),
        (TargetError, {"targets": np.zeros(ROWS + 1, int)}),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_computed(lazy, error, arguments):
    with pytest.raises(error):
        decisions(lazy, **arguments)


def test_lazy_logits_of_a_wrong_dtype_are_refused(lazy):
    with pytest.raises(DtypeError, match="Cast them first"):
        softmax(lazy.astype("int64"))


def test_one_lazy_class_warns():
    with pytest.warns(SingleClassWarning):
        softmax(da.zeros((3, 1), dtype="float32"))


@pytest.mark.filterwarnings("ignore::softmax_dask.SingleClassWarning")
def test_one_lazy_class_warns_once():
    lazy = softmax(da.zeros((3, 1), chunks=(1, 1), dtype="float32"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", forbidden)  # not once more in each block
        found = lazy.compute()

    np.testing.assert_array_equal(found, 1)


# ---- Dask: targets


@pytest.mark.parametrize(
    "given",
    [
        lambda t: t,
        lambda t: t.tolist(),
        lambda t: da.from_array(t, chunks=((7, 13, 20),)),
        lambda t: da.from_array(t, chunks=11),
        lambda t: da.from_array(t, chunks=-1),
        lambda t: t.astype("int8"),
    ],
    ids=["NumPy", "list", "same chunks", "other chunks", "one chunk", "int8"],
)
def test_targets_of_any_kind_meet_their_rows(lazy, logits, targets, given):
    found = decisions(lazy, ("target_rank",), targets=given(targets))["target_rank"].compute()

    np.testing.assert_array_equal(found, decisions(logits, ("target_rank",), targets=targets)["target_rank"])


def test_targets_that_were_filtered_with_their_logits_meet_their_rows(lazy, logits, targets):
    kept, lazy_targets = logits[:, 0] > 0, da.from_array(targets, chunks=lazy.chunks[:1])
    lazily_kept = lazy[:, 0] > 0

    found = decisions(lazy[lazily_kept], ("nll",), targets=lazy_targets[lazily_kept])["nll"].compute()

    np.testing.assert_array_equal(found, decisions(logits[kept], ("nll",), targets=targets[kept])["nll"])


def test_lazy_targets_outside_the_classes_are_refused_when_computed(lazy):
    found = decisions(lazy, ("nll",), targets=da.full(ROWS, CLASSES))["nll"]

    with pytest.raises(TargetError, match="expected 0 to 20"):
        found.compute()


# ---- xarray


@pytest.fixture(params=["NumPy", "Dask"])
def labelled(request: pytest.FixtureRequest, logits: Any) -> Any:
    data = logits if request.param == "NumPy" else da.from_array(logits, chunks=(9, -1))
    return xr.DataArray(
        data,
        dims=("row", "class"),
        coords={"row": np.arange(ROWS) * 10, "class": [f"class {k}" for k in range(CLASSES)], "run": 7},
        attrs={"model": "m1"},
        name="logits",
    )


@pytest.mark.parametrize("axis", ["class", -1, 1])
def test_a_data_array_keeps_dims_coords_and_attrs(labelled, axis):
    found = softmax(labelled, axis=axis)

    xr.testing.assert_identical(found, labelled.copy(data=softmax(labelled.values)))


def test_columns_of_a_data_array_lose_the_class_dimension(labelled):
    found = decisions(labelled, ("confidence",), axis="class")["confidence"]

    expected = labelled.isel({"class": 0}, drop=True).copy(data=decisions(labelled.values)["confidence"])
    xr.testing.assert_identical(found, expected)


def test_a_data_array_keeps_its_kind_of_data(labelled):
    found = decisions(labelled, ("label", "probabilities"), axis="class")

    assert {type(array.data) for array in found.values()} == {type(labelled.data)}


def test_a_data_array_of_dask_keeps_its_chunks(logits):
    x = xr.DataArray(da.from_array(logits, chunks=(9, -1)), dims=("row", "class"))

    found = softmax(x)

    assert found.chunks == x.chunks


def test_any_dimension_of_a_data_array_may_be_that_of_classes(labelled):
    swapped = labelled.transpose("class", "row").chunk() if labelled.chunks else labelled.transpose("class", "row")

    found = softmax(swapped, axis="class")

    np.testing.assert_array_equal(found.values.T, softmax(labelled.values))


def test_targets_may_be_a_data_array(labelled, logits, targets):
    given = xr.DataArray(targets, dims="row")

    found = decisions(labelled, ("nll",), targets=given)["nll"]

    np.testing.assert_array_equal(found.values, decisions(logits, ("nll",), targets=targets)["nll"])


@pytest.mark.parametrize("axis", ["klass", 5])
def test_a_dimension_that_is_not_there_is_refused(labelled, axis):
    with pytest.raises(ClassAxisError, match=f"axis is {axis!r}; expected"):
        softmax(labelled, axis=axis)


def test_logsumexp_of_a_data_array_is_a_data_array(labelled):
    found = logsumexp(labelled, axis="class")

    assert (type(found), found.dims) == (xr.DataArray, ("row",))


def forbidden(*_args: Any, **_options: Any) -> Any:
    raise AssertionError("called while it must not be")


def assert_same_bits(found: Any, expected: Any) -> None:
    assert {n: a.tobytes() for n, a in found.items()} == {n: a.tobytes() for n, a in expected.items()}


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda x: softmax(np.ma.masked_invalid(x)), UnsupportedArrayError, "filled"),
        (lambda x: softmax(["a"]), DtypeError, "nested lists of numbers"),
        (lambda x: softmax(1.0), ClassAxisError, "single number"),
        (lambda x: softmax(x, axis=None), ClassAxisError, "axis is None"),
        (lambda x: softmax(x, axis=1.0), ClassAxisError, "axis is 1.0"),
        (lambda x: softmax(x, axis="class"), ClassAxisError, "xarray.DataArray"),
        (lambda x: softmax(x, dtype="bogus"), DtypeError, "'bogus'"),
        (lambda x: softmax(x, temperature=10**400), TemperatureError, "finite number above 0"),
        (lambda x: softmax(x, temperature=True), TemperatureError, "True"),
        (lambda x: decisions(x, 5), ColumnError, "columns is 5"),
        (lambda x: decisions(x, (5,)), ColumnError, "no column 5"),
        (lambda x: decisions(x, out={"labl": np.empty(3, np.int32)}), OutputBufferError, "labl"),
        (lambda x: decisions(x, ("label",), out={"label": [0, 0, 0]}), OutputBufferError, "list"),
    ],
)
def test_mistaken_argument_is_an_error_of_ours_that_says_what_is_wrong(call, error, said):
    x = np.zeros((3, 4), np.float32)

    with pytest.raises(error, match=re.escape(said)):
        call(x)
