"""The figures of the summary: mergeable, small, and right whatever the cut."""

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softmax_dask import Metrics
from softmax_dask_pipelines.tally import Tally, sums_of_tails
from softmax_dask_pipelines.tally import tally_of as tally_of_metrics

BOUND = 32
"""Labels that a tally names."""


def columns(rows: int, *, seed: int = 0, bad: float = 0.2, targets: bool = True):
    """Columns of random rows, some undecidable, and their targets, some missing. Sums are exact: eighths."""
    random = np.random.default_rng(seed)
    undecidable = random.random(rows) < bad
    target = random.integers(-1, 5, rows)
    known = (target >= 0) & ~undecidable

    def eighths(where):
        return np.where(where, random.integers(0, 9, rows) / 8, np.nan).astype(np.float32)

    made = {
        "label": np.where(undecidable, -1, random.integers(0, 5, rows)).astype(np.int32),
        "confidence": eighths(~undecidable),
        "entropy": eighths(~undecidable),
    }
    if not targets:
        return made, None
    rank = np.where(known, random.integers(0, 5, rows), -1).astype(np.int32)
    return made | {"nll": eighths(known), "brier": eighths(known), "target_rank": rank}, target


def tally_of(made, target):
    return tally_of_metrics(Metrics.of(made, target, classes=5), sums_of_tails(made))


def part_of(made, target, rows):
    return {name: values[rows] for name, values in made.items()}, None if target is None else target[rows]


def labels(draw_from: int):
    return st.lists(st.integers(-1, draw_from - 1), max_size=300)


def counted(values, classes=1000):
    decided = [label for label in values if label >= 0]
    return Tally(rows=len(values)).with_labels(np.bincount(np.array(decided, np.int64), minlength=classes))


def test_a_tally_counts_rows_and_undecidable_rows():
    made, target = columns(1000)

    found = tally_of(made, target)

    assert found.rows == 1000
    assert found.undecidable == np.count_nonzero(made["label"] == -1)


@pytest.mark.parametrize("bad", [0.0, 0.2, 1.0])
def test_undecidable_rows_are_in_no_sum(bad):
    made, target = columns(1000, bad=bad)
    decided = made["label"] >= 0

    found = tally_of(made, target)

    assert found.confidence_sum == made["confidence"][decided].sum()
    assert found.entropy_sum == made["entropy"][decided].sum()


def test_rows_without_a_target_are_not_labelled():
    made, target = columns(1000)
    known = (target >= 0) & (made["label"] >= 0)

    found = tally_of(made, target)

    assert found.labelled == np.count_nonzero(known)
    assert found.correct == np.count_nonzero(known & (made["label"] == target))
    assert found.nll_sum == made["nll"][known].sum()


def test_without_targets_nothing_is_labelled():
    found = tally_of(*columns(1000, targets=False))

    assert (found.labelled, found.correct, found.nll_sum) == (0, 0, 0.0)


def test_no_rows_have_a_tally():
    assert tally_of(*columns(0)) == Tally()


def test_sums_are_taken_in_float64():
    rows = 1 << 20
    tenth = np.full(rows, 0.1, np.float32)
    made = {"label": np.zeros(rows, np.int32), "confidence": tenth, "entropy": tenth}

    found = tally_of(made, None)

    # A float32 sum would be off by 1e-3 or so; float64 has no error to speak of: 2^20 sums of 2^-53.
    assert found.confidence_sum == pytest.approx(rows * float(np.float32(0.1)), rel=1e-9)


@given(st.integers(0, 200), st.lists(st.integers(0, 200), max_size=5), st.integers(0, 10), st.booleans())
def test_parts_merged_are_the_whole(rows, cuts, seed, targets):
    made, target = columns(rows, seed=seed, targets=targets)
    bounds = sorted({0, rows, *(min(cut, rows) for cut in cuts)})
    pieces = [slice(a, b) for a, b in itertools.pairwise(bounds)]

    merged = Tally.merged(tally_of(*part_of(made, target, piece)) for piece in pieces)

    # Exactly: the values are eighths.
    assert merged == tally_of(made, target)


@given(labels(100), labels(100), labels(100))
def test_merging_is_associative(one, two, three):
    a, b, c = counted(one), counted(two), counted(three)

    left = Tally.merged([Tally.merged([a, b]), c])
    right = Tally.merged([a, Tally.merged([b, c])])

    assert left == right


@given(labels(BOUND))
def test_few_labels_are_counted_exactly(values):
    found = counted(values)

    assert found.labels == {label: values.count(label) for label in set(values) - {-1}}
    assert found.labels_are_all


@given(labels(200))
def test_of_many_labels_the_most_frequent_are_kept(values):
    found = counted(values)
    counts = sorted((values.count(label) for label in set(values) - {-1}), reverse=True)

    assert sorted(found.labels.values(), reverse=True) == counts[:BOUND]
    assert found.labels_are_all == (len(counts) <= BOUND)


@given(labels(200))
def test_counts_do_not_depend_on_the_number_of_classes(values):
    # Below so many rows they are sorted, above they are counted by class.
    assert counted(values, classes=200) == counted(values, classes=250_000)


@given(st.lists(labels(60), min_size=1, max_size=6))
def test_a_merged_count_is_exact_or_marked_as_a_lower_bound(parts):
    everything = [label for part in parts for label in part]

    merged = Tally.merged(counted(part) for part in parts)

    for label, count in merged.labels.items():
        exact = everything.count(label)
        assert count == exact or (count < exact and label in merged.lower_bounds)


def test_a_label_that_a_part_left_out_is_a_lower_bound():
    # In the first part label 50 is the rarest of 33 labels, and not named.
    first = counted([label for label in range(32) for _ in range(2)] + [50])
    second = counted([50, 50, 50, 1])

    merged = Tally.merged([first, second])

    assert merged.labels[50] == 3
    assert 50 in merged.lower_bounds
    assert 1 not in merged.lower_bounds


def test_merging_tallies_that_were_merged_keeps_the_lower_bounds():
    first = counted([label for label in range(32) for _ in range(2)] + [50])
    second = counted([50, 50, 50, 1])

    twice = Tally.merged([Tally.merged([first, second]), counted([])])

    assert 50 in twice.lower_bounds


def test_no_tallies_merge_to_none():
    assert Tally.merged([]) == Tally()


def test_a_tally_of_many_classes_stays_small():
    found = counted(list(range(100_000)), classes=250_000)

    assert len(found.labels) == BOUND
    assert len(pickle.dumps(found)) <= 1024
