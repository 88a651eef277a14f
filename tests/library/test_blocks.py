"""The public functions on arrays in memory: dtypes, layouts, axes, buffers, targets."""

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from softmax_dask import SingleClassWarning, blocks, decisions, log_softmax, logsumexp, softmax
from softmax_dask.dispatch import backend_of
from softmax_dask.errors import (
    ClassAxisError,
    ColumnError,
    DtypeError,
    OutputBufferError,
    TargetError,
    TemperatureError,
    UnsupportedArrayError,
)
from softmax_dask.kernels import cpu

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
ROWS, CLASSES = 40, 21
UNTARGETED = ("label", "confidence", "margin", "entropy", "logsumexp", "max_logit", "probabilities")
COLUMNS = (*UNTARGETED, "log_probabilities", "nll", "target_probability", "target_rank", "correct")

LAYOUTS = {
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "Fortran order": np.asfortranarray,
    "every second row": lambda x: spread_out(x)[::2, ::3],
    "rows apart": lambda x: np.concatenate([x, x], axis=1)[:, : x.shape[1]],
    "reversed rows": lambda x: x[::-1].copy()[::-1],
    "reversed classes": lambda x: x[:, ::-1].copy()[:, ::-1],
    "transposed": lambda x: x.T.copy().T,
    "read-only": lambda x: locked(x),
    "unaligned": lambda x: unaligned(x),
    "fields of records": lambda x: records(x),
}


@pytest.fixture(scope="module")
def logits() -> Any:
    return np.random.default_rng(0).normal(0, 6, (ROWS, CLASSES)).astype(np.float32)


@pytest.fixture(scope="module")
def targets() -> Any:
    return np.random.default_rng(1).integers(-1, CLASSES, ROWS)


# ---- dtypes


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("float16", "float32"),
        (BFLOAT16, "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
        ("int8", "float32"),
        ("int16", "float32"),
        ("int32", "float64"),
        ("uint8", "float32"),
        ("uint16", "float32"),
        ("uint32", "float64"),
    ],
    ids=str,
)
@pytest.mark.parametrize("function", [softmax, log_softmax, logsumexp])
def test_results_have_the_dtype_of_the_table(function, dtype, expected):
    x = np.array([[1, 2, 3]], dtype)

    found = function(x)

    assert found.dtype == expected


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint8", "uint16", "float16", BFLOAT16], ids=str)
def test_narrow_logits_give_the_bits_of_the_same_values_in_float32(dtype):
    x = np.random.default_rng(0).integers(0, 100, (ROWS, CLASSES)).astype(dtype)

    found = softmax(x)

    np.testing.assert_array_equal(found, softmax(x.astype(np.float32)))


@pytest.mark.parametrize("dtype", ["int32", "uint32"])
def test_wide_integers_keep_their_low_digits(dtype):
    x = np.array([[2**30, 2**30 + 1]], dtype)  # one number in float32

    found = decisions(x, ("label",))["label"]

    np.testing.assert_array_equal(found, [1])


@pytest.mark.parametrize("dtype", ["int64", "uint64", "bool", "complex64", "object", "longdouble"])
def test_other_dtypes_are_refused_with_the_cast(dtype):
    with pytest.raises(DtypeError, match=r"Cast them first, e\.g\. logits\.astype\('float32'\)"):
        softmax(np.zeros((2, 3), dtype))


@pytest.mark.parametrize("dtype", ["float16", BFLOAT16, "float32"], ids=str)
@pytest.mark.parametrize("function", [softmax, log_softmax])
def test_narrow_results_are_the_rounded_float32_results(function, logits, dtype):
    found = function(logits, dtype=dtype)

    np.testing.assert_array_equal(found, function(logits).astype(dtype))


@pytest.mark.parametrize("function", [softmax, log_softmax])
def test_float64_results_of_float32_logits_are_computed_in_float64(function, logits):
    found = function(logits, dtype="float64")

    np.testing.assert_array_equal(found, function(logits.astype(np.float64)))


def test_log_probabilities_below_the_range_of_float16_are_minus_infinity():
    x = np.array([[0, -1e5]], np.float32)

    found = log_softmax(x, dtype="float16")

    np.testing.assert_array_equal(found, [[0, -np.inf]])


