"""Metrics: figures beside tables made by hand and scikit-learn, sums that merge in any order, the JSON document."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from softmax_dask import (
    Metrics,
    MetricsCounter,
    MetricsError,
    MetricsSum,
    confidence_edges,
    decisions,
    metric_columns,
    metrics_document,
    metrics_from_bytes,
    metrics_from_document,
    metrics_to_bytes,
)
from softmax_dask.confusions import LIMIT, Confusions
from softmax_dask.kernels import reference
from softmax_dask.kernels.counts import no_counts
from softmax_dask.kernels.cpu import count_rows

ALL = metric_columns(with_targets=True)
CLASSES = 5


def sample(rows: int = 997, classes: int = CLASSES, dtype: str = "float32") -> tuple[Any, Any]:
    """Logits with undecidable and masked rows, and targets of which some are -1."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 3, (rows, classes)).astype(dtype)
    logits[::50] = np.nan
    logits[1::40, 1] = -np.inf
    targets = rng.integers(-1, classes, rows)
    targets[1::40] = 0  # no infinite NLL, unless a test makes one
    return logits, targets


def columns_of(logits: Any, targets: Any) -> dict[str, Any]:
    return decisions(logits, ALL, targets=targets)


def metrics_of(logits: Any, targets: Any) -> Metrics:
    return Metrics.of(columns_of(logits, targets), targets, classes=logits.shape[1])


def text_of(metrics: Metrics) -> str:
    """All of it: equal texts are equal bits."""
    return json.dumps(metrics_document(metrics), allow_nan=False)


def rows_of(confidence: Any, correct: Any, **more: Any) -> Metrics:
    """Of rows of two classes with target 0, of which only the confidence is told."""
    given = np.asarray(confidence)
    label = np.where(np.asarray(correct, bool), 0, 1).astype(np.int32)
    zero = np.zeros(len(given), given.dtype)
    columns = {"label": label, "confidence": given, "entropy": zero, "nll": zero, "brier": zero, "target_rank": label}
    return Metrics.of(columns | more, np.zeros(len(given), np.int64), classes=2)


# ---- a table made by hand


def test_figures_of_a_table_made_by_hand():
    # label, target, confidence: in bins of 1/15, 0.5 is in the 8th (7/15 to 8/15), 0.9 in the 14th, 0.62 in the 10th.
    label = np.array([0, 1, 1, 2, 0, -1], np.int32)
    target = np.array([0, 1, 2, -1, 1, 1])
    columns = {
        "label": label,
        "confidence": np.array([0.9, 0.5, 0.9, 0.62, 0.5, np.nan]),
        "entropy": np.array([0.25, 0.5, 0.25, 1.0, 0.5, np.nan]),
        "nll": np.array([0.125, 0.75, 2.0, np.nan, 1.0, np.nan]),
        "brier": np.array([0.02, 0.5, 1.5, np.nan, 0.8, np.nan]),
        "target_rank": np.array([0, 0, 2, -1, 1, -1], np.int32),
    }

    found = Metrics.of(columns, target, classes=3)

    assert (found.rows, found.undecidable, found.labelled, found.unlabelled, found.labelled_undecidable) == (
        6,
        1,
        4,
        1,
        1,
    )
    assert found.accuracy == 0.5
    assert (found.top_k_accuracy(1), found.top_k_accuracy(2), found.top_k_accuracy(3)) == (0.5, 0.75, 1.0)
    assert found.nll == (0.125 + 0.75 + 2.0 + 1.0) / 4
    assert found.mean_entropy == 2.5 / 5
    assert found.brier == pytest.approx((0.02 + 0.5 + 1.5 + 0.8) / 4, abs=2**-32)
    assert found.mean_confidence == pytest.approx((0.9 + 0.5 + 0.9 + 0.62 + 0.5) / 5, abs=2**-32)
    # Both bins hold one right row of two: gaps of 0.4 and of 0.
    assert found.ece == pytest.approx(0.4 * 2 / 4, abs=2**-32)
    assert found.mce == pytest.approx(0.4, abs=2**-32)
    assert found.labels.tolist() == [2, 2, 1]
    assert (found.predicted.tolist(), found.support.tolist(), found.hits.tolist()) == ([2, 2, 0], [1, 2, 1], [1, 1, 0])
    assert [(c.target, c.label, c.rows) for c in found.frequent_confusions()] == [(1, 0, 1), (2, 1, 1)]


