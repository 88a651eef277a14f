"""`evaluate`: figures of dumps and of scored outputs, the same bits however the rows were cut, stopped or added."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from softmax_dask import evaluate as of_array
from softmax_dask import metrics_document
from softmax_dask_pipelines import evaluate, plan, scoring
from softmax_dask_pipelines.config import ScoreConfig
from softmax_dask_pipelines.errors import ConfigError, InterruptedRunError, OutputExistsError, StorageFailedError
from softmax_dask_pipelines.job import prepare
from softmax_dask_pipelines.ledger.history import History
from softmax_dask_pipelines.ledger.sidecars import metrics_of_commit
from softmax_dask_pipelines.sources import blocks
from tests.pipelines import dumps
from tests.pipelines.command import softmax_dask

USAGE, BAD_DATA, EXISTS = 2, 3, 4
DATA = os.environ.get("SOFTMAX_DASK_TEST_DATA")
LOGITS = dumps.logits()
TARGETS = dumps.targets(*LOGITS.shape)


@pytest.fixture
def source(tmp_path):
    return dumps.zarr_group(tmp_path / "in.zarr", LOGITS, chunks=(10, 5))


@pytest.fixture(params=["out.zarr", "out.parquet"])
def output(request, tmp_path):
    return tmp_path / request.param


def figures_of(document: dict[str, Any]) -> dict[str, Any]:
    """All but what tells where the rows are from."""
    return {key: value for key, value in document.items() if key not in ("about", "class_names", "date")}


def expected(rows: int = len(LOGITS)) -> dict[str, Any]:
    return figures_of(metrics_document(of_array(LOGITS[:rows], TARGETS[:rows])))


def score(source: Path, output: Path, *, stop_after: int | None = None, **options: Any) -> None:
    config = ScoreConfig(source={"path": str(source)}, output={"path": str(output)}, threads=2, **options)
    receipts = []

    def count(receipt: Any) -> None:
        receipts.append(receipt)
        if len(receipts) == stop_after:
            raise KeyboardInterrupt

    scoring.execute(prepare(config), on_receipt=count)


def stopped(source: Path, output: Path, *, after: int) -> None:
    with pytest.raises(InterruptedRunError):
        score(source, output, stop_after=after)


def grow(path: Path, rows: int) -> None:
    """Add rows to a dump, until it has so many."""
    group = zarr.open_group(path, mode="a")
    for name, values in (("logits", LOGITS), ("target", TARGETS)):
        if name not in group:
            chunks = (10, 5)[: values.ndim]
            group.create_array(name, shape=(0, *values.shape[1:]), chunks=chunks, dtype=values.dtype)
        group[name].append(values[group[name].shape[0] : rows])


def counts_of_a_partition_that_is_done(output: Path) -> Path:
    job = Path(f"{output}.job")
    journal, counts = next(job.glob("journal-*")), next(job.glob("counts-*"))
    last = json.loads(journal.read_text().splitlines()[-1][9:])
    return counts / last["metrics"][0]


def job_names(output: Path) -> set[str]:
    return {path.name.partition("-")[0] for path in Path(f"{output}.job").iterdir()}


# ---- dumps


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_a_dump_has_the_figures_of_its_array_whatever_the_partitions(source, monkeypatch, rows):
    row_bytes = LOGITS.shape[1] * 4
    monkeypatch.setattr(blocks, "READ_BYTES", rows * row_bytes)
    monkeypatch.setattr(plan, "CHUNK_BYTES", rows * row_bytes)
    monkeypatch.setattr(plan, "PARTITION_BYTES", rows * 2 * row_bytes)

    found = evaluate(source, threads=2)

    assert figures_of(found.document) == expected()
    assert found.document["class_names"] == [f"class {k}" for k in range(5)]


def test_parquet_and_npy_have_the_same_figures(tmp_path):
    table = {"logits": dumps.fixed_lists(LOGITS)}
    file = dumps.parquet_file(tmp_path / "in.parquet", dumps.pa.table({**table, "target": TARGETS}))
    np.save(tmp_path / "in.npy", LOGITS)

    of_parquet, of_npy = evaluate(file), evaluate(tmp_path / "in.npy")

    assert figures_of(of_parquet.document) == expected()
    assert figures_of(of_npy.document) == figures_of(metrics_document(of_array(LOGITS)))


def test_the_document_is_written_and_replaced_and_printed(source, tmp_path):
    path = tmp_path / "new" / "metrics.json"
    first = softmax_dask("evaluate", source, "-o", path, "--temperature", 2, "--quiet")

    again = softmax_dask("evaluate", source, "-o", path, "--json")

    assert (first.code, again.code) == (0, 0), again.err
    assert figures_of(json.loads(path.read_text())) == expected() == figures_of(json.loads(again.out))


def test_the_table_says_what_people_look_for(source):
    found = softmax_dask("evaluate", source)

    figures = expected()["figures"]
    assert f"accuracy       {figures['accuracy']:.6g}" in found.out
    assert f"ece            {figures['ece']:.6g}" in found.out
    assert "18 have no target" in found.out
    assert "class 0" in found.out


def test_an_infinite_nll_is_said(tmp_path):
    logits = LOGITS.copy()
    logits[1, 0] = -np.inf  # its target is class 0
    source = dumps.zarr_group(tmp_path / "in.zarr", logits, chunks=(10, 5))

    found = softmax_dask("evaluate", source)

    assert "nll            infinite: 1 rows have a target of probability 0; " in found.out


def test_a_dump_without_targets_has_the_other_figures(tmp_path):
    source = dumps.zarr_array(tmp_path / "in.zarr", LOGITS, chunks=(10, 5))

    found = softmax_dask("evaluate", source)

    assert found.code == 0, found.err
    assert " 0 rows, 103 have no target" in found.out
    assert "accuracy" not in found.out


def test_a_plan_reads_nothing(source):
    found = softmax_dask("evaluate", source, "--dry-run")

    assert found.code == 0
    assert "103 rows x 5 classes" in found.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("-o", "x.txt"), USAGE, "is 'x.txt'; expected a path that ends in .json."),
        (("--target", "foo"), USAGE, "no array 'foo'"),
        (("--temperature", "-1"), USAGE, "--temperature: is '-1'"),
        (("--memory-limit", "1MB"), BAD_DATA, "memory_limit is"),
        (("-o", "taken.json"), EXISTS, "is there already, and holds no metrics"),
        (("-o", "in.zarr/metrics.json"), USAGE, "is or lies inside the source"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(source, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    Path("taken.json").write_text("{}")
    before = sorted(map(str, tmp_path.rglob("*")))

    outcome = softmax_dask("evaluate", source, *arguments)

    assert outcome.code == code, outcome.err
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert sorted(map(str, tmp_path.rglob("*"))) == before
    assert Path("taken.json").read_text() == "{}"


PUBLISHED = {
    "verifiedcal_vgg16_cifar10": (0.9359, 0.2570648, 0.0397801, 0.1054459),
    "netcal_densenet_bc100_cifar100": (0.7541, 1.2256269, 0.1421528, 0.3845042),
    "magika214": (0.8917060, 0.7225360, 0.0475633, 0.1683642),
}
"""Accuracy, NLL, ECE and Brier score of real dumps, as the README beside them has them."""


@pytest.mark.skipif(DATA is None, reason="SOFTMAX_DASK_TEST_DATA does not say where the real dumps are")
@pytest.mark.parametrize(
    ("rows", "format"),
    [(1000, "zarr"), (1000, "parquet"), (10_000, "zarr"), pytest.param(7, "zarr", marks=pytest.mark.long)],
)
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures_of_real_dumps_come_out_of_the_command(tmp_path, monkeypatch, name, rows, format):
    with np.load(Path(str(DATA), f"{name}.npz")) as arrays:
        logits = arrays["logits"] if "logits" in arrays else np.log(arrays["probs"])
        targets = arrays["labels"].astype("int32")
    if format == "zarr":
        source = dumps.zarr_group(tmp_path / "in.zarr", logits, chunks=(rows, logits.shape[1]), carried=False)
        zarr.open_group(source).create_array("target", data=targets, chunks=(1000,))
    else:
        columns = {"logits": dumps.fixed_lists(logits), "target": dumps.pa.array(targets, mask=targets < 0)}
        source = dumps.parquet_file(tmp_path / "in.parquet", dumps.pa.table(columns), row_group_size=rows)
    monkeypatch.setattr(plan, "PARTITION_BYTES", rows * logits.shape[1] * logits.itemsize)

    outcome = softmax_dask("evaluate", source, "--json")

    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)["figures"]
    accuracy, nll, ece, brier = PUBLISHED[name]
    assert round(found["accuracy"], 7) == accuracy
    assert (found["nll"], found["brier"]) == pytest.approx((nll, brier), abs=2e-6)
    assert found["ece"] == pytest.approx(ece, abs=1e-6)


# ---- scored outputs


@pytest.mark.usefixtures("small_plan")
def test_a_scored_output_has_the_figures_of_its_source_and_reads_no_logits(source, output):
    score(source, output)
    shutil.rmtree(source)

    found = evaluate(output)

    assert figures_of(found.document) == expected()
    assert found.bytes_in == 0
    assert job_names(output) == {"commit", "journal", "metrics", "runs"}


@pytest.mark.usefixtures("small_plan")
@pytest.mark.parametrize("after", [1, 5])
def test_a_run_that_was_stopped_counts_no_row_twice(source, output, after):
    stopped(source, output, after=after)

    score(source, output)

    assert figures_of(evaluate(output).document) == expected()


@pytest.mark.usefixtures("small_plan")
def test_a_partition_whose_counts_are_gone_is_scored_again(source, output):
    stopped(source, output, after=5)
    counts_of_a_partition_that_is_done(output).unlink()

    score(source, output)

    assert figures_of(evaluate(output).document) == expected()


@pytest.mark.usefixtures("small_plan")
def test_counts_that_are_damaged_are_found_and_scored_again(source, output):
    stopped(source, output, after=5)
    victim = counts_of_a_partition_that_is_done(output)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)

    with pytest.raises(StorageFailedError, match=r"is damaged; expected what partition \d+ has counted"):
        score(source, output)

    score(source, output)
    assert figures_of(evaluate(output).document) == expected()


@pytest.mark.usefixtures("small_plan")
@pytest.mark.parametrize("steps", [(57, 80, 103), (50, 60, 61, 103), (3, 5, 103)], ids=str)
def test_rows_that_are_added_are_counted_once(source, output, tmp_path, steps):
    growing = tmp_path / "growing.zarr"
    for rows in steps:
        grow(growing, rows)
        score(growing, output)

        assert figures_of(evaluate(output).document) == expected(rows)


def make_as_before(output: Path) -> None:
    """The sidecar of the last commit as older versions wrote it: JSON, a document in a document."""
    history = History.of(output)
    found = metrics_of_commit(history, history.latest)
    whole = None if found.whole is None else metrics_document(found.whole)
    path = history.path("metrics", history.latest.plan)
    path.with_suffix(".json").write_text(json.dumps(found.document() | {"whole_partitions": whole}))
    path.unlink()


@pytest.mark.usefixtures("small_plan")
def test_metrics_that_an_older_version_kept_as_json_are_read_and_added_to(output, tmp_path):
    growing = tmp_path / "growing.zarr"
    grow(growing, 57)
    score(growing, output)
    make_as_before(output)
    assert figures_of(evaluate(output).document) == expected(57)
    grow(growing, len(LOGITS))

    score(growing, output)

    assert figures_of(evaluate(output).document) == expected()
    assert len(list(Path(f"{output}.job").glob("metrics-*.bin"))) == 1


@pytest.mark.usefixtures("small_plan")
def test_a_replaced_output_has_its_own_figures_and_the_old_ones_are_gone(source, output):
    score(source, output, temperature=3.0)

    scoring.score(source, output, replace=True)

    assert figures_of(evaluate(output).document) == expected()
    assert len(list(Path(f"{output}.job").glob("metrics-*"))) == 1


def test_an_output_of_a_program_of_before_is_refused_with_the_remedy(source, output):
    score(source, output)
    for path in Path(f"{output}.job").glob("metrics-*"):
        path.unlink()

    with pytest.raises(ConfigError, match=r"kept no metrics.*Evaluate its source"):
        evaluate(output)


def test_a_damaged_sidecar_is_refused(source, output):
    score(source, output)
    for path in Path(f"{output}.job").glob("metrics-*"):
        path.write_text("{")

    with pytest.raises(OutputExistsError, match="holds no metrics that this program reads"):
        evaluate(output)


def test_a_sidecar_of_a_newer_version_is_refused(source, output):
    score(source, output)
    for path in Path(f"{output}.job").glob("metrics-*"):
        path.write_bytes(path.read_bytes().replace(b'"format": 2', b'"format": 3', 1))

    with pytest.raises(OutputExistsError, match="they are of format 3; expected 2"):
        evaluate(output)


def test_a_sidecar_that_was_left_half_written_is_removed(source, output):
    score(source, output)
    [sidecar] = Path(f"{output}.job").glob("metrics-*")
    half = sidecar.with_name(f"{sidecar.name}.0123abcd.tmp")
    half.write_bytes(sidecar.read_bytes()[:100])

    score(source, output)

    assert not half.exists()


@pytest.mark.parametrize("options", [{"temperature": 2.0}, {"target": "other"}], ids=str)
def test_a_scored_output_is_not_evaluated_as_it_was_not_scored(source, output, options):
    score(source, output)

    with pytest.raises(ConfigError, match=r"and .* was scored with .*evaluate the source"):
        evaluate(output, **options)
