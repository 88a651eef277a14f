"""The words at the end of a run, and the figures behind them."""

import dataclasses
import json

import numpy as np
import pytest

from softmax_dask_pipelines import ScoreConfig, score
from softmax_dask_pipelines.job import prepare
from softmax_dask_pipelines.relayout import advice
from softmax_dask_pipelines.sources import SourceFacts, SourceRequest, open_source
from softmax_dask_pipelines.summary import (
    facts_of_inspection,
    facts_of_plan,
    facts_of_source,
    size,
    text_of_plan,
    text_of_run,
    text_of_source,
)
from tests.pipelines import dumps


@pytest.fixture
def bare(tmp_path):
    """No ids, targets or class names; every row is undecidable."""
    data = np.full((10, 5), np.nan, np.float32)
    return dumps.zarr_array(tmp_path / "bare.zarr", data, chunks=(10, 5))


@pytest.fixture
def empty(tmp_path):
    return dumps.zarr_array(tmp_path / "empty.zarr", dumps.logits(rows=0), chunks=(10, 5))


@pytest.fixture
def job(source, tmp_path):
    return prepare(ScoreConfig(source={"path": str(source)}, output={"path": str(tmp_path / "out.zarr")}, threads=2))


def in_json(facts):
    """Back from strict JSON: no NaN, no infinity."""
    return json.loads(json.dumps(facts, allow_nan=False))


def test_the_summary_of_a_run_names_what_it_came_to(source, tmp_path):
    text = text_of_run(score(source, tmp_path / "out.zarr"))

    for part in ("103 of 5 classes", "0 rows with NaN", "accuracy", "nll", "GB/s", str(tmp_path / "out.zarr")):
        assert part in text


def test_the_summary_is_a_table(source, tmp_path):
    text = text_of_run(score(source, tmp_path / "out.zarr"))

    starts = {len(line) - len(line[11:].lstrip()) for line in text.splitlines()}
    names = [line.split("  ")[0] for line in text.splitlines()]
    assert len(starts) == 1
    assert names == [
        "rows",
        "undecidable",
        "confidence",
        "entropy",
        "accuracy",
        "nll",
        "top labels",
        "time",
        "output",
    ]


def test_the_manifest_keeps_rates_and_shares_of_time(source, tmp_path):
    result = score(source, tmp_path / "out.zarr")

    (manifest,) = (tmp_path / "out.zarr.job" / "runs").iterdir()
    kept = json.loads(manifest.read_text())["result"]
    scoring_s = result.seconds - result.compile_s
    assert kept["rows_per_s"] == pytest.approx(103 / scoring_s)
    assert kept["gb_per_s"] == pytest.approx(103 * 5 * 4 / scoring_s / 1e9)
    assert kept["read_share"] + kept["kernel_share"] + kept["write_share"] == pytest.approx(1)
    assert min(kept["read_share"], kept["kernel_share"], kept["write_share"]) > 0


def test_without_targets_the_summary_has_no_accuracy(bare, tmp_path):
    text = text_of_run(score(bare, tmp_path / "out.zarr"))

    assert "accuracy" not in text
    assert "nll" not in text


def test_figures_that_are_not_defined_are_none(bare, tmp_path):
    text = text_of_run(score(bare, tmp_path / "out.zarr"))

    assert "none mean" in text
    assert "nan" not in text.lower().replace("rows with nan", "")


def test_top_labels_have_names_and_shares(source, tmp_path):
    data = dumps.logits()
    counts = np.bincount(data.argmax(axis=1))

    text = text_of_run(score(source, tmp_path / "out.zarr"))

    assert f"class {counts.argmax()} {counts.max() / 103:.1%}" in text


def test_a_count_that_may_be_larger_is_marked(source, tmp_path):
    exact = score(source, tmp_path / "out.zarr")
    cut = dataclasses.replace(exact.tally, lower_bounds=frozenset(exact.tally.labels))

    text = text_of_run(dataclasses.replace(exact, tally=cut))

    assert "at least" not in text_of_run(exact)
    assert text.count("at least") == 5


@pytest.mark.parametrize("dump", ["source", "bare", "empty"])
def test_the_figures_of_a_run_are_strict_json(dump, request, tmp_path):
    result = score(request.getfixturevalue(dump), tmp_path / "out.zarr")

    facts = result.facts()

    assert in_json(facts) == facts


@pytest.mark.parametrize("dump", ["source", "bare", "empty"])
def test_a_run_of_anything_has_a_summary(dump, request, tmp_path):
    text = text_of_run(score(request.getfixturevalue(dump), tmp_path / "out.parquet"))

    assert str(tmp_path / "out.parquet") in text


def test_the_figures_of_a_plan_are_strict_json(job):
    facts = facts_of_plan(job)

    assert in_json(facts) == facts
    assert facts["partitions"] == job.plan.count
    assert facts["columns"] == ["label", "label_name", "confidence", "nll", "correct"]


def test_the_text_of_a_plan_names_partitions_memory_and_threads(job):
    text = text_of_plan(job)

    assert f"{job.plan.count:,} of {job.plan.partition_rows:,} rows" in text
    assert size(job.plan.peak_bytes) in text
    assert "already" not in text


def test_the_text_of_a_plan_says_when_the_output_is_there(source, tmp_path):
    score(source, tmp_path / "out.zarr")
    job = prepare(ScoreConfig(source={"path": str(source)}, output={"path": str(tmp_path / "out.zarr")}))

    assert "is there already: goes on with it; --replace would swap it" in text_of_plan(job)