def test_nothing_is_made_up_where_no_row_decides():
    found = Metrics.none(3)

    figures = metrics_document(found)["figures"]
    assert {name for name, value in figures.items() if value is not None} == {"top_k_accuracy", "nll_is_infinite"}
    assert set(figures["top_k_accuracy"].values()) == {None}


# ---- bins


EDGES = [k / 15 for k in range(16)]


@pytest.mark.parametrize("k", range(1, 16))
def test_a_confidence_on_an_edge_is_in_the_bin_below_it(k):
    found = rows_of([EDGES[k], math.nextafter(EDGES[k], 0)], [1, 1])

    assert found.bin_rows[k - 1] == 2


@pytest.mark.parametrize("k", range(15))
def test_a_confidence_just_above_an_edge_is_in_the_bin_above_it(k):
    found = rows_of([math.nextafter(EDGES[k], 1)], [1])

    assert found.bin_rows[k] == 1


@pytest.mark.parametrize("k", range(1, 15))
def test_float32_confidences_are_compared_with_the_edges_themselves(k):
    near = np.float32(EDGES[k]) + np.array([-1, 0, 1], np.float32) * np.float32(2**-24)

    found = rows_of(near.astype(np.float32), [1, 1, 1])

    assert found.bin_rows[k - 1] == sum(float(c) <= EDGES[k] for c in near.astype(np.float32))


def test_a_confidence_of_zero_is_in_the_first_bin():
    assert rows_of([0.0], [1]).bin_rows[0] == 1


@pytest.mark.parametrize("place", [0, 1, 65534, 65535, 65536, 65790])
def test_fine_bins_are_closed_on_the_right(place):
    low, high = confidence_edges()[place : place + 2]

    found = rows_of([math.nextafter(low, 1), high], [1, 0])

    assert (found.histogram[place], found.labelled_histogram[place], found.correct_histogram[place]) == (2, 2, 1)


def test_every_float32_just_below_one_has_a_fine_bin_of_its_own():
    confidence = 1 - np.arange(256, dtype=np.float32) * np.float32(2**-24)

    found = rows_of(confidence, np.ones(256))

    assert found.histogram[-256:].tolist() == [1] * 256


# ---- merging


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_merging_parts_in_random_order_gives_the_bits_of_all_rows_at_once(size):
    logits, targets = sample()
    columns = columns_of(logits, targets)
    parts = [
        Metrics.of({name: c[i : i + size] for name, c in columns.items()}, targets[i : i + size], classes=CLASSES)
        for i in range(0, len(targets), size)
    ]
    np.random.default_rng(0).shuffle(parts)

    found = Metrics.merged(parts)

    assert text_of(found) == text_of(metrics_of(logits, targets))


def test_rows_beyond_a_slab_are_counted_as_any_others():
    logits, targets = sample(70_001, 2)
    columns = columns_of(logits, targets)
    halves = [slice(None, 35_000), slice(35_000, None)]

    found = Metrics.of(columns, targets, classes=2)

    parts = [Metrics.of({n: c[half] for n, c in columns.items()}, targets[half], classes=2) for half in halves]
    assert found.rows == 70_001
    assert text_of(found) == text_of(Metrics.merged(parts))


def test_merging_changes_none_of_the_parts():
    logits, targets = sample()
    part = metrics_of(logits, targets)
    before = text_of(part)

    Metrics.merged([part, part])

    assert text_of(part) == before


