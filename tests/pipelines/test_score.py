"""Whole runs from Python: what comes out, and what stays when one fails or is killed."""

import json
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from numpy.typing import NDArray

from softmax_dask import COLUMNS, SingleClassWarning, decisions
from softmax_dask_pipelines import ScoreConfig, run, score
from softmax_dask_pipelines.errors import CorruptChunkError, InterruptedRunError, OutputExistsError
from softmax_dask_pipelines.job import prepare
from softmax_dask_pipelines.plan import PROCESS_BYTES
from softmax_dask_pipelines.scoring import execute
from tests.pipelines import dumps
from tests.pipelines.command import tree

OF_A_DUMP = tuple(name for name in COLUMNS if COLUMNS[name].needs not in ("threshold", "level"))
COMPUTED = tuple(name for name in OF_A_DUMP if name != "label_name")
WITHOUT_TARGETS = tuple(name for name in COMPUTED if COLUMNS[name].needs == "nothing")
FORMATS = ("zarr", "parquet")


@pytest.fixture(autouse=True)
def small_plan(monkeypatch):
    """Reads, chunks and partitions of some ten rows: what a dump of millions of rows would have of thousands."""
    monkeypatch.setattr("softmax_dask_pipelines.sources.blocks.READ_BYTES", 240)
    monkeypatch.setattr("softmax_dask_pipelines.plan.CHUNK_BYTES", 240)
    monkeypatch.setattr("softmax_dask_pipelines.plan.PARTITION_BYTES", 2400)


@pytest.fixture(params=FORMATS)
def output(request, tmp_path):
    return tmp_path / f"out.{request.param}"


@pytest.fixture
def data():
    """Logits of which some rows are undecidable and some classes masked."""
    made = dumps.logits()
    made[[7, 50], 2] = np.nan, np.inf
    made[60] = -np.inf
    made[::9, 1] = -np.inf
    return made


@pytest.fixture
def source(tmp_path, data):
    """A Zarr dump with ids, targets and class names."""
    return dumps.zarr_group(tmp_path / "in.zarr", data, chunks=(10, 5))


def write_dump(path: Path, data: NDArray[Any], source_format: str) -> Path:
    if source_format == "zarr":
        return dumps.zarr_array(path / "in.zarr", data, chunks=(10, data.shape[1]))
    table = pa.table({"logits": dumps.fixed_lists(data)})
    return dumps.parquet_file(path / "in.parquet", table, row_group_size=10)


def columns_of(output: Path) -> dict[str, NDArray[Any]]:
    """The computed columns of an output; -1 where Parquet has null."""
    if output.suffix == ".zarr":
        group = zarr.open_group(output, mode="r")
        return {name: group[name][...] for name in COMPUTED if name in group}
    table = pq.read_table(output).combine_chunks()
    return {name: parquet_column(table[name]) for name in COMPUTED if name in table.column_names}


def parquet_column(column: pa.ChunkedArray) -> NDArray[Any]:
    array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if pa.types.is_fixed_size_list(array.type):
        return array.flatten().to_numpy().reshape(-1, array.type.list_size)
    if pa.types.is_boolean(array.type):
        return array.cast(pa.int8()).fill_null(-1).to_numpy()
    return array.to_numpy()


def differing(found: dict[str, NDArray[Any]], expected: dict[str, NDArray[Any]]) -> list[str]:
    """Names of the columns that are not equal; NaN equals NaN."""
    assert found.keys() == expected.keys()
    return [name for name in found if not np.array_equal(found[name], expected[name], equal_nan=True)]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def left_in(folder: Path) -> set[str]:
    """Names of what is there, but for records of runs."""
    return {Path(path).relative_to(folder).parts[0] for path in tree(folder)}


