"""The public derivatives on NumPy, Dask and xarray: shapes, dtypes, tiles, errors."""

import inspect
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
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
from hypothesis.extra.numpy import array_shapes, arrays

from softmax_dask import (
    SingleClassWarning,
    jacobian,
    jacobian_blocks,
    jvp,
    log_softmax_jvp,
    log_softmax_vjp,
    softmax,
    vjp,
)
from softmax_dask.dispatch import backend_of
from softmax_dask.errors import (
    ClassAxisError,
    DtypeError,
    OutputBufferError,
    SplitClassAxisError,
    TemperatureError,
    UnsupportedArrayError,
    VectorError,
)
from softmax_dask.sizes import jacobian_tiles, pieces_of

ROOT = Path(__file__).parents[2]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
ROWS, CLASSES = 12, 30
MATRIX = 10 * float(np.finfo(np.float32).eps)  # the contract: 10 eps, relative
PRODUCT = 16 * float(np.finfo(np.float32).eps)  # the contract: 16 eps of the largest numbers involved
PRODUCTS = [jvp, vjp, log_softmax_jvp, log_softmax_vjp]
FLOATS = {
    "float16": "f4",
    BFLOAT16: "f4",
    "float32": "f4",
    "int8": "f4",
    "uint16": "f4",
    "float64": "f8",
    "int32": "f8",
}

LAYOUTS = {
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "Fortran order": np.asfortranarray,
    "every second row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "every second class": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "reversed rows": lambda x: x[::-1].copy()[::-1],
    "read-only": lambda x: np.broadcast_to(x, x.shape),
}


@pytest.fixture(autouse=True)
def one_thread():
    # Threads of a pool would outlive the test.
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(scope="module")
def logits() -> Any:
    return np.random.default_rng(0).normal(0, 3, (ROWS, CLASSES)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors() -> Any:
    return np.random.default_rng(1).normal(0, 3, (ROWS, CLASSES)).astype(np.float32)


@pytest.fixture
def lazy(logits) -> Any:
    return da.from_array(logits, chunks=((5, 7), -1))


def by_einsum(x: Any, temperature: float = 1.0) -> Any:
    """The definition, in float64: diag(s) - s s^T for every row of the last axis."""
    s = softmax(x.astype(np.float64), temperature=temperature)
    return (np.einsum("...j,jk->...jk", s, np.eye(s.shape[-1])) - np.einsum("...j,...k->...jk", s, s)) / temperature


# ---- NumPy: the matrix


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_jacobian_is_that_of_the_definition(logits, temperature):
    found = jacobian(logits, temperature=temperature)

    # The definition in float64 is itself some eps of float64 off, absolutely.
    np.testing.assert_allclose(found, by_einsum(logits, temperature), rtol=MATRIX, atol=1e-15)


@settings(max_examples=40)
@given(
    arrays(np.float64, array_shapes(min_dims=1, max_dims=4, min_side=2, max_side=6), elements=st.floats(-9, 9)),
    st.data(),
)
def test_any_axis_may_be_the_class_axis(x, data):
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))

    found = jacobian(x, axis=axis)

    position = axis % x.ndim
    expected = np.moveaxis(by_einsum(np.moveaxis(x, position, -1)), (-2, -1), (position, position + 1))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


@settings(max_examples=40)
@given(st.integers(2, 40), st.integers(1, 20), st.sampled_from(list(FLOATS)), st.integers(0, 99))
def test_products_are_those_with_the_matrix(classes, rows, dtype, seed):
    rng = np.random.default_rng(seed)
    x, v = rng.integers(0, 9, (rows, classes)).astype(dtype), rng.normal(size=(rows, classes)).astype(np.float32)

    found = jvp(x, v)

    expected = np.einsum("ijk,ik->ij", by_einsum(x), v)
    np.testing.assert_allclose(found, expected, rtol=0, atol=PRODUCT * 2 * np.ptp(v))


@pytest.mark.parametrize(("dtype", "expected"), FLOATS.items(), ids=str)
def test_jacobian_has_the_dtype_of_the_table(dtype, expected):
    found = jacobian(np.array([[1, 2, 3]], dtype))

    assert found.dtype == expected