def test_metrics_of_other_classes_do_not_merge():
    with pytest.raises(MetricsError, match=r"\[2, 3\] classes"):
        Metrics.merged([Metrics.none(2), Metrics.none(3)])


def test_sums_have_no_end():
    large = 1e308  # a float64 that is beyond 64 bits a million times over
    found = rows_of([0.5, 0.5], [1, 1], nll=np.array([large, 0.5]))

    assert found.nll_sum == int(large) * 2**32 + 2**31
    assert found.nll == large / 2


# ---- infinite and unlabelled


def test_an_infinite_nll_makes_the_mean_infinite_and_is_counted_apart():
    found = rows_of([0.5, 0.5, 0.5], [1, 1, 1], nll=np.array([np.inf, 1.0, 2.0]))

    figures = metrics_document(found)["figures"]
    assert (found.infinite_nll, found.nll, found.finite_nll) == (1, math.inf, 1.5)
    assert (figures["nll"], figures["nll_is_infinite"], figures["finite_nll"]) == (None, True, 1.5)


def test_without_targets_only_what_needs_none_is_counted():
    logits, _ = sample()

    found = Metrics.of(decisions(logits, metric_columns(with_targets=False)), classes=CLASSES)

    assert (found.labelled, found.accuracy, found.ece, found.aurc) == (0, None, None, None)
    assert found.labels.sum() == found.decidable == found.histogram.sum() > 0


def test_unlabelled_rows_change_no_figure_that_needs_a_target():
    logits, targets = sample()
    known = targets >= 0

    found, alone = metrics_of(logits, targets), metrics_of(logits[known], targets[known])

    names = ("accuracy", "nll", "brier", "ece", "mce", "aurc", "labelled")
    assert [getattr(found, name) for name in names] == [getattr(alone, name) for name in names]
    assert found.unlabelled == np.count_nonzero(~known)


def test_a_missing_column_is_named():
    with pytest.raises(MetricsError, match="columns have no brier"):
        Metrics.of(
            {name: np.zeros(1) for name in ("label", "confidence", "entropy", "nll")}, np.zeros(1, int), classes=2
        )


def test_columns_of_different_lengths_are_refused():
    columns = {"label": np.zeros(2, np.int32), "confidence": np.zeros(2), "entropy": np.zeros(1)}

    with pytest.raises(MetricsError, match="different lengths"):
        Metrics.of(columns, classes=2)


# ---- the kernels


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("classes", [2, 5, 300])
def test_the_compiled_counting_adds_what_the_definition_adds(dtype, classes):
    logits, targets = sample(classes=classes, dtype=dtype)
    logits[3, 0], targets[3] = 1e5, 1  # a large NLL
    columns = columns_of(logits, targets)
    expected, found = no_counts(classes), no_counts(classes)

    wrong = count_rows(columns, targets, classes, found)

    np.testing.assert_array_equal(wrong, reference.count_rows(columns, targets, classes, expected))
    for name, counts in found._asdict().items():
        np.testing.assert_array_equal(counts, getattr(expected, name), err_msg=name)


