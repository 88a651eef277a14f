"""`evaluate`: the same bits for every kind of array, chunking and axis; figures beside exact and published ones."""

import json
import os
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from softmax_dask import SplitClassAxisError, TargetError, TemperatureError, evaluate, metrics_document, softmax

DATA = os.environ.get("SOFTMAX_DASK_TEST_DATA")


def text_of(metrics: Any) -> str:
    return json.dumps(metrics_document(metrics), allow_nan=False)


@pytest.fixture(scope="module")
def dump() -> tuple[Any, Any]:
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 3, (40, 25, 6)).astype("float32")
    logits[3, 4] = np.nan
    return logits, rng.integers(-1, 6, (40, 25))


@pytest.fixture(scope="module")
def expected(dump: tuple[Any, Any]) -> str:
    logits, targets = dump
    return text_of(evaluate(logits, targets))


@pytest.mark.parametrize("chunks", [(40, 25, 6), (7, 25, 6), (1, 3, 6), (40, 1, 6)], ids=str)
def test_a_dask_array_gives_the_bits_of_an_array_in_memory(dump, expected, chunks):
    logits, targets = dump

    found = evaluate(da.from_array(logits, chunks=chunks), targets)

    assert text_of(found) == expected


def test_lazy_targets_in_other_chunks_give_the_same_bits(dump, expected):
    logits, targets = dump

    found = evaluate(da.from_array(logits, chunks=(9, 8, 6)), da.from_array(targets, chunks=(11, 5)))

    assert text_of(found) == expected


def test_an_xarray_gives_the_same_bits_whatever_the_order_of_its_dimensions(dump, expected):
    logits, targets = dump
    x = xr.DataArray(logits, dims=("y", "x", "class")).transpose("class", "x", "y")
    t = xr.DataArray(targets, dims=("y", "x"))

    found = evaluate(x, t, axis="class")

    assert text_of(found) == expected


def test_the_class_axis_may_be_the_first(dump, expected):
    logits, targets = dump

    found = evaluate(np.moveaxis(logits, -1, 0), targets, axis=0)

    assert text_of(found) == expected


def test_a_block_is_read_once(dump):
    logits, targets = dump
    reads = []

    def read(block: Any) -> Any:
        reads.append(block.shape)
        return block

    lazy = da.from_array(logits, chunks=(10, 25, 6)).map_blocks(read, dtype=logits.dtype, meta=np.empty((0, 0, 0)))

    evaluate(lazy, targets)

    assert reads == [(10, 25, 6)] * 4


def test_memory_does_not_hold_the_blocks_of_a_dask_array(dump):
    alive, most = set(), []

    def make(block_id: Any) -> Any:
        alive.add(block_id)
        most.append(len(alive))
        return np.random.default_rng(block_id).normal(size=(50, 1, 4)).astype("f4")

    def let_go(block: Any, block_id: Any) -> Any:
        alive.discard(block_id)
        return block

    lazy = da.map_blocks(make, chunks=((50,) * 40, (1,), (4,)), dtype="f4", meta=np.empty((0, 0, 0), "f4"))
    lazy = lazy.map_blocks(let_go, dtype="f4", meta=np.empty((0, 0, 0), "f4"))

    with dask.config.set(scheduler="threads", num_workers=2):
        found = evaluate(lazy)

    assert found.rows == 2000
    assert max(most) <= 4


def test_a_temperature_is_that_of_softmax(dump):
    logits, targets = dump
    known = (targets >= 0) & ~np.isnan(logits).any(axis=-1)

    found = evaluate(logits, targets, temperature=2.5)

    p = softmax(logits.astype("float64"), temperature=2.5)[known]
    truth = targets[known]
    nll = -np.log(p[np.arange(len(truth)), truth])
    brier = ((p - np.eye(6)[truth]) ** 2).sum(axis=1)
    # Float32 columns: each row within 4 eps of max(1, the largest logit).
    assert found.nll == pytest.approx(nll.mean(), abs=2e-6)
    assert found.brier == pytest.approx(brier.mean(), abs=1e-6)


def test_no_rows_are_no_error():
    found = evaluate(np.empty((0, 3), "f4"), np.empty(0, int))

    assert (found.rows, found.classes, found.accuracy) == (0, 3, None)


