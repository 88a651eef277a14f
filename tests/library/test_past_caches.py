"""Results that are too large for the caches are written past them: the same bits, and nothing beside them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softmax_dask import jacobian, softmax
from softmax_dask.kernels import cpu
from softmax_dask.kernels.cpu.sweeps import lag_of_stores

CLASSES = [1, 2, 10, 24, 33, 64, 100, 128, 161, 1000, 1024, 4097]
GUARD = 3


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(cpu, "_PAST_CACHES_BYTES", 0)


def sample(classes, dtype, rows=37):
    """Of as many rows as fill two registers, or four, and a part of one."""
    return np.random.default_rng(classes).normal(0, 6, (rows, classes)).astype(dtype)


def results_of(logits):
    return np.empty(logits.shape, np.float64 if logits.dtype == np.float64 else np.float32)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_results_past_the_caches_have_the_bits_of_others(dtype, classes, monkeypatch):
    logits = sample(classes, dtype)
    found, through_caches = results_of(logits), results_of(logits)
    cpu.softmax_rows(logits, through_caches, 1.7)
    monkeypatch.setattr(cpu, "_PAST_CACHES_BYTES", 0)

    cpu.softmax_rows(logits, found, 1.7)

    np.testing.assert_array_equal(found, through_caches)


@pytest.mark.parametrize("rows", [1, 3, 16, 37])
@pytest.mark.parametrize("classes", CLASSES)
def test_nothing_is_written_beside_results_that_begin_anywhere(always, classes, rows):
    logits = sample(classes, np.float32, rows)

    for offset in (1, 5, 9, 13, 16, 17):
        memory = np.full(offset + logits.size + GUARD, 7, np.float32)
        out = memory[offset : offset + logits.size].reshape(logits.shape)
        cpu.softmax_rows(logits, out, 1.0)

        np.testing.assert_allclose(out.sum(1, dtype=np.float64), 1, rtol=1e-6)
        assert (memory[:offset] == 7).all()
        assert (memory[-GUARD:] == 7).all()


@pytest.mark.parametrize("past_caches", [False, True])
@pytest.mark.parametrize("classes", [161, 300, 1000, 1024])
def test_bits_hang_on_no_distance_of_results_from_logits(classes, past_caches, monkeypatch):
    if past_caches:
        monkeypatch.setattr(cpu, "_PAST_CACHES_BYTES", 0)
    logits = sample(classes, np.float32, 9)
    expected, memory = softmax(logits.copy()), np.empty(logits.size + 1024, np.float32)

    for offset in range(0, 1024, 40):  # all places of a page, which decide how far stores fall behind loads
        out = memory[offset : offset + logits.size].reshape(logits.shape)
        cpu.softmax_rows(logits, out, 1.0)

        np.testing.assert_array_equal(out, expected)


@given(between=st.integers(-(2**40), 2**40), ahead=st.integers(0, 2**20))
def test_stores_fall_behind_loads_that_would_meet_them(between, ahead):
    lag = lag_of_stores.py_func(between, ahead)

    for load in (between + lag, between + ahead + lag):
        assert load % 4096 < 4096 - 384
    assert lag in (0, 1024, 2048)


def test_results_between_items_of_memory_go_through_the_caches(always):
    logits = sample(300, np.float32)
    out = np.empty(logits.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(logits.shape)

    cpu.softmax_rows(logits, out, 1.0)

    np.testing.assert_array_equal(out, softmax(logits))


def test_a_large_array_has_the_bits_of_its_halves():
    rows = cpu._PAST_CACHES_BYTES // 4000 + 100
    logits = np.random.default_rng(0).standard_normal((rows, 1000), np.float32)
    halves = np.concatenate([softmax(half) for half in np.array_split(logits, 2)])
    assert halves.nbytes > cpu._PAST_CACHES_BYTES

    found = softmax(logits)

    np.testing.assert_array_equal(found, halves)


@pytest.mark.parametrize("part", [(slice(None), slice(None)), (slice(1, 3), slice(3, 5)), (slice(2, None), slice(4))])
@pytest.mark.parametrize("classes", [5, 10, 24, 25, 100, 300])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_jacobians_past_the_caches_have_the_bits_of_others(dtype, classes, part, monkeypatch):
    height, breadth = (len(range(classes)[wanted]) for wanted in part)
    first, second = (wanted.start or 0 for wanted in part)
    logits = np.random.default_rng(classes).normal(0, 6, (21, classes)).astype(dtype)
    through_caches = np.empty((21, height, breadth), results_of(logits).dtype)
    cpu.jacobian_rows(logits, through_caches, 1.7, first, second)
    monkeypatch.setattr(cpu, "_PAST_CACHES_BYTES", 0)

    for offset in (0, 1, 7):
        memory = np.full(offset + through_caches.size + GUARD, 7, through_caches.dtype)
        found = memory[offset:-GUARD].reshape(through_caches.shape)
        cpu.jacobian_rows(logits, found, 1.7, first, second)

        np.testing.assert_array_equal(found, through_caches)
        assert (memory[:offset] == 7).all()
        assert (memory[-GUARD:] == 7).all()


@pytest.mark.parametrize("classes", [10, 100])
def test_many_jacobians_have_the_bits_of_their_halves(classes):
    rows = cpu._PAST_CACHES_BYTES // 4 // classes**2 + 50
    logits = np.random.default_rng(0).standard_normal((rows, classes), np.float32)
    halves = np.concatenate([jacobian(half) for half in np.array_split(logits, 2)])

    found = jacobian(logits)

    np.testing.assert_array_equal(found, halves)


@pytest.mark.parametrize("run", [softmax, lambda x: jacobian(x[:9])], ids=["softmax", "jacobian"])
def test_the_kernel_is_told_of_all_results_at_once(run, monkeypatch):
    sizes = []
    monkeypatch.setattr(cpu, "_past_caches", lambda out: bool(sizes.append(out.nbytes)))
    logits = np.random.default_rng(0).standard_normal((9000, 1000), np.float32)

    results = run(logits)

    assert results.nbytes > cpu._PAST_CACHES_BYTES
    assert sizes == [results.nbytes]


@pytest.mark.parametrize("classes", [5, 10, 24, 100])
def test_jacobians_between_items_of_memory_go_through_the_caches(classes):
    logits = sample(classes, np.float32)
    expected = jacobian(logits)
    out = np.empty(expected.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(expected.shape)

    cpu.jacobian_rows(logits, out, 1.0)

    np.testing.assert_array_equal(out, expected)