@pytest.mark.parametrize("with_targets", [False, True], ids=["no targets", "targets"])
@pytest.mark.parametrize("rows", [0, 1, 511, 512, 513, 1500])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_at_the_edges_of_bins_and_blocks_are_counted_as_by_the_definition(dtype, rows, with_targets):
    rng, classes = np.random.default_rng(rows), 3
    edges = np.concatenate([np.arange(16) / 15, np.arange(17) / 16, 1 - np.arange(9) / 2**24, [0.5]]).astype(dtype)
    near = np.concatenate([edges, *(np.nextafter(edges, edges.dtype.type(end)) for end in (0, 1))])
    columns = {
        "label": rng.integers(-1, classes, rows).astype(np.int32),
        "confidence": rng.choice(near, rows),
        **{name: rng.exponential(1, rows).astype(dtype) for name in ("entropy", "nll", "brier")},
        "target_rank": rng.integers(0, 200, rows).astype(np.int32),
    }
    for name in ("confidence", "entropy", "nll", "brier"):
        columns[name][columns["label"] < 0] = np.nan
    columns["nll"][::7] = rng.choice([np.inf, 2.0**14, 2.0**15], len(columns["nll"][::7]))
    targets = rng.integers(-1, classes, rows) if with_targets else None
    expected, found = no_counts(classes), no_counts(classes)

    count_rows(columns, targets, classes, found)

    reference.count_rows(columns, targets, classes, expected)
    for name, counts in found._asdict().items():
        np.testing.assert_array_equal(counts, getattr(expected, name), err_msg=name)


# ---- confusions


def exact_counts(pairs: Any) -> dict[int, int]:
    known, rows = np.unique(pairs, return_counts=True)
    return dict(zip(known.tolist(), rows.tolist(), strict=True))