def test_a_split_class_axis_is_refused(dump):
    logits, _ = dump

    with pytest.raises(SplitClassAxisError, match="rechunk"):
        evaluate(da.from_array(logits, chunks=(40, 25, 3)))


def test_targets_beyond_the_classes_are_refused(dump):
    logits, targets = dump

    with pytest.raises(TargetError, match="hold 6 at row 0"):
        evaluate(logits, np.full_like(targets, 6))


def test_a_temperature_of_zero_is_refused(dump):
    with pytest.raises(TemperatureError):
        evaluate(dump[0], temperature=0)


# ---- beside other programs


def test_figures_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    rng = np.random.default_rng(11)
    targets = rng.integers(0, 7, 3000)
    logits = rng.normal(0, 2, (3000, 7)) + 2 * np.eye(7)[targets]
    p, label = softmax(logits), logits.argmax(axis=1)

    found = evaluate(logits, targets)

    document = metrics_document(found)
    by_class, confusions = document["by_class"], metrics.confusion_matrix(targets, label)
    assert found.accuracy == metrics.accuracy_score(targets, label)
    assert found.top_k_accuracy(3) == metrics.top_k_accuracy_score(targets, p, k=3)
    assert found.nll == pytest.approx(metrics.log_loss(targets, p), rel=1e-9)
    expected = metrics.precision_recall_fscore_support(targets, label)
    np.testing.assert_allclose(by_class["precision"], expected[0], rtol=1e-15)
    np.testing.assert_allclose(by_class["recall"], expected[1], rtol=1e-15)
    assert by_class["support"] == expected[3].tolist()
    assert all(c.rows == confusions[c.target, c.label] for c in found.frequent_confusions())
    assert len(found.frequent_confusions()) == np.count_nonzero(confusions - np.diag(np.diag(confusions)))


def test_the_calibration_error_is_that_of_mapie():
    calibration = pytest.importorskip("mapie.metrics.calibration", reason="MAPIE is not installed")
    rng = np.random.default_rng(12)
    targets = rng.integers(0, 5, 2000)
    logits = rng.normal(0, 2, (2000, 5)) + np.eye(5)[targets]
    p = softmax(logits)

    found = evaluate(logits, targets)

    right, confidence = p.argmax(axis=1) == targets, p.max(axis=1)
    # It counts edges: 16 of them make 15 bins, closed on the right as ours.
    expected = calibration.expected_calibration_error(right.astype(int), confidence, num_bins=16)
    assert found.ece == pytest.approx(expected, abs=2**-31)


PUBLISHED = {
    "verifiedcal_vgg16_cifar10": (0.9359, 0.2570648, 0.0397801, 0.1054459, 0.9755733, 0.0642980),
    "netcal_densenet_bc100_cifar100": (0.7541, 1.2256269, 0.1421528, 0.3845042, 0.8962528, 0.2986238),
    "magika214": (0.8917060, 0.7225360, 0.0475633, 0.1683642, 0.9241979, 0.2859607),
}
"""Accuracy, NLL, ECE, Brier score, mean confidence and entropy, as the README beside the dumps has them."""


@pytest.mark.skipif(DATA is None, reason="SOFTMAX_DASK_TEST_DATA does not say where the real dumps are")
@pytest.mark.parametrize("rows", [1000, 10_000])
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures_of_real_dumps_come_out_again(name, rows):
    with np.load(Path(str(DATA), f"{name}.npz")) as arrays:
        logits = arrays["logits"] if "logits" in arrays else np.log(arrays["probs"])
        targets = arrays["labels"].astype(int)

    found = evaluate(da.from_array(logits, chunks=(rows, -1)), targets)

    accuracy, nll, ece, brier, confidence, entropy = PUBLISHED[name]
    assert round(found.accuracy, 7) == accuracy
    assert (found.nll, found.brier) == pytest.approx((nll, brier), abs=2e-6)
    assert found.ece == pytest.approx(ece, abs=1e-6)
    assert (found.mean_confidence, found.mean_entropy) == pytest.approx((confidence, entropy), abs=1e-6)