@pytest.mark.parametrize("dtype", ["float16", BFLOAT16, "float32"], ids=str)
def test_narrow_jacobians_are_the_rounded_float32_ones(logits, dtype):
    found = jacobian(logits, dtype=dtype)

    np.testing.assert_array_equal(found, jacobian(logits).astype(dtype))


def test_float64_jacobians_of_float32_logits_are_computed_in_float64(logits):
    found = jacobian(logits, dtype="float64")

    np.testing.assert_array_equal(found, jacobian(logits.astype(np.float64)))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("block_bytes", [1, CLASSES * 4 * 7, CLASSES * CLASSES * 4 * 5])
def test_several_slabs_give_the_bits_of_one(logits, monkeypatch, dtype, block_bytes):
    whole = jacobian(logits, dtype=dtype)
    monkeypatch.setattr(jacobian_blocks, "backend_of", lambda x: replace(backend_of(x), slab_bytes=block_bytes))

    found = jacobian(logits, dtype=dtype)

    assert found.tobytes() == whole.tobytes()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_of_logits_changes_no_bit_of_a_jacobian(logits, layout):
    found = jacobian(LAYOUTS[layout](logits))

    np.testing.assert_array_equal(found, jacobian(logits))


def test_one_dimension_is_one_row(logits):
    found = jacobian(logits[0])

    np.testing.assert_array_equal(found, jacobian(logits)[0])


@pytest.mark.parametrize("shape", [(0, 5), (3, 0, 5)])
def test_no_rows_give_an_empty_jacobian(shape):
    found = jacobian(np.zeros(shape, np.float32))

    assert found.shape == (*shape, 5)


def test_one_class_warns_and_has_derivative_zero():
    with pytest.warns(SingleClassWarning):
        found = jacobian(np.ones((3, 1), np.float32))

    np.testing.assert_array_equal(found, np.zeros((3, 1, 1)))


@pytest.mark.parametrize("axis", [0, 1])
def test_out_is_filled_and_returned(logits, axis):
    x = logits if axis else logits.T
    buffer = np.moveaxis(np.zeros((ROWS, CLASSES, CLASSES), np.float32), (-2, -1), (axis, axis + 1))

    found = jacobian(x, axis=axis, out=buffer)

    assert np.shares_memory(found, buffer)
    np.testing.assert_array_equal(buffer, jacobian(x, axis=axis))


@pytest.mark.parametrize(
    "buffer",
    [
        np.zeros((ROWS, CLASSES, CLASSES + 1), np.float32),
        np.zeros((ROWS, CLASSES), np.float32),
        np.zeros((ROWS, CLASSES, CLASSES), np.float64),
        np.zeros((ROWS, CLASSES, CLASSES), np.float32, order="F"),
        np.broadcast_to(np.float32(0), (ROWS, CLASSES, CLASSES)),
        [0.0],
    ],
    ids=["shape", "axes", "dtype", "Fortran order", "read-only", "list"],
)
def test_out_that_cannot_take_the_result_is_refused(logits, buffer):
    with pytest.raises(OutputBufferError, match="expected"):
        jacobian(logits, out=buffer)


def test_out_that_overlaps_the_logits_is_refused():
    memory = np.zeros(CLASSES * CLASSES, np.float32)

    with pytest.raises(OutputBufferError, match="overlaps"):
        jacobian(memory[:CLASSES], out=memory.reshape(CLASSES, CLASSES))


# ---- NumPy: products


@pytest.mark.parametrize("function", [jvp, vjp])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_jvp_and_vjp_are_the_products_with_the_jacobian(logits, vectors, function, temperature):
    found = function(logits, vectors, temperature=temperature)

    expected = np.einsum("ijk,ik->ij", by_einsum(logits, temperature), vectors)
    np.testing.assert_allclose(found, expected, rtol=0, atol=PRODUCT * 2 * np.ptp(vectors) / temperature)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_log_products_are_those_with_the_jacobian_of_log_softmax(logits, vectors, temperature):
    found = (
        log_softmax_jvp(logits, vectors, temperature=temperature),
        log_softmax_vjp(logits, vectors, temperature=temperature),
    )

    s = softmax(logits.astype(np.float64), temperature=temperature)
    matrices = (np.eye(CLASSES) - s[:, None, :]) / temperature
    expected = np.einsum("ijk,ik->ij", matrices, vectors), np.einsum("ijk,ij->ik", matrices, vectors)
    np.testing.assert_allclose(found, expected, rtol=0, atol=PRODUCT * np.abs(vectors).sum(axis=1).max() / temperature)


