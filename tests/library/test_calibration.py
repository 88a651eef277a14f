"""The temperature of the least NLL: beside scikit-learn and SciPy, in any chunks, and with rows that break others."""

import json
import math

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from softmax_dask import (
    Calibration,
    CalibrationError,
    TargetError,
    UnsupportedArrayError,
    calibrate,
    class_shift,
    sampled_rows,
    softmax,
)
from softmax_dask.split_keys import number_keys, text_keys


def drawn(rows=4000, classes=7, temperature=1.8, *, seed=3, scale=2.0):
    """Logits whose best temperature is about that, and targets."""
    random = np.random.default_rng(seed)
    z = random.normal(0, scale, (rows, classes))
    chances = np.exp(log_softmax(z, axis=1)).cumsum(axis=1)
    targets = (chances > random.random((rows, 1))).argmax(axis=1)
    return (z * temperature).astype(np.float32), targets


def best_temperature(logits, targets, shift=0.0):
    """By SciPy, in float64."""
    x = logits.astype(np.float64)

    def nll(log_beta):
        return -log_softmax(x * math.exp(log_beta) + shift, axis=1)[np.arange(len(x)), targets].mean()

    found = minimize_scalar(nll, bounds=(-5, 5), method="bounded", options={"xatol": 1e-10})
    return math.exp(-found.x)


X, TARGETS = drawn()


