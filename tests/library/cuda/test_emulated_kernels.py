"""The CUDA text on the emulator: every structure in three schedules, with memory poisoned, and its traffic counted."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softmax_dask.kernels.cuda import rows, text, variants
from softmax_dask.kernels.cuda.variants import Work
from tests.library.cuda.emulator import COMPILER, SCHEDULES, Emulator
from tests.library.cuda.prepared import FLOAT16, FLOAT32, FLOAT64

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no g++, which compiles the CUDA kernels for the CPU")

DTYPES = tuple(variants.DTYPES)
NARROW = ("label", "confidence", "margin", "entropy", "logsumexp", "max_logit", "nll", "target_probability", "brier")
ROWS = 13


def long(*values: Any) -> list[Any]:
    """For `make test-long` alone."""
    return [pytest.param(*(v if isinstance(v, tuple) else (v,)), marks=pytest.mark.long) for v in values]


PARTLY_THERE = {FLOAT32: (3071,), FLOAT16: (6143,)}
"""Rows that end one class before the part of their last warp, and begin at no multiple of 16 bytes."""


def class_counts(dtype: np.dtype[Any]) -> list[int]:
    """The least number of classes of each place, and the most where that is not far."""
    counts = [*range(1, 1100), *range(1100, 40000, 13)]
    found = {*PARTLY_THERE.get(dtype, ())}
    for work in (Work(0), Work.DECIDE):
        places = [variants.place_of(classes, dtype, work) for classes in counts]
        edges = [b for a, b in pairwise(range(len(counts))) if places[a] != places[b]]
        found |= {*{places[i]: counts[i] for i in reversed([0, *edges])}.values()}
        found |= {*{places[i - 1]: counts[i - 1] for i in edges if counts[i] < 1100}.values()}
    return sorted(found)


QUICK = [(FLOAT32, 3), (FLOAT32, 100), (FLOAT16, 257), (FLOAT32, 1000), (FLOAT32, 2500), (FLOAT16, 50257)]
EVERY = [(dtype, classes) for dtype in DTYPES for classes in class_counts(dtype)]
CASES = [*QUICK, *long(*(case for case in EVERY if case not in QUICK))]


@pytest.fixture(scope="session")
def scheduled(pytestconfig: pytest.Config) -> Emulator:
    """An emulator that compares all schedules at each launch."""
    return Emulator(pytestconfig.cache.mkdir("cuda-emulator"), SCHEDULES)


@pytest.fixture
def traced(pytestconfig: pytest.Config) -> Emulator:
    return Emulator(pytestconfig.cache.mkdir("cuda-emulator"), SCHEDULES[:1], traced=True)


def sample(dtype: np.dtype[Any], classes: int, rows_: int = ROWS) -> tuple[Any, Any]:
    rng = np.random.default_rng(classes)
    logits = aligned((rows_, classes), dtype)
    logits[...] = rng.normal(0, 6, logits.shape)
    logits[rows_ // 2, classes // 2] = np.nan
    return logits, rng.integers(-1, classes, rows_)


def aligned(shape: tuple[int, int], dtype: np.dtype[Any]) -> Any:
    """Memory that begins as a GPU's does, at a multiple of 512 bytes."""
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.zeros(size + 512, np.uint8)
    begin = -memory.ctypes.data % 512
    return memory[begin : begin + size].view(dtype).reshape(shape)


def floats_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return FLOAT64 if dtype == FLOAT64 else FLOAT32


def allocate(dtype: np.dtype[Any], shape: tuple[int, int], wide: np.dtype[Any] | None = None) -> dict[str, Any]:
    floats = floats_of(dtype)
    integers = ("label", "target_rank")
    out = {n: np.full(shape[0], -77, np.int32 if n in integers else floats) for n in (*NARROW, "target_rank")}
    return out | {n: np.full(shape, -77, wide or floats) for n in ("probabilities", "log_probabilities")}


@pytest.mark.parametrize(("dtype", "classes"), CASES, ids=str)
def test_all_columns_are_the_same_bytes_in_every_schedule(scheduled, dtype, classes):
    logits, targets = sample(dtype, classes)
    out = allocate(dtype, logits.shape)

    rows.decision_rows(scheduled, logits, targets, out, 1.7)

    # The emulator compares the schedules; what they agree on must have been written.
    assert not any((array == -77).any() for array in out.values())


@pytest.mark.parametrize(("dtype", "classes"), CASES, ids=str)
def test_probabilities_are_the_same_bytes_in_every_schedule(scheduled, dtype, classes):
    logits, _ = sample(dtype, classes)
    out = np.full(logits.shape, -77, floats_of(dtype))

    rows.softmax_rows(scheduled, logits, out, 1.7)

    assert not (out == -77).any()