def test_dtype_is_that_of_wide_columns_only(logits):
    found = decisions(logits, ("probabilities", "margin"), dtype="float16")

    assert {name: str(array.dtype) for name, array in found.items()} == {
        "probabilities": "float16",
        "margin": "float32",
    }


@pytest.mark.parametrize("dtype", ["int32", "complex64"])
def test_results_of_other_dtypes_are_refused(logits, dtype):
    with pytest.raises(DtypeError, match="expected float16, bfloat16, float32 or float64"):
        softmax(logits, dtype=dtype)


@pytest.mark.parametrize(("column", "dtype"), [("label", "int32"), ("target_rank", "int32"), ("correct", "int8")])
def test_whole_numbers_have_the_dtype_of_the_table(logits, targets, column, dtype):
    found = decisions(logits, (column,), targets=targets)[column]

    assert found.dtype == dtype


# ---- layouts


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_layout_of_logits_changes_no_bit(logits, targets, layout, dtype):
    plain = logits.astype(dtype)

    found = decisions(LAYOUTS[layout](plain), COLUMNS, targets=targets)

    assert_same_bits(found, decisions(plain, COLUMNS, targets=targets))


@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - {"big-endian"}))
def test_the_layout_of_bfloat16_changes_no_bit(logits, layout):
    plain = logits.astype(BFLOAT16)

    found = softmax(LAYOUTS[layout](plain))

    np.testing.assert_array_equal(found, softmax(plain))


@pytest.mark.parametrize("axis", [0, 1])
def test_broadcast_logits_give_the_bits_of_a_copy(logits, axis):
    wide = np.broadcast_to(logits[0] if axis == 0 else logits[0][:, None], (CLASSES, CLASSES))

    found = decisions(wide, UNTARGETED)

    assert_same_bits(found, decisions(wide.copy(), UNTARGETED))


def test_logits_are_not_changed(logits):
    before = logits.copy()

    decisions(logits, UNTARGETED, temperature=0.5)

    np.testing.assert_array_equal(logits, before)


def test_several_slabs_give_the_bits_of_one(logits, targets, monkeypatch):
    logits = logits.astype(">f4")  # which is copied, slab by slab
    whole = decisions(logits, COLUMNS, targets=targets)
    monkeypatch.setattr(
        blocks, "backend_of", lambda x: replace(backend_of(x), slab_bytes=7 * CLASSES * 4)
    )  # 7 rows a slab

    found = decisions(logits, COLUMNS, targets=targets)

    assert_same_bits(found, whole)


def test_logits_as_they_lie_are_not_copied(logits, monkeypatch):
    seen = []
    kernel = cpu.softmax_rows
    monkeypatch.setattr(cpu, "softmax_rows", lambda x, out, t: (seen.append(x), kernel(x, out, t)))

    softmax(logits[:, 2:9])

    assert np.shares_memory(seen[0], logits)


def test_logits_as_they_lie_reach_the_kernel_whole(logits, monkeypatch):
    seen = []
    kernel = cpu.softmax_rows
    monkeypatch.setattr(cpu, "softmax_rows", lambda x, out, t: (seen.append(x.shape), kernel(x, out, t)))
    monkeypatch.setattr(blocks, "backend_of", lambda x: replace(backend_of(x), slab_bytes=7 * CLASSES * 4))

    softmax(logits)

    assert seen == [logits.shape]


# ---- the class axis inside

INSIDE = {
    "(N, C, H, W)": lambda x: (x, 1),
    "classes first": lambda x: (x.transpose(1, 0, 2, 3).copy(), 0),
    "Fortran order": lambda x: (np.asfortranarray(x), 1),
    "every second column": lambda x: (np.repeat(x, 2, axis=3)[..., ::2], 1),
    "every second group": lambda x: (np.repeat(x, 2, axis=0)[::2], 1),
    "every second class": lambda x: (np.repeat(x, 2, axis=1)[:, ::2], 1),
    "backwards": lambda x: (x[..., ::-1].copy()[..., ::-1], 1),
    "big-endian": lambda x: (x.astype(x.dtype.newbyteorder(">")), 1),
    "columns before rows": lambda x: (x.swapaxes(2, 3).copy().swapaxes(2, 3), 1),
}