@pytest.mark.parametrize("temperature", [0.02, 0.5, 1.0, 3.0, 100.0])
@pytest.mark.parametrize("classes", [2, 7, 300])
def test_the_temperature_is_that_of_scipy(classes, temperature):
    logits, targets = drawn(2000, classes, temperature)

    found = calibrate(logits, targets, fit_on="all")

    # Rounding of float32, averaged, beside a curvature of some tenths.
    assert found.temperature == pytest.approx(best_temperature(logits, targets), rel=2e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_temperature_is_that_of_scikit_learn(dtype):
    calibrated = pytest.importorskip("sklearn.calibration", reason="scikit-learn is not installed")
    frozen = pytest.importorskip("sklearn.frozen")
    linear_model = pytest.importorskip("sklearn.linear_model")
    logits = X.astype(dtype)
    model = linear_model.LogisticRegression().fit(X[:50], np.arange(50) % 7)
    model.coef_, model.intercept_, model.classes_ = np.eye(7), np.zeros(7), np.arange(7)
    peer = calibrated.CalibratedClassifierCV(frozen.FrozenEstimator(model), method="temperature", ensemble=False)
    peer.fit(logits.astype(np.float64), TARGETS)
    beta = peer.calibrated_classifiers_[0].calibrators[0].beta_

    found = calibrate(logits, TARGETS, fit_on="all")

    assert found.temperature == pytest.approx(1 / beta, rel=1e-4)


@pytest.mark.parametrize("chunks", [pytest.param(1, marks=pytest.mark.long), 7, 1000, 4000])
def test_chunks_change_no_bit_of_the_calibration(chunks):
    small, targets = X[:1001], TARGETS[:1001]

    found = calibrate(da.from_array(small, chunks=(chunks, -1)), targets)

    assert found.to_json() == calibrate(small, targets).to_json()


def test_classes_may_lie_inside_and_xarray_has_names():
    image = X[:3600].reshape(60, 60, 7)
    array = xr.DataArray(image.transpose(0, 2, 1), dims=("y", "class", "x"))
    targets = xr.DataArray(TARGETS[:3600].reshape(60, 60), dims=("y", "x"))

    found = calibrate(array, targets, axis="class")

    assert found == calibrate(X[:3600], TARGETS[:3600])


def test_dask_arrays_of_more_axes_are_calibrated_as_numpy_arrays_are():
    image = X[:3600].reshape(60, 60, 7)
    lazy = da.from_array(image, chunks=(7, 13, -1))

    found = calibrate(lazy, TARGETS[:3600].reshape(60, 60))

    assert found.to_json() == calibrate(X[:3600], TARGETS[:3600]).to_json()


def test_the_halves_share_no_row_and_hang_on_ids_alone():
    order = np.random.default_rng(0).permutation(len(X))
    ids = [f"image-{i}" for i in range(len(X))]

    found = calibrate(X[order], TARGETS[order], ids=[ids[i] for i in order])

    assert found.report == calibrate(X, TARGETS, ids=ids).report
    assert found.report["fit"]["rows"] + found.report["after"]["rows"] == len(X)
    assert 0.45 < found.report["fit"]["rows"] / len(X) < 0.55


def test_all_rows_are_fitted_and_reported_where_that_is_said():
    found = calibrate(X, TARGETS, fit_on="all").report

    assert found["fit"]["rows"] == found["before"]["rows"] == found["after"]["rows"] == len(X)


def test_the_nll_of_the_other_half_gets_better():
    found = calibrate(X, TARGETS)

    assert found.report["after"]["nll"] < found.report["before"]["nll"]
    assert found.report["after"]["ece"] < found.report["before"]["ece"]
    assert not found.ece_got_worse


def test_rows_that_are_bad_change_no_bit_of_the_temperature():
    bad = np.zeros((6, 7), np.float32)
    bad[0, 1], bad[1, 1], bad[2, :] = np.nan, np.inf, -np.inf
    bad[3, 0], bad[4, 0], bad[5] = -np.inf, -3e38, 3e38
    bad[5, 0] = -3e38
    logits, targets = np.concatenate([X, bad]), np.concatenate([TARGETS, np.zeros(6, np.int64)])

    found = calibrate(logits, targets, fit_on="all")

    assert found.temperature == calibrate(X, TARGETS, fit_on="all").temperature
    assert found.report["fit"]["undecidable_rows"] == 3
    assert found.report["fit"]["infinite_rows"] == 3


def test_an_infinite_nll_is_none_in_the_report_and_its_rows_are_counted():
    logits, targets = X.copy(), TARGETS
    logits[0, targets[0]] = -np.inf

    found = calibrate(logits, targets, fit_on="all").report["after"]

    assert (found["nll"], found["infinite_rows"]) == (None, 1)
    assert math.isfinite(found["finite_nll"])


def test_unlabelled_rows_are_left_out_and_counted():
    logits, targets = np.concatenate([X, X]), np.concatenate([TARGETS, np.full(len(X), -1)])

    found = calibrate(logits, targets, fit_on="all")

    assert found.temperature == calibrate(X, TARGETS, fit_on="all").temperature
    assert found.report["fit"]["unlabelled_rows"] == len(X)


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        (np.eye(5, dtype="f4"), np.arange(5), "still falls at 0.0078125, as where every row is right"),
        (np.eye(5, dtype="f4"), (np.arange(5) + 1) % 5, "still falls at 256, so the logits tell nothing"),
        (np.eye(5, dtype="f4"), np.full(5, -1), "no row can be used: 5 have no target"),
        (np.full((5, 2), np.nan, "f4"), np.zeros(5, int), "0 have no target, 5 hold NaN"),
    ],
)
def test_what_cannot_be_fitted_says_why(logits, targets, message):
    with pytest.raises(CalibrationError, match=message):
        calibrate(logits, targets, fit_on="all")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"targets": [7] * len(X)}, TargetError, "targets hold 7 at row 0"),
        ({"ids": [1, 2]}, CalibrationError, "expected 4000 integers or texts"),
        ({"ids": np.zeros(len(X))}, CalibrationError, "ids are float64"),
        ({"shift": [0.0]}, CalibrationError, "shift is of 1 classes; expected 7"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(given, error, message):
    with pytest.raises(error, match=message):
        calibrate(X, **{"targets": TARGETS, **given})


def test_arrays_on_a_gpu_are_refused(monkeypatch):
    monkeypatch.setattr("softmax_dask.calibrating.is_on_device", lambda array: True)

    with pytest.raises(UnsupportedArrayError, match=r"Call logits.get\(\) first"):
        calibrate(X, TARGETS)


# ---- the sample of many rows


MANY = 1 << 18
MANY_LOGITS, MANY_TARGETS = drawn(MANY, 3, 1.4, seed=5)


def in_the_sample():
    """Which of many rows are read first."""
    chosen = np.zeros(MANY, bool)
    for run in sampled_rows(MANY):
        chosen[run.start : run.stop] = True
    return chosen


@pytest.mark.parametrize("rows", [MANY, MANY + 1, 1_000_003, 5_000_000, 10**12])
def test_a_sample_is_some_runs_that_are_spread_over_all_rows(rows):
    runs = sampled_rows(rows)

    middles = np.array([(run.start + run.stop) / 2 for run in runs])
    assert 16 <= len(runs) <= 64
    assert sum(map(len, runs)) == 1 << 15
    assert_allclose(middles, (np.arange(len(runs)) + 0.5) * rows / len(runs), atol=2)


def test_of_few_rows_all_are_read():
    assert sampled_rows(MANY - 1) is None


def test_after_a_sample_two_reads_are_enough_and_the_temperature_is_that_of_all_rows():
    found = calibrate(MANY_LOGITS, MANY_TARGETS, fit_on="all")

    assert found.temperature == pytest.approx(best_temperature(MANY_LOGITS, MANY_TARGETS), rel=2e-5)
    assert (found.report["fit"]["reads"], found.report["fit"]["rows"]) == (3, MANY)
    assert found.report["before"]["rows"] == found.report["after"]["rows"] == MANY


def test_a_sample_that_misleads_is_found_out_by_another_read():
    logits = MANY_LOGITS.copy()
    logits[in_the_sample()] *= 20  # the best temperature of these is far from that of all

    found = calibrate(logits, MANY_TARGETS, fit_on="all")

    assert found.temperature == pytest.approx(best_temperature(logits, MANY_TARGETS), rel=2e-5)
    assert found.report["fit"]["reads"] > 3


@pytest.mark.parametrize(
    "of_sample", [lambda x: np.full(len(x), -1), lambda x: x.argmax(axis=1)], ids=["none", "right"]
)
def test_a_sample_without_targets_or_without_an_error_leaves_the_grid_to_all_rows(of_sample):
    targets, chosen = MANY_TARGETS.copy(), in_the_sample()
    targets[chosen] = of_sample(MANY_LOGITS[chosen])

    found = calibrate(MANY_LOGITS, targets, fit_on="all")

    labelled = targets >= 0
    assert found.temperature == pytest.approx(best_temperature(MANY_LOGITS[labelled], targets[labelled]), rel=2e-5)
    assert found.report["fit"]["reads"] == 4


@pytest.mark.parametrize("shape", [(MANY,), (512, 512)])
def test_chunks_and_axes_change_no_bit_after_a_sample(shape):
    logits, targets = MANY_LOGITS.reshape(*shape, 3), MANY_TARGETS.reshape(shape)
    lazy = da.from_array(np.moveaxis(logits, -1, 0), chunks=(-1, *(100_000 if len(shape) == 1 else 130 for _ in shape)))

    expected = calibrate(MANY_LOGITS, MANY_TARGETS).to_json()

    assert calibrate(logits, targets).to_json() == expected
    assert calibrate(lazy, targets, axis=0).to_json() == expected


def test_a_sample_of_a_dask_array_computes_no_block_that_it_does_not_touch():
    computed = []

    def counted(block):
        computed.append(len(block))
        return block

    lazy = da.map_blocks(counted, da.from_array(MANY_LOGITS, chunks=(1024, -1)), dtype=np.float32, meta=MANY_LOGITS[:0])

    calibrate(lazy, MANY_TARGETS)

    touched = {row // 1024 for run in sampled_rows(MANY) for row in run}
    assert len(computed) == 2 * (MANY // 1024) + len(touched)
    assert len(touched) < MANY // 1024 // 2


# ---- priors


def test_a_shift_is_the_logarithm_of_the_ratio_of_shares():
    found = class_shift([10, 30], [0.5, 0.5])

    assert_allclose(found, np.log([2, 2 / 3]))


@pytest.mark.parametrize(
    ("train", "target", "message"),
    [
        ([1, 0], [1, 1], "0 for class 1"),
        ([1, 1], [1, 1, 1], "of 2 classes, target priors of 3"),
        ([1, -1], [1, 1], "train priors are no shares"),
        ([1, 1], [0, 0], "target priors are no shares"),
        ([1, 1], [math.nan, 1], "target priors are no shares"),
    ],
)
def test_priors_that_are_none_are_refused(train, target, message):
    with pytest.raises(CalibrationError, match=message):
        class_shift(train, target)


def test_with_priors_the_temperature_is_that_of_the_shifted_logits():
    shift = class_shift([1, 2, 3, 4, 5, 6, 7], np.bincount(TARGETS, minlength=7))

    found = calibrate(X, TARGETS, fit_on="all", shift=shift)

    assert found.temperature == pytest.approx(best_temperature(X, TARGETS, np.array(shift)), rel=2e-5)


def test_a_class_that_cannot_be_is_a_masked_target():
    shift = class_shift(np.ones(7), [0, 1, 1, 1, 1, 1, 1])

    found = calibrate(X, TARGETS, fit_on="all", shift=shift)

    assert found.report["fit"]["infinite_rows"] == (TARGETS == 0).sum()
    assert Calibration.from_json(found.to_json()).shift == shift


def test_softmax_of_its_logits_are_the_calibrated_probabilities():
    shift = class_shift([1, 2, 3, 4, 5, 6, 7], np.ones(7))
    calibration = Calibration(1.7, 7, shift)

    found = softmax(calibration.logits(X), temperature=calibration.temperature)

    assert_allclose(found, np.exp(log_softmax(X.astype(np.float64) / 1.7 + shift, axis=1)), rtol=2e-5)


def test_without_a_shift_logits_are_what_they_are():
    assert Calibration(1.7, 7).logits(X) is X


# ---- the document


def test_a_document_is_read_as_it_was_written():
    found = calibrate(X, TARGETS, shift=class_shift(np.ones(7), [0, 1, 1, 1, 1, 1, 2]))

    assert Calibration.from_json(found.to_json()) == found


def test_a_document_has_a_format_and_a_version():
    found = json.loads(calibrate(X, TARGETS).to_json())

    assert (found["format"], found["version"]) == ("softmax-dask calibration", 1)
    assert sum(each["rows"] for each in found["after"]["bins"]) == found["after"]["rows"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "x"}, "is no calibration; expected a calibration that softmax-dask wrote"),
        ({"version": 2}, "has version 2; expected 1"),
        ({"temperature": 0}, "temperature is 0; expected a number from 1e-300"),
        ({"temperature": "1"}, "temperature is '1'"),
        ({"classes": 0}, "classes is 0"),
        ({"classes": True}, "classes is True"),
        ({"shift": [0.0]}, "shift is not 7 numbers"),
        ({"shift": ["a"] * 7}, "shift is not 7 numbers"),
    ],
)
def test_a_document_that_was_changed_is_refused(change, message):
    document = json.loads(Calibration(1.7, 7).to_json()) | change

    with pytest.raises(CalibrationError, match=message):
        Calibration.from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "[1]", "no", '{"format": 1}', "NaN"])
def test_what_is_no_document_is_refused(text):
    with pytest.raises(CalibrationError):
        Calibration.from_json(text)


# ---- keys


def test_keys_of_texts_hang_on_each_letter_and_on_their_length():
    found = text_keys(["", "a", "a\0", "b", "abcdefgh", "abcdefgh\0", "abcdefghi", "é"])

    assert len(set(found.tolist())) == 8


def test_keys_do_not_hang_on_what_stands_beside():
    texts = [f"row {i}" * (1 + i % 50) for i in range(3000)]

    found = text_keys(texts)

    assert found.tolist() == [int(text_keys([text])[0]) for text in texts]


def test_keys_are_the_same_for_ever():
    # Halves must not change with a new version: whoever has fitted on one reports on the other.
    assert int(number_keys(np.array([0]))[0]) == 0xE220A8397B1DCDAF  # the first number of SplitMix64 from 0
    assert int(text_keys(["image-1"])[0]) == int(text_keys(["image-1"])[0])