def test_the_figures_of_a_source_are_strict_json(source):
    facts = facts_of_source(open_source(SourceRequest(str(source))).facts)

    assert in_json(facts) == facts
    assert (facts["rows"], facts["classes"], facts["dtype"]) == (103, 5, "float32")
    assert (facts["id"], facts["target"]) == ("id", "target")


def test_the_text_of_a_source_says_what_it_holds(source):
    text = text_of_source(open_source(SourceRequest(str(source))).facts)

    for part in ("103 rows x 5 classes, float32", "chunks of 10 x 5", "class 0, class 1", "zarr, logits"):
        assert part in text


def test_many_class_names_are_shortened(tmp_path):
    path = dumps.zarr_group(tmp_path / "in.zarr", dumps.logits(classes=40), chunks=(10, 40))

    text = text_of_source(open_source(SourceRequest(str(path))).facts)

    assert "class 4, ... (40)" in text
    assert "class 5" not in text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1 << 20, "1.0 MiB"),
        (5 << 30, "5.0 GiB"),
        (1 << 40, "1.0 TiB"),
        (1 << 52, "4096.0 TiB"),  # there is no larger unit
    ],
)
def test_sizes_are_as_people_read_them(count, text):
    assert size(count) == text


GOOD = SourceFacts(
    path="/in.zarr",
    format="zarr",
    name="logits",
    rows=1_000_000,
    classes=1000,
    dtype=np.dtype(np.float32),
    read_rows=2000,
    read_overhead_bytes=0,
    stored_bytes=4_000_000_000,
    codec="blosc, checksum",
    layout="chunks of 2000 x 1000",
    class_names=None,
    carried=(),
    target_name=None,
    chunk_rows=2000,
    has_checksum=True,
    row_kind="array",
)
"""Chunks of 8 MB with a checksum each."""
PARQUET = {"format": "parquet", "row_kind": "fixed lists", "has_checksum": None}


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"chunk_rows": 250},
        {"chunk_rows": 16_000},
        {"rows": 10, "chunk_rows": 10},
        {"rows": 10, "chunk_rows": 2000},
        {"rows": 0},
        {"chunk_rows": 1, "classes": 20_000_000},
        {"format": "npy", "has_checksum": False, "chunk_rows": 1},
        PARQUET,
    ],
    ids=["8 MB", "1 MB", "64 MB", "a small dump", "less than a chunk", "no rows", "a long row", "npy", "parquet"],
)
def test_a_good_layout_is_good_as_it_is(changed):
    facts = dataclasses.replace(GOOD, **changed)

    assert advice(facts) == ()
    assert "good as it is" in text_of_source(facts)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"class_chunks": 4}, ("in 4 chunks", "rechunk to whole rows, (2,000, 1,000)")),
        ({"format": "npy", "class_chunks": 1000, "chunk_rows": 1}, ("C order", "class axis last")),
        ({"chunk_rows": 100_000}, ("chunks of 400 MB", "chunks of 2,000 rows")),
        ({"class_chunks": 4, "row_shape": (-1, 500)}, ("rechunk to whole rows, (4, 500, 1,000)",)),
        ({"chunk_rows": 100_000, "row_shape": (-1, 500)}, ("chunks of 400 MB", "chunks of 4 x 500 x 1,000, about")),
        ({"row_chunks": 3, "row_shape": (-1, 500)}, ("in 3 chunks, which one core", "write chunks of 4 x 500 x 1,000")),
        ({"chunk_rows": 100_000, "row_shape": (-1, 5000)}, ("write it as (rows, classes), in chunks of 2,000 rows",)),
        ({"chunk_rows": 10}, ("chunks of 0.04 MB", "chunks of 2,000 rows")),
        ({"has_checksum": False}, ("no checksum", "crc32c")),
        ({"dtype": np.dtype(np.float64)}, ("float64", "float32", "float16")),
        (PARQUET | {"chunk_rows": 1_000_000}, ("row groups of 4,000 MB", "row groups of 2,000 rows")),
        (PARQUET | {"has_checksum": False}, ("no checksum", "write_page_checksum=True")),
        (PARQUET | {"row_kind": "lists"}, ("fixed-size lists",)),
        (PARQUET | {"row_kind": "columns"}, ("one column of fixed-size lists",)),
    ],
)
def test_a_bad_layout_comes_with_advice(changed, words):
    found = advice(dataclasses.replace(GOOD, **changed))

    assert len(found) == 1
    assert all(word in found[0] for word in words)


def test_every_fault_of_a_layout_has_its_own_line():
    text = text_of_source(dataclasses.replace(GOOD, chunk_rows=10, has_checksum=False, dtype=np.dtype(np.float64)))

    assert [line.split()[0] for line in text.splitlines()].count("re-layout") == 3


def test_of_a_layout_that_is_not_known_nothing_is_promised():
    text = text_of_source(dataclasses.replace(GOOD, chunk_rows=None))

    assert "good" not in text
    assert "nothing known against it" in text


def test_an_inspection_says_what_score_would_do(job):
    text = text_of_source(job.facts, job)

    assert "label, label_name, confidence, nll, correct, by default" in text
    assert f"{job.plan.count} of {job.plan.partition_rows} rows, on 2 threads" in text
    assert f"{size(job.plan.bytes_out)} before compression" in text


def test_an_inspection_says_why_score_would_refuse(job):
    text = text_of_source(job.facts, refusal="memory_limit is 1 MiB")

    assert "would refuse it: memory_limit is 1 MiB" in text
    assert "partitions" not in text


def test_the_figures_of_an_inspection_are_strict_json(job):
    facts = facts_of_inspection(job.facts, job)

    assert in_json(facts) == facts
    assert facts["score"]["columns"] == list(job.spec.columns)
    assert facts["advice"] == list(advice(job.facts))