@pytest.mark.parametrize("function", PRODUCTS)
@pytest.mark.parametrize(
    ("x", "v", "expected"),
    [
        ("float16", "float32", "float32"),
        (BFLOAT16, BFLOAT16, "float32"),
        ("float32", "float64", "float64"),
        ("float64", "float16", "float64"),
        ("int8", "int32", "float64"),
    ],
    ids=str,
)
def test_products_are_float64_if_either_side_is(function, x, v, expected):
    found = function(np.array([[1, 2, 3]], x), np.array([[1, 0, 2]], v))

    assert found.dtype == expected


@pytest.mark.parametrize("function", PRODUCTS)
def test_products_of_any_axis_are_those_of_the_last(function, logits, vectors):
    found = function(logits.T, vectors.T, axis=0)

    np.testing.assert_array_equal(found.T, function(logits, vectors))


@pytest.mark.parametrize("function", PRODUCTS)
def test_slabs_of_products_give_the_bits_of_one(function, logits, vectors, monkeypatch):
    whole = function(logits, vectors)
    monkeypatch.setattr(jacobian_blocks, "backend_of", lambda x: replace(backend_of(x), slab_bytes=5 * CLASSES * 4))

    found = function(logits, vectors)

    assert found.tobytes() == whole.tobytes()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("function", PRODUCTS)
def test_the_layout_of_vectors_changes_no_bit(function, logits, vectors, layout):
    found = function(logits, LAYOUTS[layout](vectors))

    np.testing.assert_array_equal(found, function(logits, vectors))


def test_a_product_takes_a_temperature_beyond_float32(logits, vectors):
    found = jvp(logits, vectors, temperature=1e33)

    assert (found.dtype, bool(np.isfinite(found).all())) == (np.float32, True)


@pytest.mark.parametrize("function", PRODUCTS)
@pytest.mark.parametrize("wrap", [np.asarray, da.from_array], ids=["NumPy", "Dask"])
def test_a_vector_of_another_shape_is_refused(function, logits, wrap):
    with pytest.raises(VectorError, match=r"the vector has shape \(30,\); expected \(12, 30\)"):
        function(wrap(logits), np.zeros(CLASSES))


def test_a_lazy_vector_beside_logits_in_memory_is_refused(logits, lazy):
    with pytest.raises(VectorError, match=r"vector\.compute\(\)"):
        jvp(logits, lazy)


def test_a_vector_of_another_dtype_is_refused(logits):
    with pytest.raises(DtypeError, match=r"the vector has dtype complex64; .* vector\.astype\("):
        jvp(logits, np.zeros(logits.shape, "complex64"))


# ---- errors that all have


@pytest.mark.parametrize("wrap", [np.asarray, da.from_array], ids=["NumPy", "Dask"])
@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (TemperatureError, {"temperature": 0}),
        (ClassAxisError, {"axis": 2}),
        (ClassAxisError, {"axis": "class"}),
        (DtypeError, {"dtype": "int8"}),
    ],
)
def test_wrong_arguments_are_refused(logits, wrap, error, arguments):
    with pytest.raises(error):
        jacobian(wrap(logits), **arguments)


@pytest.mark.parametrize("function", [jacobian, *PRODUCTS])
def test_arguments_after_the_data_are_keyword_only(function):
    kinds = [p.kind for p in inspect.signature(function).parameters.values()]

    assert set(kinds[1 if function is jacobian else 2 :]) == {inspect.Parameter.KEYWORD_ONLY}


# ---- Dask


@pytest.mark.parametrize("chunk_size", ["128MiB", "5000B", "1KiB", "4B"])
def test_lazy_jacobians_have_the_bits_of_numpy_in_tiles_of_any_size(lazy, logits, chunk_size):
    with dask.config.set({"array.chunk-size": chunk_size}):
        found = jacobian(lazy[:3])

    assert found.compute().tobytes() == jacobian(logits[:3]).tobytes()