def cut_short(source: Path, row: int) -> None:
    """Truncate the chunk of 10 rows that holds `row`."""
    chunk = source / "logits" / "c" / str(row // 10) / "0"
    chunk.write_bytes(chunk.read_bytes()[:-9])


def cut_all_short(source: Path) -> None:
    for row in range(0, 103, 10):
        cut_short(source, row)


def test_results_are_those_of_the_library_on_the_whole_array(source, data, output):
    score(source, output, columns=COMPUTED, top_k=3, temperature=1.7)

    expected = decisions(data, COMPUTED, top_k=3, targets=dumps.targets(), temperature=1.7)
    assert differing(columns_of(output), expected) == []


@pytest.mark.parametrize("source_format", FORMATS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int16", "int32", "uint8"])
def test_every_dtype_is_scored_as_by_the_library(tmp_path, output, source_format, dtype):
    data = np.abs(dumps.logits(rows=33)).astype(dtype)

    score(write_dump(tmp_path, data, source_format), output, columns=WITHOUT_TARGETS)

    expected = decisions(data, WITHOUT_TARGETS)
    found = columns_of(output)
    assert differing(found, expected) == []
    assert {name: found[name].dtype for name in found} == {name: expected[name].dtype for name in expected}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtype_is_that_of_the_wide_columns(source, data, output, dtype):
    score(source, output, columns=WITHOUT_TARGETS, dtype=dtype)

    found = columns_of(output)
    assert differing(found, decisions(data, WITHOUT_TARGETS, dtype=np.dtype(dtype))) == []
    assert found["probabilities"].dtype == found["log_probabilities"].dtype == np.dtype(dtype)


@pytest.mark.parametrize(
    ("threads", "partition_bytes", "chunk_bytes"),
    [(1, 1, 1), (2, 1, 160), (5, 500, 1), (2, 500, 160), (1, 1 << 20, 160), (5, 1 << 20, 1 << 20)],
)
def test_the_cut_of_a_run_changes_no_bit(source, data, output, monkeypatch, threads, partition_bytes, chunk_bytes):
    monkeypatch.setattr("softmax_dask_pipelines.plan.PARTITION_BYTES", partition_bytes)
    monkeypatch.setattr("softmax_dask_pipelines.plan.CHUNK_BYTES", chunk_bytes)

    score(source, output, columns=COMPUTED, top_k=3, threads=threads)

    assert differing(columns_of(output), decisions(data, COMPUTED, top_k=3, targets=dumps.targets())) == []


def test_a_memory_limit_that_is_just_enough_changes_no_bit(source, data, output):
    ample = score(source, output, columns=COMPUTED, top_k=3, threads=4).job.plan
    tight = score(source, output, columns=COMPUTED, top_k=3, threads=4, memory_limit=ample.peak_bytes - 1, replace=True)

    assert tight.job.plan.threads < ample.threads or tight.job.plan.partition_rows < ample.partition_rows
    assert PROCESS_BYTES < tight.job.plan.peak_bytes < ample.peak_bytes
    assert differing(columns_of(output), decisions(data, COMPUTED, top_k=3, targets=dumps.targets())) == []


@pytest.mark.parametrize("threads", [1, 4])
def test_the_figures_of_a_run_are_those_of_the_whole_array(source, data, output, threads):
    facts = score(source, output, threads=threads).facts()

    truth = decisions(data, ("label", "confidence", "entropy", "nll", "correct"), targets=dumps.targets())
    decided, labelled = truth["label"] >= 0, truth["correct"] >= 0
    assert (facts["rows"], facts["undecidable_rows"]) == (103, 3)
    assert facts["labelled_rows"] == np.count_nonzero(labelled)
    assert facts["accuracy"] == np.mean(truth["correct"][labelled] == 1)
    # Each row is rounded to a multiple of 2^-32 before it is added.
    assert facts["mean_confidence"] == pytest.approx(truth["confidence"][decided].mean(dtype="f8"), abs=2.0**-33)
    assert facts["mean_entropy"] == pytest.approx(truth["entropy"][decided].mean(dtype="f8"), abs=2.0**-33)
    assert facts["mean_nll"] == pytest.approx(truth["nll"][labelled].mean(dtype="f8"), abs=2.0**-33)
    assert facts["top_labels"][0]["rows"] == np.bincount(truth["label"][decided]).max()


def test_ids_targets_and_names_are_carried(source, data, output):
    score(source, output)

    if output.suffix == ".zarr":
        group = zarr.open_group(output, mode="r")
        ids, targets = list(group["id"][...]), group["target"][...].tolist()
        names = [name or None for name in group["label_name"][...]]
    else:
        table = pq.read_table(output)
        ids, names = table["id"].to_pylist(), table["label_name"].to_pylist()
        targets = [-1 if target is None else target for target in table["target"].to_pylist()]
    labels = decisions(data, ("label",))["label"]
    assert ids == dumps.ids()
    assert targets == dumps.targets().tolist()
    assert names == [f"class {label}" if label >= 0 else None for label in labels]


def test_two_runs_of_one_plan_write_the_same_bytes(source, tmp_path, output):
    other = tmp_path / f"again{output.suffix}"

    score(source, output, columns=OF_A_DUMP, top_k=3, threads=2)
    score(source, other, columns=OF_A_DUMP, top_k=3, threads=2)

    assert files_of(output) == files_of(other)


def test_replacing_by_the_same_run_changes_no_byte(source, output):
    score(source, output, columns=OF_A_DUMP, top_k=3, threads=2)
    before = files_of(output)

    score(source, output, columns=OF_A_DUMP, top_k=3, threads=2, replace=True)

    assert files_of(output) == before


def test_a_run_leaves_the_source_as_it_was(source, output):
    before = files_of(source), sorted((path.name, path.stat().st_mtime_ns) for path in source.rglob("*"))

    score(source, output)

    assert (files_of(source), sorted((path.name, path.stat().st_mtime_ns) for path in source.rglob("*"))) == before


def test_a_run_leaves_the_output_and_the_record_of_the_run(source, tmp_path, output):
    score(source, output)

    job = tmp_path / f"{output.name}.job"
    assert names_in(tmp_path) == {"in.zarr", output.name, job.name}
    assert sorted(name.partition("-")[0] for name in names_in(job)) == ["commit", "journal", "metrics", "runs"]
    assert len(names_in(job / "runs")) == 1


def test_the_manifest_records_config_versions_seconds_and_bytes(source, tmp_path, output):
    result = score(source, output, temperature=1.25)

    (path,) = (tmp_path / f"{output.name}.job" / "runs").iterdir()
    manifest = json.loads(path.read_text())
    assert manifest["config"]["temperature"] == 1.25
    assert manifest["config"]["source"]["path"] == str(source)
    assert manifest["result"] == result.record()
    assert manifest["versions"].keys() >= {"softmax-dask", "numpy", "numba", "zarr", "pyarrow", "dask"}
    assert manifest["started"].endswith("+00:00")


def test_bytes_written_are_those_of_the_files(source, output):
    result = score(source, output)

    chunks = [text for name, text in files_of(output).items() if not name.endswith("zarr.json")]
    # The class names are written before any partition.
    names = sum(len(text) for name, text in files_of(output).items() if name.startswith("class/c"))
    assert result.bytes_written == sum(map(len, chunks)) - names


def test_each_run_has_a_record_of_its_own(source, tmp_path, output):
    score(source, output)
    score(source, output, replace=True)

    assert len(names_in(tmp_path / f"{output.name}.job" / "runs")) == 2


def test_an_output_that_is_there_is_refused(source, output):
    score(source, output)
    before = files_of(output)

    with pytest.raises(OutputExistsError):
        score(source, output, temperature=3.0)

    assert files_of(output) == before


def test_replace_swaps_the_old_output_for_the_new_one(source, data, output):
    score(source, output, columns=("label", "confidence"))

    score(source, output, columns=("margin",), temperature=3.0, replace=True)

    assert differing(columns_of(output), decisions(data, ("margin",), temperature=3.0)) == []


@pytest.mark.parametrize("replace", [False, True])
def test_a_corrupt_chunk_leaves_nothing_where_nothing_is_done(source, tmp_path, output, replace):
    cut_all_short(source)

    with pytest.raises(CorruptChunkError):
        score(source, output, columns=COMPUTED, top_k=3, replace=replace)

    assert left_in(tmp_path) == {"in.zarr"}


def test_a_corrupt_chunk_leaves_the_old_output_when_it_was_to_be_replaced(source, tmp_path, output):
    score(source, output)
    cut_all_short(source)
    before = files_of(output), tree(tmp_path)

    with pytest.raises(CorruptChunkError):
        score(source, output, columns=COMPUTED, top_k=3, replace=True)

    assert (files_of(output), tree(tmp_path)) == before


@pytest.mark.parametrize("error", [OSError("the disk is on fire"), ZeroDivisionError("a bug"), MemoryError()])
def test_any_error_of_a_writer_leaves_nothing(source, tmp_path, output, monkeypatch, error):
    writer = "zarr.ZarrPartitionWriter" if output.suffix == ".zarr" else "parquet.ParquetPartitionWriter"

    def fail(self):
        raise error

    monkeypatch.setattr(f"softmax_dask_pipelines.sinks.{writer}.close", fail)

    with pytest.raises(type(error)):
        score(source, output)

    assert left_in(tmp_path) == {"in.zarr"}


def test_ctrl_c_before_anything_is_done_leaves_nothing_and_says_so(source, tmp_path, output, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("softmax_dask_pipelines.scoring.run_on_threads", interrupt)

    with pytest.raises(InterruptedRunError, match="no output was published"):
        score(source, output)

    assert left_in(tmp_path) == {"in.zarr"}


def test_a_failed_run_can_be_run_again(source, data, output):
    chunk = source / "logits" / "c" / "10" / "0"
    whole = chunk.read_bytes()
    cut_short(source, 100)
    with pytest.raises(CorruptChunkError):
        score(source, output, columns=("confidence",))
    chunk.write_bytes(whole)

    score(source, output, columns=("confidence",))

    assert differing(columns_of(output), decisions(data, ("confidence",))) == []


@pytest.mark.parametrize("source_format", FORMATS)
def test_no_rows_give_an_output_with_its_schema(tmp_path, output, source_format):
    facts = score(write_dump(tmp_path, dumps.logits(rows=0), source_format), output, columns=WITHOUT_TARGETS).facts()

    found = columns_of(output)
    assert {name: (values.shape[0], values.dtype) for name, values in found.items()} == {
        name: (0, values.dtype) for name, values in decisions(dumps.logits(rows=0), WITHOUT_TARGETS).items()
    }
    assert (facts["rows"], facts["mean_confidence"], facts["top_labels"]) == (0, None, [])


@pytest.mark.parametrize("source_format", FORMATS)
@pytest.mark.parametrize("rows", [1, 2, 13])
def test_few_rows_are_scored(tmp_path, output, source_format, rows):
    data = dumps.logits(rows=rows)

    score(write_dump(tmp_path, data, source_format), output, columns=WITHOUT_TARGETS, threads=8)

    assert differing(columns_of(output), decisions(data, WITHOUT_TARGETS)) == []


def test_one_class_is_scored_with_one_warning(tmp_path, output):
    source = write_dump(tmp_path, dumps.logits(classes=1), "zarr")

    with pytest.warns(SingleClassWarning, match="Did you mean a sigmoid") as caught:
        score(source, output)

    assert len(caught) == 1
    assert np.all(columns_of(output)["confidence"] == 1)


def test_a_config_object_is_run(source, data, output):
    config = ScoreConfig(source={"path": str(source)}, output={"path": str(output)}, columns=("entropy",))

    run(config)

    assert differing(columns_of(output), decisions(data, ("entropy",))) == []


def test_a_config_file_is_run_with_overrides(source, data, tmp_path, output):
    file = tmp_path / "score.yaml"
    file.write_text(f"source:\n  path: {source}\noutput:\n  path: elsewhere.zarr\ncolumns: [entropy]\n")

    run(file, overrides=[f"output.path={output}", "temperature=2.5"])

    assert differing(columns_of(output), decisions(data, ("entropy",), temperature=2.5)) == []


def test_the_callback_gets_each_receipt_once(source, output):
    job = prepare(ScoreConfig(source={"path": str(source)}, output={"path": str(output)}))
    receipts = []

    execute(job, on_receipt=receipts.append)

    assert sorted(receipt.partition for receipt in receipts) == list(range(job.plan.count))
    assert job.plan.count > 3
    assert sum(receipt.tally.rows for receipt in receipts) == 103


KILLED = """
import os, signal, sys
from softmax_dask_pipelines import plan, score, scoring, storage
from softmax_dask_pipelines.sources import blocks
blocks.READ_BYTES = plan.CHUNK_BYTES = 240
plan.PARTITION_BYTES = 500
source, output, at, replace = sys.argv[1:]

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def die_at_the_root(path, parts, begin=storage.begin, **options):
    return die() if path.name == "zarr.json" and path.parent.name.startswith("stage") else begin(path, parts, **options)

if at == "the first receipt":
    run = scoring.run_on_threads
    scoring.run_on_threads = lambda *args, take, **options: run(*args, take=die, **options)
elif at == "the last document":
    storage.begin = die_at_the_root
elif at == "the last rename":
    storage.rename = storage.exchange = die
score(source, output, columns=("label", "confidence", "probabilities"), replace=replace == "replace")
"""
"""Scores in small partitions, and is killed at one of several moments."""


def kill_a_run(source: Path, output: Path, *, at: str, replace: bool = False) -> None:
    line = [sys.executable, "-c", KILLED, str(source), str(output), at, "replace" if replace else ""]
    process = subprocess.run(line, capture_output=True, text=True, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr


def require_nothing_open(job: Path) -> None:
    """No plan, no stage, no scratch."""
    assert {name.partition("-")[0] for name in names_in(job)} <= {"commit", "journal", "metrics", "runs"}
    assert len(list(job.glob("commit-*"))) == len(list(job.glob("journal-*"))) == 1


def require_nothing_to_open(output: Path) -> None:
    with pytest.raises(FileNotFoundError):
        zarr.open_group(output, mode="r")
    with pytest.raises((FileNotFoundError, pa.ArrowInvalid)):
        pq.read_table(output)


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        ("out.zarr", "the first receipt"),
        ("out.zarr", "the last document"),
        ("out.parquet", "the first receipt"),
        ("out.parquet", "the last rename"),
    ],
)
def test_a_killed_run_leaves_nothing_to_open_and_the_next_one_succeeds(source, data, tmp_path, name, moment):
    output = tmp_path / name

    kill_a_run(source, output, at=moment)

    require_nothing_to_open(output)
    score(source, output, columns=("label", "confidence", "probabilities"))
    assert differing(columns_of(output), decisions(data, ("label", "confidence", "probabilities"))) == []
    require_nothing_open(tmp_path / f"{name}.job")


@pytest.mark.parametrize(
    ("name", "moment"),
    [("out.zarr", "the last document"), ("out.zarr", "the last rename"), ("out.parquet", "the last rename")],
)
def test_a_replacement_that_is_killed_leaves_the_old_output(source, data, tmp_path, name, moment):
    output = tmp_path / name
    score(source, output, columns=("margin",))
    before = files_of(output)

    kill_a_run(source, output, at=moment, replace=True)

    assert files_of(output) == before
    score(source, output, columns=("entropy",), replace=True)
    assert differing(columns_of(output), decisions(data, ("entropy",))) == []
    require_nothing_open(tmp_path / f"{name}.job")


def test_a_run_warns_of_nothing(source, output):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        score(source, output)

    assert caught == []
