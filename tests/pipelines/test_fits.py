"""`calibrate`, `threshold` and `conformal`, and what `score` makes of their documents, through the command line."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax, softmax

from softmax_dask import calibrate as library_calibrate
from softmax_dask_pipelines import calibrate, conformal, score, sweep, threshold
from tests.pipelines import dumps
from tests.pipelines.command import softmax_dask

ROWS, CLASSES, TEMPERATURE = 6000, 6, 2.5


def drawn(rows: int = ROWS, seed: int = 1) -> tuple[Any, Any]:
    """Logits of an overconfident model, and targets."""
    random = np.random.default_rng(seed)
    z = random.normal(0, 2.5, (rows, CLASSES))
    targets = (softmax(z, axis=1).cumsum(axis=1) > random.random((rows, 1))).argmax(axis=1)
    return (z * TEMPERATURE).astype(np.float32), targets


LOGITS, TARGETS = drawn()
TEXTS = [f"image-{i}" for i in range(ROWS)]


def write_zarr(path: Path, logits: Any = LOGITS, targets: Any = TARGETS) -> Path:
    group = zarr.create_group(path)
    group.create_array("logits", data=logits, chunks=(700, logits.shape[1]))
    group.create_array("target", data=targets.astype(np.int32), chunks=(1000,))
    texts = group.create_array("id", shape=(len(logits),), dtype=str, chunks=(500,))
    texts[:] = np.array(TEXTS[: len(logits)], dtype=object)
    return path


def write_parquet(path: Path) -> Path:
    lists = dumps.fixed_lists(LOGITS)
    table = pa.table({"id": TEXTS, "logits": lists, "target": pa.array(TARGETS)})
    return dumps.parquet_folder(path, table, (1000, 2500))


@pytest.fixture(params=[write_zarr, write_parquet], ids=["zarr", "parquet"])
def dump(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return request.param(tmp_path / request.param.__name__.replace("write_", "logits."))


@pytest.fixture
def zarr_dump(tmp_path: Path) -> Path:
    return write_zarr(tmp_path / "logits.zarr")


def run(*arguments: object) -> dict[str, Any]:
    outcome = softmax_dask(*arguments, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def columns_of(output: Path) -> dict[str, Any]:
    group = zarr.open_group(output, mode="r")
    return {name: array[:] for name, array in group.arrays()}


def calibrated(folder: Path, dump: Path, *flags: object) -> Path:
    run("calibrate", dump, "-o", folder / "calibration.json", *flags)
    return folder / "calibration.json"


# ---- calibrate


def test_a_dump_is_calibrated_and_the_document_is_what_json_says(dump, tmp_path):
    told = run("calibrate", dump, "--target", "target", "--output", tmp_path / "calibration.json")

    written = json.loads((tmp_path / "calibration.json").read_text())
    assert written.items() <= told.items()
    assert written["temperature"] == pytest.approx(TEMPERATURE, rel=0.05)
    assert written["split_by"] == "id"
    assert written["fit"]["rows"] + written["after"]["rows"] == ROWS


@pytest.mark.parametrize("flags", [("--threads", "1"), ("--threads", "4"), ("--memory-limit", "600MiB")])
def test_threads_and_partitions_change_no_bit_of_the_document(dump, tmp_path, flags):
    whole, cut = (calibrate(dump, tmp_path / name).document for name in ("a.json", "b.json"))

    run("calibrate", dump, "-o", tmp_path / "c.json", *flags)

    assert json.loads((tmp_path / "c.json").read_text()) == whole == cut


def test_of_many_rows_a_sample_is_read_first_and_then_all_of_them_twice(tmp_path, monkeypatch):
    logits, targets = (np.tile(each, (50, 1) if each.ndim > 1 else 50) for each in (LOGITS, TARGETS))
    group = zarr.create_group(tmp_path / "many.zarr")
    group.create_array("logits", data=logits, chunks=(5000, CLASSES))
    group.create_array("target", data=targets, chunks=(50_000,))
    glances: list[int] = []
    taken = sweep._Sums.take
    monkeypatch.setattr(sweep._Sums, "take", lambda self, glance: (glances.append(glance.rows), taken(self, glance)))

    found = calibrate(tmp_path / "many.zarr", tmp_path / "c.json", threads=2)

    assert sum(glances) == found.job.total_rows == 2 * len(logits) + (1 << 15)
    assert found.document["fit"] == library_calibrate(logits, targets).report["fit"]
    assert found.document["temperature"] == library_calibrate(logits, targets).temperature


def test_zarr_and_parquet_give_the_same_temperature(tmp_path):
    found = [
        calibrate(write(tmp_path / name), tmp_path / f"{name}.json").document
        for write, name in ((write_zarr, "x.zarr"), (write_parquet, "x.parquet"))
    ]

    assert found[0]["temperature"] == found[1]["temperature"]
    assert found[0]["after"] == found[1]["after"]


def test_score_takes_the_temperature_of_a_calibration(dump, tmp_path):
    calibration = calibrated(tmp_path, dump)
    temperature = json.loads(calibration.read_text())["temperature"]

    run("score", dump, tmp_path / "out.zarr", "--calibration", calibration, "--columns", "probabilities")

    found = columns_of(tmp_path / "out.zarr")["probabilities"]
    assert_allclose(found, softmax(LOGITS.astype(np.float64) / temperature, axis=1), rtol=2e-6, atol=1e-30)


def test_priors_are_added_and_move_labels(zarr_dump, tmp_path):
    train, target = np.ones(CLASSES), np.arange(1.0, CLASSES + 1)
    (tmp_path / "train.txt").write_text("\n".join(map(str, train)))
    (tmp_path / "target.json").write_text(json.dumps(target.tolist()))
    priors = ("--train-priors", tmp_path / "train.txt", "--target-priors", tmp_path / "target.json")
    calibration = calibrated(tmp_path, zarr_dump, *priors)
    temperature = json.loads(calibration.read_text())["temperature"]

    told = ("--calibration", calibration, "--columns", "label,probabilities,nll")
    run("score", zarr_dump, tmp_path / "out.zarr", *told)

    found = columns_of(tmp_path / "out.zarr")
    expected = log_softmax(LOGITS.astype(np.float64) / temperature + np.log(target / target.mean()), axis=1)
    # The shifted logits are rounded to float32, at most 2^-19 of those below 32 in size.
    assert_allclose(found["probabilities"], np.exp(expected), rtol=2e-5, atol=1e-30)
    assert (found["label"] == expected.argmax(axis=1)).mean() > 0.999
    assert (found["label"] != LOGITS.argmax(axis=1)).any()


def test_a_run_is_not_gone_on_with_under_another_calibration(zarr_dump, tmp_path):
    score(zarr_dump, tmp_path / "out.zarr", calibration=calibrated(tmp_path, zarr_dump))

    run("calibrate", zarr_dump, "-o", tmp_path / "calibration.json", "--fit-on", "all", "--replace")
    outcome = softmax_dask("score", zarr_dump, tmp_path / "out.zarr", "--calibration", tmp_path / "calibration.json")

    assert outcome.code == 4
    assert "temperature: 2." in outcome.err


def test_other_priors_are_another_plan_at_the_same_temperature(zarr_dump, tmp_path):
    calibration = calibrated(tmp_path, zarr_dump)
    score(zarr_dump, tmp_path / "out.zarr", calibration=calibration)
    document = json.loads(calibration.read_text())
    calibration.write_text(json.dumps(document | {"shift": [0.0] * (CLASSES - 1) + [1.0]}))

    outcome = softmax_dask("score", zarr_dump, tmp_path / "out.zarr", "--calibration", calibration)

    assert outcome.code == 4
    assert "shift: none -> " in outcome.err


def test_ece_that_got_worse_is_said(tmp_path):
    # Calibrated within the bins as it is; but a few rows are confident and wrong, so the NLL asks for a higher T.
    random = np.random.default_rng(0)
    confidence = np.full(4000, 0.7)
    logits = np.stack([np.log(confidence / (1 - confidence)), np.zeros(4000)], axis=1).astype(np.float32)
    targets = (random.permutation(4000) >= 2800).astype(np.int64)
    logits[:40, 0], targets[:40] = 12, 1
    dump = write_zarr(tmp_path / "logits.zarr", logits, targets)

    told = run("calibrate", dump, "-o", tmp_path / "c.json", "--fit-on", "all")
    text = softmax_dask("calibrate", dump, "-o", tmp_path / "d.json", "--fit-on", "all").out

    assert told["after"]["nll"] < told["before"]["nll"]
    assert told["after"]["ece"] > told["before"]["ece"]
    assert ": worse, though the NLL is better" in text


# ---- threshold


def test_accepted_rows_are_those_of_at_least_the_threshold(dump, tmp_path):
    calibration = calibrated(tmp_path, dump)
    told = run("threshold", dump, "--precision", "0.8", "-o", tmp_path / "t.json", "--calibration", calibration)

    run("score", dump, tmp_path / "out.zarr", "--calibration", calibration, "--accept", tmp_path / "t.json")

    found = columns_of(tmp_path / "out.zarr")
    assert_array_equal(found["accept"], (found["confidence"] >= told["threshold"]).astype(np.int8))
    assert told["held_out_half"] is True
    assert told["test"]["precision"] >= 0.8
    assert found["correct"][found["accept"] == 1].mean() >= 0.8


@pytest.mark.parametrize("suffix", ["zarr", "parquet"])
def test_a_scored_output_gives_the_threshold_that_its_dump_gives(dump, tmp_path, suffix):
    calibration = calibrated(tmp_path, dump)
    score(dump, tmp_path / f"out.{suffix}", calibration=calibration)

    found = threshold(tmp_path / f"out.{suffix}", tmp_path / "a.json", precision=0.8).document
    expected = threshold(dump, tmp_path / "b.json", precision=0.8, calibration=calibration).document

    assert found["test"] == expected["test"]
    assert found["threshold"] == expected["threshold"]
    assert found["temperature"] == expected["temperature"]


def test_undecidable_rows_are_neither_accepted_nor_not(tmp_path):
    logits = LOGITS.copy()
    logits[5] = np.nan
    dump = write_zarr(tmp_path / "logits.zarr", logits)
    threshold(dump, tmp_path / "t.json", precision=0.6)
    conformal(dump, tmp_path / "s.json")

    for suffix in ("zarr", "parquet"):
        score(dump, tmp_path / f"out.{suffix}", accept=tmp_path / "t.json", conformal=tmp_path / "s.json")

    table = pq.read_table(tmp_path / "out.parquet")
    assert columns_of(tmp_path / "out.zarr")["accept"][5] == -1
    assert (columns_of(tmp_path / "out.zarr")["conformal_set"][5] == -1).all()
    assert table["accept"][5].as_py() is None
    assert table["conformal_set"][5].as_py() is None
    assert (table["accept"].null_count, table["conformal_set"].null_count) == (1, 1)


# ---- conformal


def test_sets_hold_the_classes_of_at_least_the_level(dump, tmp_path):
    calibration = calibrated(tmp_path, dump)
    told = run("conformal", dump, "--alpha", "0.2", "-o", tmp_path / "s.json", "--calibration", calibration)
    flags = ("--calibration", calibration, "--conformal", tmp_path / "s.json")

    run("score", dump, tmp_path / "out.zarr", *flags, "--columns", "probabilities,conformal_set")
    run("score", dump, tmp_path / "out.parquet", *flags)

    found = columns_of(tmp_path / "out.zarr")
    expected = [np.flatnonzero(row >= np.float32(told["least_probability"])).tolist() for row in found["probabilities"]]
    assert [[k for k in row if k >= 0] for row in found["conformal_set"].tolist()] == expected
    assert pq.read_table(tmp_path / "out.parquet")["conformal_set"].to_pylist() == expected
    assert found["conformal_set"].shape[1] <= math.floor(1.001 / told["least_probability"])


def test_coverage_is_what_was_promised_and_measured(zarr_dump, tmp_path):
    told = conformal(zarr_dump, tmp_path / "s.json", alpha=0.1, temperature=TEMPERATURE).document
    score(zarr_dump, tmp_path / "out.zarr", conformal=tmp_path / "s.json", temperature=TEMPERATURE)

    found = (columns_of(tmp_path / "out.zarr")["conformal_set"] == TARGETS[:, None]).any(axis=1).mean()

    # Three standard deviations of a share of 3,000 rows.
    assert abs(told["measured"]["coverage"] - 0.9) < 3 * math.sqrt(0.09 / 3000)
    assert abs(found - 0.9) < 3 * math.sqrt(0.09 / 3000)


def test_too_few_rows_for_alpha_give_all_classes(tmp_path):
    dump = write_zarr(tmp_path / "logits.zarr", LOGITS[:20], TARGETS[:20])

    told = conformal(dump, tmp_path / "s.json", alpha=0.01).document

    assert told["least_probability"] == 0
    assert told["measured"]["coverage"] == 1
    assert told["measured"]["mean_classes"] == CLASSES


# ---- mistakes


def test_a_document_that_is_there_stays_unless_it_is_to_be_replaced(zarr_dump, tmp_path):
    calibrated(tmp_path, zarr_dump)
    before = (tmp_path / "calibration.json").read_bytes()

    outcome = softmax_dask("calibrate", zarr_dump, "-o", tmp_path / "calibration.json")

    assert outcome.code == 4
    assert "is there already" in outcome.err
    assert (tmp_path / "calibration.json").read_bytes() == before


def test_what_is_no_document_is_never_replaced(zarr_dump, tmp_path):
    (tmp_path / "notes.json").write_text("{}")

    outcome = softmax_dask("calibrate", zarr_dump, "-o", tmp_path / "notes.json", "--replace")

    assert outcome.code == 4
    assert (tmp_path / "notes.json").read_text() == "{}"


def test_another_dump_than_that_of_the_threshold_needs_the_same_temperature(zarr_dump, tmp_path):
    threshold(zarr_dump, tmp_path / "t.json", precision=0.7, temperature=2.0)

    outcome = softmax_dask("score", zarr_dump, tmp_path / "out.zarr", "--accept", tmp_path / "t.json")

    assert outcome.code == 2
    assert "was found at temperature 2, and this run has temperature 1; expected the same." in outcome.err
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("calibrate", "DUMP"), 2, "Missing option '-o' / '--output'"),
        (("calibrate", "DUMP", "-o", "c.json", "--target", "nope"), 2, "nope"),
        (("calibrate", "DUMP", "-o", "c.json", "--fit-on", "quarter"), 2, "--fit-on: is 'quarter'"),
        (("calibrate", "DUMP", "-o", "DUMP/c.json"), 2, "lies inside the source"),
        (("calibrate", "DUMP", "-o", "c.json", "--train-priors", "x"), 2, "expected both train_priors"),
        (("calibrate", "DUMP", "-o", "c.json", "--train-priors", "x", "--target-priors", "y"), 2, "x: is not there"),
        (("calibrate", "DUMP", "-o", "c.json", "--memory-limit", "1MiB"), 3, "memory_limit is 1 MiB"),
        (("threshold", "DUMP", "-o", "c.json"), 2, "Missing option '--precision'"),
        (("threshold", "DUMP", "-o", "c.json", "--precision", "1.5"), 2, "--precision: is '1.5'"),
        (("threshold", "DUMP", "-o", "c.json", "--precision", "0.9999"), 3, "no threshold has a precision"),
        (("conformal", "DUMP", "-o", "c.json", "--alpha", "0"), 2, "--alpha: is '0'"),
        (("conformal", "DUMP", "-o", "c.json", "--calibration", "c.json"), 2, "c.json: is not there"),
        (("score", "DUMP", "out.zarr", "--columns", "accept"), 2, "'accept' needs threshold"),
        (("score", "DUMP", "out.zarr", "--calibration", "other.json"), 2, "is no calibration"),
        (("score", "DUMP", "out.zarr", "--calibration", "wide.json"), 2, "wide.json: is of 7 classes"),
        (("score", "DUMP", "out.zarr", "--calibration", "c6.json", "--temperature", "2"), 2, "expected one of the two"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_writes_nothing(zarr_dump, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    Path("other.json").write_text('{"format": "softmax-dask threshold"}')
    known = {"format": "softmax-dask calibration", "version": 1, "temperature": 2.0, "shift": None}
    Path("wide.json").write_text(json.dumps(known | {"classes": 7}))
    Path("c6.json").write_text(json.dumps(known | {"classes": 6}))

    outcome = softmax_dask(*(str(part).replace("DUMP", "logits.zarr") for part in arguments))

    assert outcome.code == code, outcome.err
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c6.json", "logits.zarr", "other.json", "wide.json"]


def test_a_dump_without_targets_says_how_to_name_them(tmp_path):
    dumps.zarr_array(tmp_path / "bare.zarr", LOGITS)

    outcome = softmax_dask("calibrate", tmp_path / "bare.zarr", "-o", tmp_path / "c.json")

    assert outcome.code == 2
    assert "Name them: --target NAME." in outcome.err


def test_flags_become_a_config_that_does_the_same(zarr_dump, tmp_path):
    config = tmp_path / "calibrate.yaml"
    softmax_dask("calibrate", zarr_dump, "-o", tmp_path / "a.json", "--fit-on", "all", "--write-config", config)

    run("run", config)

    assert json.loads((tmp_path / "a.json").read_text())["fit_on"] == "all"


def test_a_scored_output_with_a_temperature_is_refused(zarr_dump, tmp_path):
    score(zarr_dump, tmp_path / "out.parquet")
    flags = ("--precision", "0.7", "-o", tmp_path / "t.json", "--temperature", "2")

    outcome = softmax_dask("threshold", tmp_path / "out.parquet", *flags)

    assert outcome.code == 2
    assert "is an output of score, which has been written with its own" in outcome.err