@pytest.mark.parametrize("kind", ["jvp", "log_jvp", "log_vjp"])
@pytest.mark.parametrize("dtype", [FLOAT16, *long(FLOAT64)], ids=str)
@pytest.mark.parametrize("classes", [10, *long(100), 1500])
def test_products_are_the_same_bytes_in_every_schedule(scheduled, dtype, classes, kind):
    logits, _ = sample(dtype, classes)
    out = np.full(logits.shape, -77, floats_of(dtype))

    rows.product_rows(scheduled, kind, logits, np.ones_like(out), out, 1.7)

    assert not (out == -77).any()


@pytest.mark.parametrize("dtype", [FLOAT16, *long(FLOAT64)], ids=str)
@pytest.mark.parametrize("classes", [3, 70, *long(1100)])
def test_matrices_are_the_same_bytes_in_every_schedule(scheduled, dtype, classes):
    logits, _ = sample(dtype, classes, 9)
    out = np.full((9, classes, classes), -77, floats_of(dtype))

    rows.jacobian_rows(scheduled, logits, out, 1.7)

    assert not (out == -77).any()


@pytest.mark.parametrize("dtype", [FLOAT16, *long(FLOAT64)], ids=str)
@pytest.mark.parametrize("classes", [70, 1500])
def test_ranks_are_the_same_bytes_in_every_schedule(scheduled, dtype, classes):
    logits, _ = sample(dtype, classes)
    out = {"top_k_labels": np.full((ROWS, 7), -77, np.int32)}

    rows.decision_rows(scheduled, logits, None, out, 1.7)

    assert not (out["top_k_labels"] == -77).any()


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [(a, b) for a in DTYPES for b in DTYPES if a.itemsize < 8 and b.itemsize < 8 and b != FLOAT32],
    ids=str,
)
@pytest.mark.parametrize("classes", long(10, 64, 257, 1001, 5000, 17000))
def test_16_bit_results_are_those_of_float32_rounded(scheduled, dtype, wide, classes):
    logits, _ = sample(dtype, classes)
    exact, found = np.empty(logits.shape, FLOAT32), np.empty(logits.shape, wide)
    rows.softmax_rows(scheduled, logits, exact, 1.7)

    rows.softmax_rows(scheduled, logits, found, 1.7)

    np.testing.assert_array_equal(found.astype(FLOAT32), exact.astype(wide).astype(FLOAT32))


# ---- addresses: any row may begin anywhere


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "classes", [257, *(pytest.param(c, marks=pytest.mark.long) for c in (10, 64, 1001, 2500, 17003))]
)
@pytest.mark.parametrize("begin", [1, *long(3)])
def test_results_do_not_depend_on_where_rows_begin(emulator, dtype, classes, begin):
    logits, targets = sample(dtype, classes, 9)
    moved = np.empty(logits.size + begin, dtype)[begin:].reshape(logits.shape)
    moved[...] = logits
    out, expected = allocate(dtype, logits.shape), allocate(dtype, logits.shape)
    out["probabilities"] = np.full(logits.size + begin, -77, floats_of(dtype))[begin:].reshape(logits.shape)

    rows.decision_rows(emulator, moved, targets, out, 1.0)

    rows.decision_rows(emulator, logits, targets, expected, 1.0)
    assert {n: a.tobytes() for n, a in out.items()} == {n: a.tobytes() for n, a in expected.items()}


def test_subnormal_logits_are_told_apart(emulator):
    # CuPy compiles with -ftz=true: arithmetic takes them for 0, comparisons must not.
    logits = np.array([[0.0, 1e-45, 3e-45, -1e-45], [0.0, -0.0, -1e-45, -1.0]], np.float32)
    out = allocate(FLOAT32, logits.shape)

    rows.decision_rows(emulator, logits, np.array([1, 1]), out, 1.0)

    np.testing.assert_array_equal(out["label"], [2, 0])
    np.testing.assert_array_equal(out["target_rank"], [1, 1])
    np.testing.assert_array_equal(out["max_logit"], np.array([3e-45, 0], np.float32))


# ---- traffic