@pytest.fixture
def images() -> Any:
    return np.random.default_rng(0).normal(0, 6, (3, CLASSES, 5, 7)).astype(np.float32)


@pytest.mark.parametrize("layout", INSIDE)
@pytest.mark.parametrize("block_bytes", [1 << 20, 8 * CLASSES * 4])
def test_columns_of_inner_classes_have_the_bits_of_rows(images, layout, block_bytes, monkeypatch):
    monkeypatch.setattr(blocks, "backend_of", lambda x: replace(backend_of(x), slab_bytes=block_bytes))
    x, axis = INSIDE[layout](images)
    rows = np.ascontiguousarray(np.moveaxis(x, axis, -1)).astype(np.float32)
    targets = np.random.default_rng(1).integers(-1, CLASSES, rows.shape[:-1])

    found = decisions(x, COLUMNS, axis=axis, targets=targets)

    expected = decisions(rows, COLUMNS, targets=targets)
    last = {name: np.moveaxis(a, axis, -1) if a.ndim == rows.ndim else a for name, a in found.items()}
    assert_same_bits(last, expected)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("classes", [CLASSES, 300])
def test_softmax_of_inner_classes_has_the_bits_of_rows(dtype, classes):
    x = np.random.default_rng(0).normal(0, 6, (2, classes, 3, 4)).astype(dtype)

    found = softmax(x, axis=1, dtype=dtype)

    rows = softmax(np.ascontiguousarray(np.moveaxis(x, 1, -1)), dtype=dtype)
    np.testing.assert_array_equal(np.moveaxis(found, 1, -1), rows)


def test_softmax_of_inner_classes_is_in_c_order(images):
    found = softmax(images, axis=1)

    assert found.flags.c_contiguous


def test_out_may_be_in_c_order_with_the_class_axis_inside(images):
    buffer = np.zeros_like(images)

    decisions(images, ("probabilities",), axis=1, out={"probabilities": buffer})

    np.testing.assert_array_equal(buffer, softmax(images, axis=1))


def test_inner_classes_are_not_copied(images, monkeypatch):
    seen = []
    kernel = cpu.softmax_rows
    monkeypatch.setattr(cpu, "softmax_rows", lambda x, out, t: (seen.append((x, out)), kernel(x, out, t)))

    found = softmax(images, axis=1)

    assert [np.shares_memory(*pair) for pair in zip(seen[0], (images, found), strict=True)] == [True, True]


# ---- axes and shapes


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_the_class_axis_may_be_any(axis):
    x = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)

    found = softmax(x, axis=axis)

    last = softmax(np.ascontiguousarray(np.moveaxis(x, axis, -1)))
    np.testing.assert_array_equal(found, np.moveaxis(last, -1, axis))


@pytest.mark.parametrize(("axis", "shape"), [(0, (5, 6)), (1, (4, 6)), (-1, (4, 5))])
def test_columns_of_one_value_a_row_lose_the_class_axis(axis, shape):
    x = np.zeros((4, 5, 6), np.float32)

    found = logsumexp(x, axis=axis)

    assert found.shape == shape


@pytest.mark.parametrize("axis", [2, -3, 100])
def test_an_axis_that_is_not_there_is_refused(logits, axis):
    with pytest.raises(ClassAxisError, match=f"axis is {axis}; expected -2 to 1"):
        softmax(logits, axis=axis)


def test_a_named_axis_is_refused_for_numpy(logits):
    with pytest.raises(ClassAxisError, match=r"xarray\.DataArray the name"):
        softmax(logits, axis="class")


def test_a_number_has_no_class_axis():
    with pytest.raises(ClassAxisError, match="a single number"):
        softmax(np.float32(1))


def test_one_dimension_is_one_row(logits):
    found = softmax(logits[0])

    np.testing.assert_array_equal(found, softmax(logits)[0])


def test_columns_of_one_row_are_numbers(logits):
    found = decisions(logits[0], ("label",))["label"]

    assert found.shape == ()


def test_a_list_is_taken_as_float64():
    found = softmax([[1, 2], [3, 4]])

    np.testing.assert_array_equal(found, softmax(np.array([[1, 2], [3, 4]], np.float64)))


def test_one_class_warns():
    with pytest.warns(SingleClassWarning, match="Did you mean a sigmoid"):
        softmax(np.zeros((3, 1), np.float32))