@pytest.mark.parametrize("chunk_size", ["128MiB", "5000B", "1KiB"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_no_tile_passes_dasks_limit(lazy, chunk_size, dtype):
    with dask.config.set({"array.chunk-size": chunk_size}):
        found = jacobian(lazy, dtype=dtype)

    assert np.prod(found.chunksize) * found.dtype.itemsize <= dask.utils.parse_bytes(chunk_size)


@pytest.mark.parametrize("axis", [0, 1, 2, -2])
@pytest.mark.parametrize("chunk_size", ["128MiB", "200B"])
def test_the_class_axis_of_a_dask_array_may_be_any(axis, chunk_size):
    x = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    chunks = tuple(-1 if i == axis % 3 else 3 for i in range(3))

    with dask.config.set({"array.chunk-size": chunk_size}):
        found = jacobian(da.from_array(x, chunks=chunks), axis=axis)

    np.testing.assert_array_equal(found.compute(), jacobian(x, axis=axis))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", BFLOAT16], ids=str)
@pytest.mark.parametrize("function", [jacobian, *PRODUCTS])
def test_a_lazy_result_tells_the_dtype_and_shape_that_it_computes_to(lazy, vectors, function, dtype):
    arguments = () if function is jacobian else (vectors,)
    lazy_result = function(lazy.astype(dtype), *arguments)

    found = lazy_result.compute()

    assert (found.dtype, found.shape) == (lazy_result.dtype, lazy_result.shape)


def test_a_jacobian_of_ten_terabytes_is_built_in_little_memory():
    x = da.zeros((1000, 50_000), chunks=(100, -1), dtype="float32")
    tracemalloc.start()

    found = jacobian(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    # 324,000 tiles; a graph with a task each would take 100 MB and more.
    assert (found.shape, found.npartitions > 300_000, peak < 8e6) == ((1000, 50_000, 50_000), True, True)


@pytest.mark.parametrize(
    "corner", [(0, slice(5), slice(5)), (-1, slice(-3, None), slice(-3, None)), (500, 7, slice(-2, None))]
)
def test_a_corner_of_ten_terabytes_is_computed_from_its_own_tiles(corner, monkeypatch):
    x = da.zeros((1000, 50_000), chunks=(100, -1), dtype="float32")
    tiles = []
    tile = jacobian_blocks.jacobian
    monkeypatch.setattr(jacobian_blocks, "jacobian", lambda *a, **o: (tiles.append(1), tile(*a, **o))[1])

    found = jacobian(x)[corner].compute()

    s = 1 / 50_000
    j, k = np.arange(50_000)[corner[1]], np.arange(50_000)[corner[2]]
    expected = np.where(np.equal.outer(j, k), s * (1 - s), -s * s)
    np.testing.assert_allclose(found, expected, rtol=MATRIX)
    assert len(tiles) == 1


def test_selected_rows_have_their_matrices(lazy, logits):
    found = jacobian(lazy[[3, 7]]).compute()

    np.testing.assert_array_equal(found, jacobian(logits[[3, 7]]))


def test_building_a_lazy_jacobian_or_product_imports_no_numba():
    code = (
        "import sys, dask.array as da, softmax_dask as sd\n"
        "x = da.zeros((8, 3), chunks=(2, 3))\n"
        "sd.jacobian(x), sd.jvp(x, x)\n"
        "sys.exit('numba' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)

    assert done.returncode == 0


@pytest.mark.parametrize("function", [jacobian, *PRODUCTS])
def test_a_split_class_axis_is_refused(function, logits, vectors):
    split = da.from_array(logits, chunks=(5, 10))

    with pytest.raises(SplitClassAxisError, match="rechunk"):
        function(split) if function is jacobian else function(split, vectors)


def test_rows_of_unknown_length_are_refused_with_the_remedy(lazy):
    with pytest.raises(UnsupportedArrayError, match="compute_chunk_sizes"):
        jacobian(lazy[lazy[:, 0] > 0])


def test_out_for_a_lazy_jacobian_is_refused(lazy):
    with pytest.raises(OutputBufferError, match="logits in memory"):
        jacobian(lazy, out=np.zeros((ROWS, CLASSES, CLASSES), np.float32))


@pytest.mark.parametrize(
    "given",
    [
        lambda v: v,
        lambda v: da.from_array(v, chunks=((5, 7), -1)),
        lambda v: da.from_array(v, chunks=4),
        lambda v: v.tolist(),
    ],
    ids=["NumPy", "same chunks", "other chunks", "list"],
)
@pytest.mark.parametrize("function", PRODUCTS)
def test_lazy_products_take_vectors_of_any_kind(function, lazy, logits, vectors, given):
    found = function(lazy, given(vectors))

    assert found.chunks == lazy.chunks
    np.testing.assert_array_equal(found.compute(), function(logits, np.asarray(given(vectors))))


def test_vectors_that_were_filtered_with_their_logits_meet_their_rows(lazy, logits, vectors):
    kept, lazily_kept = logits[:, 0] > 0, lazy[:, 0] > 0

    found = jvp(lazy[lazily_kept], da.from_array(vectors, chunks=lazy.chunks)[lazily_kept]).compute()

    np.testing.assert_array_equal(found, jvp(logits[kept], vectors[kept]))


# ---- xarray


@pytest.fixture(params=["NumPy", "Dask"])
def labelled(request: pytest.FixtureRequest, logits: Any) -> Any:
    data = logits if request.param == "NumPy" else da.from_array(logits, chunks=(5, -1))
    coords = {"row": np.arange(ROWS), "class": [f"c{k}" for k in range(CLASSES)], "size": ("class", np.arange(CLASSES))}
    return xr.DataArray(data, dims=("row", "class"), coords={**coords, "run": 7}, attrs={"model": "m1"}, name="logits")


@pytest.mark.parametrize("axis", ["class", 1, -1])
def test_the_jacobian_of_a_data_array_names_both_axes(labelled, axis):
    found = jacobian(labelled, axis=axis)

    coords = {
        **labelled.coords,
        "class_of_logit": labelled["class"].values,
        "size_of_logit": ("class_of_logit", labelled["size"].values),
    }
    dims = ("row", "class", "class_of_logit")
    expected = xr.DataArray(jacobian(labelled.values), dims=dims, coords=coords, attrs=labelled.attrs, name="logits")
    xr.testing.assert_identical(found, expected)


def test_the_jacobian_of_a_data_array_keeps_its_kind_of_data(labelled):
    found = jacobian(labelled)

    assert type(found.data) is type(labelled.data)


def test_a_name_that_the_second_axis_would_take_is_refused(labelled):
    with pytest.raises(ClassAxisError, match="'class_of_logit'"):
        jacobian(labelled.rename(row="class_of_logit"), axis="class")


@pytest.mark.parametrize("function", PRODUCTS)
def test_products_of_data_arrays_are_aligned_by_name(labelled, vectors, function):
    given = xr.DataArray(vectors.T, dims=("class", "row"), coords={"row": np.arange(ROWS)})

    found = function(labelled, given, axis="class")

    xr.testing.assert_identical(found, labelled.copy(data=function(labelled.values, vectors)))


def test_vectors_with_other_coordinates_are_refused(labelled, vectors):
    given = xr.DataArray(vectors, dims=("row", "class"), coords={"row": np.arange(ROWS) + 1})

    with pytest.raises(VectorError, match="other coordinates along 'row'"):
        jvp(labelled, given)


def test_vectors_with_other_dimensions_are_refused(labelled, vectors):
    with pytest.raises(VectorError, match="has dimensions"):
        jvp(labelled, xr.DataArray(vectors, dims=("image", "class")))


# ---- tiles


@given(
    st.lists(st.integers(0, 10**6), max_size=3).map(tuple),
    st.integers(1, 300_000),
    st.sampled_from([2, 4, 8]),
    st.integers(8, 2**30),
)
def test_tiles_fit_their_bytes(rows, classes, item_bytes, tile_bytes):
    lengths, side = jacobian_tiles(rows, classes, item_bytes, tile_bytes)

    assert int(np.prod(lengths, dtype=object)) * side * side * item_bytes <= tile_bytes
    assert (len(lengths), min(lengths, default=1) >= 1, 1 <= side <= classes) == (len(rows), True, True)


@given(st.integers(0, 10**4), st.integers(1, 10**4))
def test_pieces_add_up(length, most):
    found = pieces_of(length, most)

    assert (sum(found), max(found) <= most) == (length, True)
