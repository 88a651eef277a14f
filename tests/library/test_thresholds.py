"""Thresholds with a promise, and the binomial tail behind it: beside SciPy, and by simulation."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from softmax_dask import CalibrationError, ConfidenceThreshold, confidence_counts, find_threshold, number_keys
from softmax_dask.binomial import tail

ROWS = 2000


def drawn(rows=ROWS, seed=0):
    """Confidences, and whether each row is right: less often than it says."""
    random = np.random.default_rng(seed)
    confidence = (1 - random.beta(0.5, 3, rows)).astype(np.float32)
    return confidence, (random.random(rows) < confidence.astype(np.float64) ** 1.5).astype(np.int8)


def counted(confidence, correct, first=0):
    return confidence_counts(confidence, correct, number_keys(np.arange(first, first + len(correct))))


@pytest.mark.parametrize("risk", [0.5, 0.1, 0.01, 1e-4])
@pytest.mark.parametrize("rows", [1, 10, 299, 5000, 10**6])
@pytest.mark.parametrize("deviations", [-30, -4, -1, 0, 1, 8, 50])
def test_the_tail_is_that_of_scipy(rows, risk, deviations):
    errors = min(rows, max(0, round(rows * risk + deviations * math.sqrt(rows * risk))))

    found = tail(errors, rows, risk)

    # lgamma of a million loses as many digits.
    assert found == pytest.approx(float(stats.binom.cdf(errors, rows, risk)), rel=1e-8, abs=1e-300)


def test_it_is_the_limit_of_clopper_and_pearson():
    limit = stats.binomtest(13, 700).proportion_ci(confidence_level=0.9, method="exact").high  # 5 % on each side

    found = tail(13, 700, limit)

    assert found == pytest.approx(0.05, rel=1e-6)


def test_the_promise_is_kept():
    """More than delta of the dumps may break it; rows are drawn anew for each of them."""
    truth = np.sort(1 - np.random.default_rng(99).beta(0.5, 3, 500_000))[::-1]
    precisions = np.cumsum(truth**1.5) / np.arange(1, len(truth) + 1)
    dumps, delta, broken, found = 250, 0.1, 0, 0
    for dump in range(dumps):
        counts = counted(*drawn(600, seed=dump), first=dump * 600)
        try:
            threshold = find_threshold(counts, precision=0.88, delta=delta).threshold
        except CalibrationError:
            continue
        accepted = int(np.searchsorted(-truth, -threshold, side="right"))
        broken, found = broken + bool(precisions[accepted - 1] < 0.88), found + 1

    # Three standard deviations of a share of so many dumps; and it must find something most of the time.
    assert broken / dumps <= delta + 3 * math.sqrt(delta * (1 - delta) / dumps)
    assert found / dumps > 0.8


def test_what_it_reports_is_what_the_rows_of_the_test_say():
    confidence, correct = drawn()
    keys = number_keys(np.arange(ROWS))
    tested = (keys >> np.uint64(40)) % np.uint64(16) != 0

    found = find_threshold(confidence_counts(confidence, correct, keys), precision=0.85, delta=0.05)

    accepted = tested & (confidence >= found.threshold)
    assert found.report["test"]["rows"] == tested.sum()
    assert found.report["test"]["accepted"] == accepted.sum()
    assert found.report["test"]["errors"] == (correct[accepted] == 0).sum()
    errors, rows = (correct[accepted] == 0).sum(), accepted.sum()
    assert found.report["test"]["p_value"] == pytest.approx(stats.binom.cdf(errors, rows, 0.15), rel=1e-8)
    assert found.report["test"]["p_value"] <= 0.05


def test_counts_add_up_in_any_order():
    confidence, correct = drawn()
    keys = number_keys(np.arange(ROWS))
    parts = [confidence_counts(confidence[i::7], correct[i::7], keys[i::7]) for i in range(7)]

    found = find_threshold(sum(parts[1:], parts[0]), precision=0.85, delta=0.05)

    assert found == find_threshold(counted(confidence, correct), precision=0.85, delta=0.05)


def test_unknown_rows_are_left_out():
    confidence, correct = drawn()
    unknown = np.full(50, np.nan, np.float32), np.full(50, -1, np.int8)
    both = [np.concatenate(pair) for pair in zip((confidence, correct), unknown, strict=True)]

    found = find_threshold(counted(*both), precision=0.85, delta=0.05)

    assert found.report["left_out_rows"] == 50
    assert found.threshold == find_threshold(counted(confidence, correct), precision=0.85, delta=0.05).threshold


def test_rows_that_are_all_right_are_all_accepted():
    confidence, _ = drawn()

    found = find_threshold(counted(confidence, np.ones(ROWS, np.int8)), precision=0.9, delta=0.05)

    assert found.report["test"]["coverage"] == 1
    assert found.threshold <= confidence.min()


@pytest.mark.parametrize(
    ("rows", "precision", "message"),
    [
        (ROWS, 0.9999, "no threshold has a precision of at least 0.9999 with probability 0.95"),
        (0, 0.9, "0 rows can be used, 0 have no target"),
    ],
)
def test_where_there_is_none_it_says_so(rows, precision, message):
    with pytest.raises(CalibrationError, match=message):
        find_threshold(counted(*drawn(rows)), precision=precision, delta=0.05)


def test_a_document_is_read_as_it_was_written():
    found = find_threshold(counted(*drawn()), precision=0.85, delta=0.05, temperature=1.7, shift="abc")

    assert ConfidenceThreshold.from_json(found.to_json()) == found


@pytest.mark.parametrize("change", [{"threshold": 2}, {"delta": None}, {"format": "softmax-dask calibration"}])
def test_a_document_that_was_changed_is_refused(change):
    document = json.loads(find_threshold(counted(*drawn()), precision=0.85, delta=0.05).to_json()) | change

    with pytest.raises(CalibrationError):
        ConfidenceThreshold.from_json(json.dumps(document))