@pytest.mark.filterwarnings("ignore::softmax_dask.SingleClassWarning")
def test_one_class_has_probability_one():
    found = softmax(np.array([[5], [-5]], np.float32))

    np.testing.assert_array_equal(found, 1)


@pytest.mark.parametrize("shape", [(3, 0), (0, 0), (0,)])
def test_no_classes_are_refused(shape):
    with pytest.raises(ClassAxisError, match="have no classes along axis -1; expected at least one"):
        softmax(np.zeros(shape, np.float32))


@pytest.mark.parametrize("shape", [(0, 5), (3, 0, 5)])
def test_no_rows_give_an_empty_result(shape):
    found = softmax(np.zeros(shape, np.float32))

    assert (found.shape, str(found.dtype)) == (shape, "float32")


def test_no_rows_give_empty_columns():
    found = decisions(np.zeros((0, 5), np.float32), COLUMNS, targets=np.zeros(0, np.int64))

    assert {len(array) for array in found.values()} == {0}


def test_arrays_without_a_backend_are_refused():
    class Array:
        dtype, shape, ndim = np.dtype(np.float32), (2, 3), 2

    with pytest.raises(UnsupportedArrayError, match=r"Convert it first: numpy\.asarray\(logits\)"):
        softmax(Array())


# ---- temperature and columns


@pytest.mark.parametrize("temperature", [0, -1.0, np.nan, np.inf, -np.inf, "1", None, True, 1e-310, 1e301, 1j])
def test_a_temperature_that_cannot_divide_is_refused(logits, temperature):
    with pytest.raises(TemperatureError, match="expected a finite number above 0"):
        softmax(logits, temperature=temperature)


@pytest.mark.parametrize("temperature", [2, np.float32(2), np.int64(2)])
def test_any_number_is_a_temperature(logits, temperature):
    found = softmax(logits, temperature=temperature)

    np.testing.assert_array_equal(found, softmax(logits, temperature=2.0))


def test_columns_come_in_the_order_asked_for(logits):
    found = decisions(logits, ("margin", "probabilities", "label"))

    assert list(found) == ["margin", "probabilities", "label"]


def test_a_column_of_targets_without_targets_is_refused(logits):
    with pytest.raises(ColumnError, match="'nll' needs targets"):
        decisions(logits, ("nll",))


def test_one_name_in_place_of_several_is_refused(logits):
    with pytest.raises(ColumnError, match=r"Write \('label',\)"):
        decisions(logits, "label")


# ---- out


@pytest.mark.parametrize("column", ["label", "margin", "probabilities"])
def test_out_is_filled_and_returned(logits, column):
    expected = decisions(logits, (column,))[column]
    buffer = np.zeros_like(expected)

    found = decisions(logits, (column,), out={column: buffer})[column]

    assert np.shares_memory(found, buffer)
    np.testing.assert_array_equal(buffer, expected)


def test_out_of_a_narrow_dtype_is_filled(logits):
    buffer = np.zeros(logits.shape, np.float16)

    decisions(logits, ("probabilities",), dtype="float16", out={"probabilities": buffer})

    np.testing.assert_array_equal(buffer, softmax(logits, dtype="float16"))


def test_out_may_have_the_class_axis_elsewhere(logits):
    buffer = np.zeros((ROWS, CLASSES), np.float32).T

    decisions(logits.T, ("probabilities",), axis=0, out={"probabilities": buffer})

    np.testing.assert_array_equal(buffer.T, softmax(logits))


def test_columns_that_out_lacks_are_allocated(logits):
    found = decisions(logits, out={"label": np.zeros(ROWS, np.int32)})

    np.testing.assert_array_equal(found["confidence"], decisions(logits)["confidence"])


@pytest.mark.parametrize(
    "buffer",
    [
        np.zeros((ROWS, CLASSES + 1), np.float32),
        np.zeros((ROWS, CLASSES), np.float64),
        np.zeros((ROWS, CLASSES), np.float32, order="F"),
        np.zeros((ROWS, 2 * CLASSES), np.float32)[:, ::2],
        np.broadcast_to(np.float32(0), (ROWS, CLASSES)),
        np.zeros((ROWS, CLASSES), ">f4"),
    ],
    ids=["shape", "dtype", "Fortran order", "strided", "read-only", "byte order"],
)
def test_out_that_cannot_take_the_result_is_refused(logits, buffer):
    with pytest.raises(OutputBufferError, match=r"out\['probabilities'\] is .*; expected float32 \(40, 21\)"):
        decisions(logits, ("probabilities",), out={"probabilities": buffer})


