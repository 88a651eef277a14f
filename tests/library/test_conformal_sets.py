"""Conformal sets: the level by its definition and beside MAPIE, and sets by their definition."""

import math

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from softmax_dask import (
    CalibrationError,
    ConformalLevel,
    ConformalRead,
    ConformalSearch,
    conformal_counts,
    exact_probabilities,
    fill_sets,
    most_classes,
)

ROWS, CLASSES = 3000, 8
ZERO, ONE = np.uint64(0), np.uint64(1) << np.uint64(62)
"""Keys of rows that say the level, and that measure it."""


def drawn(dtype=np.float32, seed=4):
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (ROWS, CLASSES)).astype(dtype)
    chances = exact_probabilities(logits, 1.0).cumsum(axis=1)
    return logits, np.minimum((chances > random.random((ROWS, 1))).argmax(axis=1), CLASSES - 1)


def level(logits, targets, alpha, *, temperature=1.0, blocks=1):
    search, keys = ConformalSearch(alpha), np.full(len(targets), ZERO)
    while search.read is not None:
        parts = [
            conformal_counts(*(each[i::blocks] for each in (logits, targets, keys)), temperature, search.read)
            for i in range(blocks)
        ]
        search.take(sum(parts[1:], parts[0]))
    return search.least_probability


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.1, 0.5, 0.9, 0.9995])
def test_the_level_is_the_order_statistic_of_its_definition(alpha, dtype):
    logits, targets = drawn(dtype)
    of_target = exact_probabilities(logits, 1.0)[np.arange(ROWS), targets]
    rank = math.ceil(round((ROWS + 1) * (1 - alpha), 9))

    found = level(logits, targets, alpha)

    assert found == (np.sort(of_target)[::-1][rank - 1] if rank <= ROWS else 0)


@pytest.mark.parametrize("blocks", [2, 7, 1000])
def test_blocks_change_no_bit_of_the_level(blocks):
    logits, targets = drawn()

    found = level(logits, targets, 0.1, blocks=blocks)

    assert found == level(logits, targets, 0.1)


def test_sets_are_those_of_mapie():
    classification = pytest.importorskip("mapie.classification", reason="MAPIE is not installed")
    logits, targets = drawn()
    probabilities = exact_probabilities(logits, 1.0).astype(np.float64)

    class Model:
        classes_ = np.arange(CLASSES)

        def fit(self, x, y):
            return self

        def predict(self, x):
            return probabilities[x[:, 0]].argmax(axis=1)

        def predict_proba(self, x):
            return probabilities[x[:, 0]]

        def __sklearn_is_fitted__(self):
            return True

    numbers = np.arange(ROWS)[:, None]
    peer = classification.SplitConformalClassifier(Model(), confidence_level=0.9, prefit=True, conformity_score="lac")
    peer.conformalize(numbers[:1500], targets[:1500])
    _, expected = peer.predict_set(numbers[1500:])

    found = probabilities[1500:] >= level(logits[:1500], targets[:1500], 0.1)

    assert_array_equal(found, expected[:, :, 0])


def test_it_measures_what_sets_are_worth():
    logits, targets = drawn()
    probabilities, keys = exact_probabilities(logits, 1.0), np.full(ROWS, ONE)
    members = probabilities >= np.float32(0.2)

    found = conformal_counts(logits, targets, keys, 1.0, ConformalRead(None, 0.2))

    assert found.rows == ROWS
    assert found.covered == members[np.arange(ROWS), targets].sum()
    assert found.classes == members.sum()
    assert (found.empty, found.single) == tuple((members.sum(axis=1) == size).sum() for size in (0, 1))


def test_rows_that_measure_say_nothing_of_the_level():
    logits, targets = drawn()

    found = conformal_counts(logits, targets, np.full(ROWS, ONE), 1.0, ConformalRead(None, None))

    assert found.bits.sum() == 0


def test_bad_rows_are_left_out_and_counted():
    logits, targets = drawn()
    logits, targets = np.concatenate([logits, logits[:2]]), np.concatenate([targets, [0, -1]])
    logits[ROWS, 3] = np.nan

    found = conformal_counts(logits, targets, np.full(ROWS + 2, ZERO), 1.0, ConformalRead(None, None))

    assert (found.bits.sum(), found.left_out) == (ROWS, 2)


def test_no_rows_are_refused():
    search = ConformalSearch(0.1)
    logits = np.zeros((2, 3), np.float32)

    with pytest.raises(CalibrationError, match="no row can be used, 2 have no target"):
        search.take(conformal_counts(logits, np.full(2, -1), np.full(2, ZERO), 1.0, search.read))


@pytest.mark.parametrize("least", [0.6, 0.2, 0.01, 0.0])
def test_sets_are_filled_in_with_rising_classes(least):
    logits, _ = drawn()
    probabilities = exact_probabilities(logits, 1.0)
    probabilities[7] = np.nan
    out = np.empty((ROWS, most_classes(least, CLASSES)), np.int32)

    fill_sets(probabilities, least, out)

    expected = [np.flatnonzero(row >= np.float32(least)).tolist() for row in probabilities]
    assert [[k for k in row if k >= 0] for row in out.tolist()] == expected
    assert (np.diff((out >= 0).astype(int), axis=1) <= 0).all()


@pytest.mark.parametrize(("least", "most"), [(0.0, 8), (0.01, 8), (0.3, 3), (0.5, 2), (0.51, 1), (1.0, 1)])
def test_a_set_has_at_most_as_many_classes_as_probabilities_add_up(least, most):
    assert most_classes(least, CLASSES) == most


def test_a_document_is_read_as_it_was_written():
    found = ConformalLevel(0.25, 0.1, 1.7, "abc", {"measured": {"coverage": 0.9}})

    assert ConformalLevel.from_json(found.to_json()) == found