def crowd(seed: int = 0) -> Any:
    """More different pairs than are counted one by one, of 1000 classes; 7 -> 11 has one row in 20."""
    rng = np.random.default_rng(seed)
    pairs = rng.integers(0, 1_000_000, 2 * LIMIT)
    pairs[::20] = 7_011
    return pairs[pairs // 1000 != pairs % 1000]


def test_up_to_the_limit_confusions_are_exact():
    pairs = np.arange(LIMIT) * 3

    assert Confusions.of(pairs).is_exact
    assert not Confusions.of(np.append(pairs, 1)).is_exact


@pytest.mark.parametrize("cuts", [[], [10], [70_000], [1000, 2000, 120_000]], ids=str)
def test_beyond_the_limit_confusions_still_merge_in_any_order(cuts):
    pairs = crowd()

    found = Confusions.merged([Confusions.of(part) for part in np.split(pairs, cuts)][::-1])

    np.testing.assert_array_equal(found.sketch, Confusions.of(pairs).sketch)


def test_a_frequent_pair_is_found_in_a_sketch_and_its_count_is_no_less_than_the_true_one():
    pairs = crowd()
    missed, mistaken = (np.bincount(side, minlength=1000) for side in (pairs // 1000, pairs % 1000))

    most = Confusions.of(pairs).most_frequent(1, 1000, missed, mistaken)[0]

    true = exact_counts(pairs)[7_011]
    assert (most.target, most.label) == (7, 11)
    assert true <= most.rows <= true + len(pairs) / 4096


# ---- risk and coverage


def brute_force_area(confidence: Any, correct: Any) -> float:
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(~correct[order])
    return float(np.mean(wrong / np.arange(1, len(wrong) + 1)))


def test_the_area_of_rows_with_fine_bins_of_their_own_is_that_of_the_sorted_rows():
    rng = np.random.default_rng(1)
    confidence = rng.permutation(65_536)[:3000] / 65_536 + 2**-17
    correct = rng.random(3000) < confidence

    area = rows_of(confidence, correct).aurc

    assert area is not None
    assert area.value == pytest.approx(brute_force_area(confidence, correct), rel=1e-12)
    assert area.error == pytest.approx(0, abs=1e-12)


def test_the_bounds_of_the_area_are_those_of_the_best_and_the_worst_order():
    rng = np.random.default_rng(2)
    confidence = rng.choice([0.3, 0.6, 0.9], 500)
    correct = rng.random(500) < confidence
    nudge = np.where(correct, 1e-9, -1e-9)

    area = rows_of(confidence, correct).aurc

    assert area is not None
    assert area.low == pytest.approx(brute_force_area(confidence + nudge, correct), rel=1e-12)
    assert area.high == pytest.approx(brute_force_area(confidence - nudge, correct), rel=1e-12)
    mean = np.mean([brute_force_area(confidence + 1e-9 * rng.random(500), correct) for _ in range(300)])
    # 300 random orders: their mean is within a few hundredths of the spread.
    assert area.value == pytest.approx(mean, abs=0.02 * (area.high - area.low))


def test_the_curve_says_how_often_the_rows_above_a_confidence_are_wrong():
    curve = rows_of([0.9, 0.9, 0.8, 0.6], [1, 1, 0, 1]).risk_coverage

    assert curve.coverage.tolist() == [0.5, 0.75, 1.0]
    np.testing.assert_allclose(curve.risk, [0, 1 / 3, 1 / 4], rtol=1e-15)
    assert [np.count_nonzero(np.array([0.9, 0.9, 0.8, 0.6]) > c) for c in curve.confidence] == [2, 3, 4]


# ---- the document


@pytest.mark.parametrize("classes", [2, 5, 300])
def test_a_document_is_json_and_holds_all_of_the_metrics(classes):
    metrics = metrics_of(*sample(classes=classes))

    back = metrics_from_document(json.loads(text_of(metrics)))

    assert text_of(back) == text_of(metrics)
    assert text_of(Metrics.merged([back, back])) == text_of(Metrics.merged([metrics, metrics]))


@pytest.mark.parametrize("classes", [2, 300])
def test_bytes_hold_all_of_the_metrics(classes):
    metrics = metrics_of(*sample(classes=classes))

    assert text_of(metrics_from_bytes(metrics_to_bytes(metrics))) == text_of(metrics)


@pytest.mark.parametrize("place", [0, 500, -1])
def test_damaged_bytes_are_refused(place):
    data = bytearray(metrics_to_bytes(metrics_of(*sample())))
    data[place] ^= 1

    with pytest.raises(MetricsError, match="or damaged"):
        metrics_from_bytes(bytes(data))


@pytest.mark.parametrize("cut", [1, 3, 900, 997])
@pytest.mark.parametrize("room", [2, 10, 1 << 15])
def test_small_blocks_are_counted_as_all_rows_at_once(cut, room, monkeypatch):
    monkeypatch.setattr("softmax_dask.metrics.GATHERED_ROWS", room)
    logits, targets = sample()
    columns, counter = columns_of(logits, targets), MetricsCounter(CLASSES)

    for start in range(0, 997, cut):
        block = {name: values[start : start + cut].copy() for name, values in columns.items()}
        counter.add(block, targets[start : start + cut])
        for values in block.values():  # who counts uses the memory again
            values[...] = 3

    assert text_of(counter.metrics()) == text_of(metrics_of(logits, targets))


def test_blocks_with_and_without_targets_are_counted_into_one():
    logits, targets = sample()
    columns, counter = columns_of(logits, targets), MetricsCounter(CLASSES)
    parts = [Metrics.of(columns, targets, classes=CLASSES), Metrics.of(columns, classes=CLASSES)]

    counter.add(columns)
    counter.add(columns, targets)

    assert text_of(counter.metrics()) == text_of(Metrics.merged(parts))


@pytest.mark.parametrize("with_targets", [(True, True), (False, True), (True, False), (False, False)])
@pytest.mark.parametrize("classes", [CLASSES, 300])
def test_metrics_of_some_rows_do_not_change_when_more_are_counted(with_targets, classes):
    logits, targets = sample(classes=classes)
    columns, counter = columns_of(logits, targets), MetricsCounter(classes)
    given = [targets if each else None for each in with_targets]

    counter.add(columns, given[0])
    found = counter.metrics()
    before = text_of(found)
    counter.add(columns, given[1])
    both = text_of(counter.metrics())

    parts = [Metrics.of(columns, each, classes=classes) for each in given]
    assert text_of(found) == before == text_of(parts[0])
    assert both == text_of(Metrics.merged(parts))


@pytest.mark.parametrize("parts", [0, 1, 3, 40])
@pytest.mark.parametrize("classes", [2, 300])
def test_kept_metrics_add_up_to_those_that_are_merged(parts, classes):
    first, part = metrics_of(*sample(classes=classes)), metrics_of(*sample(rows=50, classes=classes))
    summed = MetricsSum(first)

    for _ in range(parts):
        summed.add(metrics_to_bytes(part))

    assert text_of(summed.metrics()) == text_of(Metrics.merged([first] + parts * [part]))
    assert text_of(first) == text_of(metrics_of(*sample(classes=classes)))


def test_a_sum_of_some_parts_does_not_change_when_more_are_added():
    part = metrics_of(*sample(rows=50))
    summed = MetricsSum(Metrics.none(CLASSES))

    found = []
    for _ in range(3):
        summed.add(metrics_to_bytes(part))
        found.append(summed.metrics())

    assert [text_of(each) for each in found] == [text_of(Metrics.merged(n * [part])) for n in (1, 2, 3)]


def test_kept_sketches_add_up():
    part = replace(Metrics.none(1000), confusions=Confusions.of(crowd()))
    summed = MetricsSum(Metrics.none(1000))

    summed.add(metrics_to_bytes(part))
    summed.add(metrics_to_bytes(part))

    assert text_of(summed.metrics()) == text_of(Metrics.merged([part, part]))


def test_what_nothing_is_counted_in_takes_no_memory_and_is_kept_as_zeros_are():
    logits, _ = sample()
    part = Metrics.of(decisions(logits, metric_columns(with_targets=False)), classes=CLASSES)
    summed = MetricsSum(Metrics.none(CLASSES))

    summed.add(metrics_to_bytes(part))
    summed.add(metrics_to_bytes(part))

    found = summed.metrics()
    assert found.histogram.sum() == 2 * part.decidable
    for name in ("labelled_histogram", "correct_histogram"):
        array = getattr(found, name)
        assert array.strides == (0,)  # one zero stands for all
        zeros = replace(found, **{name: np.zeros(len(array), np.int64)})
        assert getattr(zeros, name).strides != (0,)
        assert metrics_to_bytes(zeros) == metrics_to_bytes(found)


@pytest.mark.parametrize("data", [b"", metrics_to_bytes(Metrics.none(3)), metrics_to_bytes(Metrics.none(2))[:-1]])
def test_a_sum_refuses_what_is_damaged_or_of_other_classes_and_stays_as_it_was(data):
    summed = MetricsSum(Metrics.none(2))

    with pytest.raises(MetricsError, match=r"or damaged|of 3 classes; expected 2"):
        summed.add(data)

    assert text_of(summed.metrics()) == text_of(Metrics.none(2))


def test_bytes_keep_a_sketch():
    metrics = replace(Metrics.none(1000), confusions=Confusions.of(crowd()))

    assert text_of(metrics_from_bytes(metrics_to_bytes(metrics))) == text_of(metrics)


def test_a_document_keeps_a_sketch():
    metrics = replace(Metrics.none(1000), confusions=Confusions.of(crowd()))

    back = metrics_from_document(json.loads(text_of(metrics)))

    np.testing.assert_array_equal(back.confusions.sketch, metrics.confusions.sketch)


@pytest.mark.parametrize("document", [{}, {"kind": "plan", "format": 1}, {"kind": "metrics", "format": 2}, [], None])
def test_another_document_is_refused(document):
    with pytest.raises(MetricsError, match="expected format 1"):
        metrics_from_document(document)


@pytest.mark.parametrize("doublings", [0, 9, 17, 33])
def test_counts_of_any_size_come_back_from_bytes(doublings):
    metrics = metrics_of(*sample())
    for _ in range(doublings):
        metrics = Metrics.merged([metrics, metrics])

    found = metrics_from_bytes(metrics_to_bytes(metrics))

    assert text_of(Metrics.merged([found, found])) == text_of(Metrics.merged([metrics, metrics]))