# ---- targets


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", ">i4"])
def test_targets_may_be_any_integers(logits, targets, dtype):
    found = decisions(logits, ("nll",), targets=targets.astype(dtype))["nll"]

    np.testing.assert_array_equal(found, decisions(logits, ("nll",), targets=targets)["nll"])


def test_targets_may_be_a_list(logits, targets):
    found = decisions(logits, ("target_rank",), targets=targets.tolist())["target_rank"]

    np.testing.assert_array_equal(found, decisions(logits, ("target_rank",), targets=targets)["target_rank"])


def test_nll_is_minus_the_log_probability_of_the_target(logits):
    targets = np.arange(ROWS) % CLASSES

    found = decisions(logits, ("nll",), targets=targets)["nll"]

    # Both are within 4 eps of numbers below 64.
    expected = -log_softmax(logits)[np.arange(ROWS), targets]
    np.testing.assert_allclose(found, expected, rtol=0, atol=8 * np.finfo(np.float32).eps * 64)


def test_correct_is_one_where_the_label_is_the_target(logits, targets):
    found = decisions(logits, ("correct",), targets=targets)["correct"]

    label = decisions(logits, ("label",))["label"]
    np.testing.assert_array_equal(found, np.where(targets < 0, -1, label == targets))


def test_correct_is_unknown_in_an_undecidable_row():
    x = np.array([[np.nan, 1], [1, 2]], np.float32)

    found = decisions(x, ("correct",), targets=[0, 1])["correct"]

    np.testing.assert_array_equal(found, [-1, 1])


def test_targets_of_an_array_of_three_axes_have_two():
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    targets = np.array([[0, 1, 2], [4, -1, 3]])

    found = decisions(x, ("target_rank",), axis=1, targets=targets)["target_rank"]

    order = np.argsort(np.argsort(-x, axis=1), axis=1)
    expected = np.take_along_axis(order, np.maximum(targets, 0)[:, None], axis=1)[:, 0]
    np.testing.assert_array_equal(found, np.where(targets < 0, -1, expected))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.zeros(ROWS), "targets have dtype float64; expected class numbers"),
        (np.zeros(ROWS, bool), "targets have dtype bool; expected class numbers"),
        (np.zeros(ROWS - 1, int), r"targets have shape \(39,\); expected \(40,\)"),
        (np.zeros((ROWS, 1), int), r"targets have shape \(40, 1\); expected \(40,\)"),
        (np.arange(ROWS), "targets hold 21 at row 21; expected 0 to 20, or -1"),
        (-np.arange(ROWS), "targets hold -2 at row 2; expected 0 to 20, or -1"),
    ],
    ids=["floats", "booleans", "too few", "two axes", "too large", "below -1"],
)
def test_targets_that_do_not_fit_are_refused(logits, targets, message):
    with pytest.raises(TargetError, match=message):
        decisions(logits, ("nll",), targets=targets)


# ---- layouts, in full


def spread_out(x: Any) -> Any:
    wide = np.zeros((2 * x.shape[0], 3 * x.shape[1]), x.dtype)
    wide[::2, ::3] = x
    return wide


def locked(x: Any) -> Any:
    copy = x.copy()
    copy.flags.writeable = False
    return copy


def unaligned(x: Any) -> Any:
    memory = np.zeros(x.nbytes + 1, np.uint8)
    memory[1:] = np.frombuffer(x.tobytes(), np.uint8)
    return memory[1:].view(x.dtype).reshape(x.shape)


def records(x: Any) -> Any:
    """A field of packed records of an odd number of bytes: rows begin at any byte."""
    packed = np.zeros(x.shape[0], [("flag", "u1"), ("logits", x.dtype, x.shape[1])])
    packed["logits"] = x
    return packed["logits"]


def assert_same_bits(found: Any, expected: Any) -> None:
    assert {n: a.tobytes() for n, a in found.items()} == {n: a.tobytes() for n, a in expected.items()}