LONG_ROWS = [
    (FLOAT32, 1000, 64), (FLOAT32, 1001, 64), (FLOAT16, 50257, 3),
    *long(*((d, c, max(4, 65536 // c)) for d in DTYPES for c in (1024, 1025, 5000, 17003))),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "classes", "count"), LONG_ROWS, ids=str)
@pytest.mark.parametrize("columns", [("label", "confidence"), NARROW[:5]], ids=len)
def test_decisions_read_each_logit_once(traced, dtype, classes, count, columns):
    logits, _ = sample(dtype, classes, count)
    out = {name: array for name, array in allocate(dtype, logits.shape).items() if name in columns}

    rows.decision_rows(traced, logits, None, out, 1.0)

    assert traced.traffic.loaded <= allowed_bytes(logits)
    assert 32 * traced.traffic.load_sectors <= 1.11 * logits.nbytes
    assert traced.traffic.stored == sum(array.nbytes for array in out.values())


HELD = [
    (FLOAT32, 10, 1000), (FLOAT32, 16, 1000), (FLOAT32, 1001, 64), (FLOAT16, 2500, 32),
    *long(*((d, c, max(8, 65536 // c)) for d in DTYPES for c in (3, 64, 257, 1000, 1025, 4097, 8000))),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "classes", "count"), HELD, ids=str)
def test_probabilities_of_rows_that_registers_hold_are_read_and_written_once(traced, dtype, classes, count):
    logits, _ = sample(dtype, classes, count)
    out = aligned(logits.shape, floats_of(dtype))

    rows.softmax_rows(traced, logits, out, 1.0)

    assert traced.traffic.loaded <= allowed_bytes(logits)
    assert 32 * traced.traffic.load_sectors <= 1.11 * logits.nbytes
    assert traced.traffic.stored == out.nbytes
    assert 32 * traced.traffic.store_sectors <= 1.11 * out.nbytes


def allowed_bytes(logits: Any) -> float:
    """1.01 of what is needed, or 32 bytes a row: both ends of a row may lie inside of 16 bytes."""
    return max(1.01 * logits.nbytes, logits.nbytes + 32 * len(logits))


def test_probabilities_of_longer_rows_are_read_twice(traced):
    logits, _ = sample(FLOAT32, 20000, 4)
    out = np.full(logits.shape, -77, FLOAT32)

    rows.softmax_rows(traced, logits, out, 1.0)

    assert traced.traffic.loaded <= 2.01 * logits.nbytes
    assert traced.traffic.stored == out.nbytes


# ---- what is shipped is what was run


def test_every_place_that_rows_may_have_is_among_the_cases():
    for dtype in DTYPES:
        for work in (Work(0), Work.DECIDE):
            run = {variants.place_of(classes, each, work) for each, classes in EVERY if each == dtype}
            assert run == {*variants.every_place(dtype, work)}


def test_schedules_that_disagree_are_an_error(tmp_path: Path):
    kernel = variants.row_kernel(2500, FLOAT32, None, Work.DECIDE)
    broken = Emulator(tmp_path, SCHEDULES, text=without_barriers(text.package_text()))
    logits, _ = sample(FLOAT32, 2500)

    with pytest.raises(AssertionError, match=f"{kernel.name}: (race|results depend on the schedule)"):
        rows.decision_rows(broken, logits, None, {"label": np.empty(ROWS, np.int32)}, 1.0)


def without_barriers(code: str) -> str:
    changed = code.replace("if (WARPS > 1) meet();", "")
    assert changed != code
    return changed


def representatives() -> list[tuple[np.dtype[Any], int]]:
    """Of each place its least number of classes, if it is not in another place's cases."""
    found: dict[tuple[np.dtype[Any], variants.Place], int] = {}
    for dtype, classes in EVERY:
        found.setdefault((dtype, variants.place_of(classes, dtype, Work.DECIDE)), classes)
    return [(dtype, classes) for (dtype, _), classes in found.items()]


def columns_for(work: Work) -> tuple[str, ...]:
    """What makes a kernel look for just that."""
    more = {Work.ENTROPY: "entropy", Work.RANK: "target_rank", Work.SQUARES: "brier"}
    return ("label", "confidence", *(name for flag, name in more.items() if flag in work))


@pytest.mark.long
@pytest.mark.parametrize(("dtype", "classes"), representatives(), ids=str)
def test_kernels_of_a_place_agree_whatever_they_look_for_and_write(scheduled, dtype, classes):
    logits, targets = sample(dtype, classes, 5)
    wides = [d for d in DTYPES if (d == FLOAT64) == (dtype == FLOAT64)]
    scheduled.compile(variants.row_kernel(classes, dtype, w, k) for w in (None, *wides) for k in variants.WORKS)
    expected = allocate(dtype, logits.shape)
    rows.decision_rows(scheduled, logits, targets, expected, 1.7)
    results = []

    for wide in (None, *wides):
        for work in variants.WORKS:
            everything = allocate(dtype, logits.shape, wide)
            wanted = (*columns_for(work), *(("probabilities", "log_probabilities") if wide else ()))
            out = {name: everything[name] for name in wanted}
            rows.decision_rows(scheduled, logits, targets, out, 1.7)
            results.append(out)

    for out in results:
        for name, found in out.items():
            rounded = expected[name].astype(found.dtype)
            np.testing.assert_array_equal(found.astype(np.float64), rounded.astype(np.float64), err_msg=name)
