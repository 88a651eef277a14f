"""Jacobians of a dump's rows: which rows, what stands in the output, and what a mistake leaves."""

import json
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
import zarr
from numpy.typing import NDArray
from scipy.special import softmax

from softmax_dask_pipelines import JacobianConfig, jacobian_job, jacobians, run, write_jacobian
from softmax_dask_pipelines.config import key_of, make_config
from softmax_dask_pipelines.errors import ConfigError, InterruptedRunError, MemoryBudgetError, OutputExistsError
from softmax_dask_pipelines.gathering import read_rows
from softmax_dask_pipelines.plan import PROCESS_BYTES
from softmax_dask_pipelines.selection import NUMBER_BYTES, Choice, chosen_rows
from softmax_dask_pipelines.sources import SourceRequest, open_source, parquet
from softmax_dask_pipelines.sources.npy import NpySource
from tests.pipelines import dumps
from tests.pipelines.command import softmax_dask, tree

ROWS, CLASSES = 103, 5


@pytest.fixture(autouse=True)
def small_plan(monkeypatch):
    """Reads of twelve rows: what a dump of millions of rows would have of thousands."""
    monkeypatch.setattr("softmax_dask_pipelines.sources.blocks.READ_BYTES", 240)


@pytest.fixture
def data():
    """Logits of spread 1, so that confidences differ, with undecidable rows and a masked class."""
    made = np.random.default_rng(3).normal(size=(ROWS, CLASSES)).astype("float32")
    made[[7, 50], 2] = np.nan, np.inf
    made[60] = -np.inf
    made[9, 1] = -np.inf
    return made


@pytest.fixture
def source(tmp_path, data):
    return dumps.zarr_group(tmp_path / "in.zarr", data, chunks=(10, CLASSES))


def exact(logits: NDArray[Any], temperature: float = 1.0) -> NDArray[np.float64]:
    """diag(s) - s s^T over T of each row, by its definition; NaN where undecidable."""
    with np.errstate(invalid="ignore"):
        s = softmax(logits.astype(np.float64) / temperature, axis=1)
    return (s[:, :, None] * np.eye(logits.shape[1]) - s[:, :, None] * s[:, None, :]) / temperature


def confidence(logits: NDArray[Any], temperature: float = 1.0) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return softmax(logits.astype(np.float64) / temperature, axis=1).max(axis=1)


# ---- which rows


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("20:45", range(20, 45)), ("95:", range(95, ROWS)), (":3", range(3)), ("0:103", range(ROWS)), ("4:4", range(0))],
)
def test_rows_are_those_of_the_range(source, tmp_path, text, wanted):
    write_jacobian(source, tmp_path / "out.zarr", rows=text)

    assert opened(tmp_path)["row"][:].tolist() == list(wanted)


def test_rows_below_a_confidence_are_found_in_order(source, tmp_path, data):
    write_jacobian(source, tmp_path / "out.zarr", where_confidence_below=0.5)

    assert opened(tmp_path)["row"][:].tolist() == np.flatnonzero(confidence(data) < 0.5).tolist()


def test_limit_keeps_the_first_rows(source, tmp_path, data):
    write_jacobian(source, tmp_path / "out.zarr", where_confidence_below=0.5, limit=7)

    assert opened(tmp_path)["row"][:].tolist() == np.flatnonzero(confidence(data) < 0.5)[:7].tolist()


def test_a_search_ends_when_there_are_enough(source, tmp_path, data, monkeypatch):
    (source / "logits" / "c" / "9" / "0").unlink()  # a search that came here would say so
    monkeypatch.setattr("softmax_dask_pipelines.selection._PIECES_PER_THREAD", 1)

    write_jacobian(source, tmp_path / "out.zarr", where_confidence_below=0.9, limit=2, threads=1)

    assert opened(tmp_path)["row"].shape == (2,)


def test_range_and_confidence_hold_together(source, tmp_path, data):
    write_jacobian(source, tmp_path / "out.zarr", rows="30:80", where_confidence_below=0.5)

    expected = [row for row in np.flatnonzero(confidence(data) < 0.5) if 30 <= row < 80]
    assert opened(tmp_path)["row"][:].tolist() == expected


def test_confidence_is_that_at_the_temperature(source, tmp_path, data):
    write_jacobian(source, tmp_path / "out.zarr", where_confidence_below=0.3, temperature=3.0)

    assert opened(tmp_path)["row"][:].tolist() == np.flatnonzero(confidence(data, 3.0) < 0.3).tolist()


# ---- what is written


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
@pytest.mark.parametrize("suffix", ["zarr", "parquet", "npy"])
def test_matrices_are_those_of_the_formula(tmp_path, data, suffix, temperature):
    source = write_dump(tmp_path / f"in.{suffix}", data)

    write_jacobian(source, tmp_path / "out.zarr", rows="0:", temperature=temperature)

    np.testing.assert_allclose(opened(tmp_path)["jacobian"][:], exact(data, temperature), rtol=2e-6, atol=1e-12)


def test_undecidable_rows_are_nan_and_counted(source, tmp_path):
    result = write_jacobian(source, tmp_path / "out.zarr", rows="0:")

    matrices = opened(tmp_path)["jacobian"][:]
    assert result.undecidable == 3
    assert np.flatnonzero(np.isnan(matrices).any(axis=(1, 2))).tolist() == [7, 50, 60]
    assert np.isnan(matrices[[7, 50, 60]]).all()


def test_matrices_cut_into_tiles_are_the_same(source, tmp_path, monkeypatch):
    write_jacobian(source, tmp_path / "whole.zarr", rows="0:40")
    monkeypatch.setattr("softmax_dask.jacobian_lazy._TILE_BYTES", 9 * 4)  # 3 x 3 of one row

    write_jacobian(source, tmp_path / "out.zarr", rows="0:40")

    assert opened(tmp_path)["jacobian"].chunks == (1, 3, 3)
    expected = zarr.open_group(tmp_path / "whole.zarr", mode="r")["jacobian"][:]
    np.testing.assert_array_equal(opened(tmp_path)["jacobian"][:], expected)
    np.testing.assert_array_equal(opened(tmp_path)["row"][:], np.arange(40))


def test_ids_and_class_names_are_carried(source, tmp_path):
    write_jacobian(source, tmp_path / "out.zarr", rows="20:45")

    assert opened(tmp_path)["id"][:].tolist() == dumps.ids()[20:45]
    assert opened(tmp_path)["class"][:].tolist() == [f"class {k}" for k in range(CLASSES)]


def test_ids_of_rows_far_apart_are_those_of_the_rows(source, tmp_path, data):
    write_jacobian(source, tmp_path / "out.zarr", where_confidence_below=0.4)

    wanted = np.flatnonzero(confidence(data) < 0.4)
    assert len(wanted) > 3
    assert opened(tmp_path)["id"][:].tolist() == [dumps.ids()[row] for row in wanted]


def test_keys_of_folders_are_carried(tmp_path, data):
    for day, part in (("1", data[:50]), ("2", data[50:])):
        folder = tmp_path / "in" / f"day={day}"
        folder.mkdir(parents=True)
        write_dump(folder / "part.parquet", part)

    write_jacobian(tmp_path / "in", tmp_path / "out.zarr", rows="48:52")

    assert opened(tmp_path)["day"][:].tolist() == [1, 1, 2, 2]


def test_ids_get_another_name(source, tmp_path):
    write_jacobian(source, tmp_path / "out.zarr", rows="0:3", rename={"id": "image"})

    assert opened(tmp_path)["image"][:].tolist() == dumps.ids()[:3]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_matrices_have_the_dtype_asked_for(source, tmp_path, data, dtype):
    write_jacobian(source, tmp_path / "out.zarr", rows="0:5", dtype=dtype)

    found = opened(tmp_path)["jacobian"]
    assert found.dtype == dtype
    np.testing.assert_allclose(found[:], exact(data[:5]), atol=2 * np.finfo(dtype).eps)


def test_xarray_opens_it_with_names(source, tmp_path):
    write_jacobian(source, tmp_path / "out.zarr", rows="20:45")

    found = xr.open_zarr(tmp_path / "out.zarr")

    assert found["jacobian"].dims == ("row", "class", "class_of_logit")
    assert found["jacobian"].sel(row=30).shape == (CLASSES, CLASSES)


def test_two_runs_write_the_same_bytes(source, tmp_path):
    write_jacobian(source, tmp_path / "out.zarr", rows="0:50", threads=1)
    before = contents(tmp_path / "out.zarr")

    write_jacobian(source, tmp_path / "out.zarr", rows="0:50", threads=1, replace=True)

    assert contents(tmp_path / "out.zarr") == before


def test_no_rows_make_an_output_of_no_rows(source, tmp_path):
    result = write_jacobian(source, tmp_path / "out.zarr", where_confidence_below=0.01)

    assert result.facts()["rows"] == 0
    assert opened(tmp_path)["jacobian"].shape == (0, CLASSES, CLASSES)


def test_a_manifest_records_the_run(source, tmp_path):
    write_jacobian(source, tmp_path / "out.zarr", rows="0:5")

    (manifest,) = (tmp_path / "out.zarr.job" / "runs").iterdir()
    assert json.loads(manifest.read_text())["config"]["rows"] == "0:5"


# ---- mistakes


@pytest.mark.parametrize(
    ("flags", "code", "part"),
    [
        ([], 2, "--where-confidence-below: is missing; expected a confidence such as 0.6"),
        (["--rows", "5"], 2, "--rows: is '5'; expected two row numbers with a colon between"),
        (["--rows", "9:3"], 2, "--rows: is '9:3'"),
        (["--rows=-3:5"], 2, "--rows: is '-3:5'"),
        (["--rows", "a:b"], 2, "--rows: is 'a:b'"),
        (["--rows", "0:104"], 2, "rows: is 0:104; expected rows of"),
        (["--where-confidence-below", "0"], 2, "--where-confidence-below: is '0'; expected greater than 0"),
        (["--where-confidence-below", "1.5"], 2, "--where-confidence-below: is '1.5'"),
        (["--where-confidence-below", "nan"], 2, "--where-confidence-below"),
        (["--rows", "0:9", "--limit", "0"], 2, "--limit: is '0'"),
        (["--rows", "0:9", "--dtype", "int8"], 2, "--dtype: is 'int8'"),
        (["--rows", "0:9", "--memory-limit", "1MiB"], 3, "memory_limit is 1,048,576 bytes; expected at least"),
        (["--rows", "0:9", "--rename", "x=y"], 2, "rename: 'x' is not carried"),
        (["--rows", "0:9", "--rename", "id=jacobian"], 2, "--rename id=NEW"),
        (["--rows", "0:9", "--rename", "id=row"], 2, "--rename id=NEW"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(source, tmp_path, flags, code, part):
    before = tree(tmp_path)

    outcome = softmax_dask("jacobian", source, tmp_path / "out.zarr", *flags)

    assert (outcome.code, outcome.out) == (code, "")
    assert part in outcome.err
    assert outcome.err.count("\n") == 1
    assert tree(tmp_path) == before


def test_an_output_that_is_no_zarr_is_refused(source, tmp_path):
    outcome = softmax_dask("jacobian", source, tmp_path / "out.parquet", "--rows", "0:9")

    assert outcome.code == 2
    assert "OUTPUT: is " in outcome.err
    assert "expected a path that ends in .zarr" in outcome.err


def test_an_output_that_is_there_stays(source, tmp_path):
    write_jacobian(source, tmp_path / "out.zarr", rows="0:5")

    with pytest.raises(OutputExistsError, match="--replace"):
        write_jacobian(source, tmp_path / "out.zarr", rows="0:9")

    assert opened(tmp_path)["row"].shape == (5,)


def test_a_run_that_fails_leaves_nothing(source, tmp_path):
    (source / "logits" / "c" / "4" / "0").write_bytes(b"not a chunk")
    before = tree(tmp_path)

    outcome = softmax_dask("jacobian", source, tmp_path / "out.zarr", "--rows", "0:50")

    assert outcome.code == 3
    assert tree(tmp_path) == before


def test_a_run_that_is_interrupted_leaves_nothing(source, tmp_path):
    config = make_config(
        JacobianConfig,
        {
            "verb": "jacobian",
            "source": {"path": str(source)},
            "output": {"path": str(tmp_path / "out.zarr")},
            "rows": "0:50",
        },
        key_of,
    )
    before = tree(tmp_path)

    with pytest.raises(InterruptedRunError):
        jacobians.execute(jacobian_job.prepare(config), on_receipt=interrupt)

    assert tree(tmp_path) == before


def test_the_plan_keeps_the_limit_by_fewer_threads(source, tmp_path):
    given = {
        "verb": "jacobian",
        "source": {"path": str(source)},
        "output": {"path": str(tmp_path / "out.zarr")},
        "rows": "0:50",
        "threads": 64,
        "memory_limit": PROCESS_BYTES + (300 << 20),
    }

    job = jacobian_job.prepare(make_config(JacobianConfig, given, key_of))

    assert 1 <= job.threads < 64
    assert job.peak_bytes <= job.memory_limit_bytes


def test_a_limit_below_one_thread_is_refused_before_logits_are_read(source, tmp_path):
    (source / "logits" / "c" / "0" / "0").unlink()

    with pytest.raises(MemoryBudgetError):
        write_jacobian(source, tmp_path / "out.zarr", where_confidence_below=0.5, memory_limit=PROCESS_BYTES)


# ---- configs


def test_a_config_says_what_flags_say(source, tmp_path):
    flags = ["--rows", "0:9", "--where-confidence-below", "0.5", "--limit", "3", "--temperature", "2"]
    written = softmax_dask("jacobian", source, tmp_path / "out.zarr", *flags, "--write-config", tmp_path / "run.yaml")

    result = run(tmp_path / "run.yaml")

    assert written.code == 0
    assert result.job.config.model_dump()["rows"] == "0:9"
    assert result.facts()["rows"] == 3


def test_a_key_of_another_verb_is_refused_with_the_keys_that_there_are(tmp_path):
    (tmp_path / "run.yaml").write_text("verb: jacobian\nsource: {path: a.zarr}\noutput: {path: b.zarr}\ncolumns: [x]\n")

    outcome = softmax_dask("validate", tmp_path / "run.yaml")

    assert outcome.code == 2
    assert "run.yaml:4: columns: is no key; expected one of verb, source, output, rows" in outcome.err


@pytest.mark.parametrize("verb", ["juggle", "[score]", "3"])
def test_an_unknown_verb_is_refused_with_its_line(tmp_path, verb):
    (tmp_path / "run.yaml").write_text(f"source: {{path: a.zarr}}\noutput: {{path: b.zarr}}\nverb: {verb}\n")

    outcome = softmax_dask("validate", tmp_path / "run.yaml")

    assert outcome.code == 2
    assert "run.yaml:3: verb: is " in outcome.err
    assert "expected one of score, compact, jacobian, evaluate" in outcome.err


def test_a_range_that_yaml_would_read_as_a_number_is_refused(tmp_path):
    (tmp_path / "run.yaml").write_text("verb: jacobian\nsource: {path: a}\noutput: {path: b.zarr}\nrows: 1:30\n")

    outcome = softmax_dask("validate", tmp_path / "run.yaml")

    assert outcome.code == 2
    assert "run.yaml:4" in outcome.err
    assert "quotes" in outcome.err


@pytest.mark.parametrize("flag", ["--dry-run", "--json", "--quiet"])
def test_it_has_the_flags_of_a_run(source, tmp_path, flag):
    outcome = softmax_dask("jacobian", source, tmp_path / "out.zarr", "--rows", "0:9", flag)

    assert outcome.code == 0
    assert (tmp_path / "out.zarr").exists() == (flag != "--dry-run")


def test_its_plan_names_rows_tiles_and_memory(source, tmp_path):
    outcome = softmax_dask("jacobian", source, tmp_path / "out.zarr", "--rows", "0:9", "--dry-run", "--json")

    found = json.loads(outcome.out)
    assert (found["rows"], found["tile"], found["bytes_out"]) == (9, [9, 5, 5], 9 * 25 * 4)
    assert found["peak_bytes"] <= found["memory_limit_bytes"]


def test_it_refuses_rows_out_of_reach_from_python(source, tmp_path):
    with pytest.raises(ConfigError, match="has 103 of them"):
        write_jacobian(source, tmp_path / "out.zarr", rows="104:")


def interrupt(receipt: Any) -> None:
    raise KeyboardInterrupt


def test_the_limit_of_a_range_counts_before_its_rows_are_numbered(source):
    opened_source = open_source(SourceRequest(str(source)))

    rows = chosen_rows(opened_source, Choice(5, 10**13, None, 3), temperature=1.0, threads=1, most=9, stop=Event())

    assert rows.tolist() == [5, 6, 7]


@pytest.mark.parametrize("choice", [Choice(0, 10**13, None, None), Choice(0, ROWS, 0.9, None)])
def test_numbers_of_rows_beyond_the_memory_are_refused(source, choice):
    opened_source = open_source(SourceRequest(str(source)))

    with pytest.raises(MemoryBudgetError, match=r"expected at most 20 rows\. Choose fewer"):
        chosen_rows(opened_source, choice, temperature=1.0, threads=1, most=20, stop=Event())


def test_the_plan_counts_the_numbers_of_rows_and_the_rows_that_are_read_at_once(source, tmp_path):
    few, many = (jacobian_job.prepare(config(source, tmp_path, rows=f"0:{stop}", threads=1)) for stop in (10, 100))

    id_and_target = 64 + 8
    assert many.peak_bytes - few.peak_bytes == 90 * (NUMBER_BYTES + CLASSES * 4 + id_and_target)


def test_rows_far_apart_are_read_a_row_group_once(tmp_path, data, monkeypatch):
    source = tmp_path / "in.parquet"
    pq.write_table(dumps.parquet_table({"logits": pa.array(list(data))}), source, row_group_size=20)
    monkeypatch.setattr("softmax_dask.jacobian_lazy._TILE_BYTES", 3 * 25 * 4)  # three rows
    job = jacobian_job.prepare(config(source, tmp_path, where_confidence_below=0.4))
    groups = []
    read = parquet.batches
    monkeypatch.setattr(
        parquet,
        "batches",
        lambda part, rows, *a, **k: (
            groups.extend(range(rows[0] // 20, rows[-1] // 20 + 1)) or read(part, rows, *a, **k)
        ),
    )

    jacobians.execute(job)

    assert job.tiles.rows == 3
    assert len(job.rows) > 9
    assert sorted(groups) == sorted({row // 20 for row in job.rows.tolist()})


def test_row_groups_without_a_chosen_row_are_not_read(tmp_path, data, monkeypatch):
    monkeypatch.setattr("softmax_dask_pipelines.gathering._GAP_BYTES", 1)
    source = open_source(SourceRequest(str(dumps.zarr_array(tmp_path / "in.zarr", data, chunks=(10, CLASSES)))))
    (tmp_path / "in.zarr" / "c" / "3" / "0").unlink()  # a read of it would say so

    found = read_rows(source, np.array([5, 29, 55]), threads=2, stop=Event())

    np.testing.assert_array_equal(found.logits, data[[5, 29, 55]])


def test_rows_are_written_in_batches_as_in_one(source, tmp_path, monkeypatch):
    write_jacobian(source, tmp_path / "whole.zarr", rows="3:", threads=1)
    before = contents(tmp_path / "whole.zarr")
    monkeypatch.setattr("softmax_dask_pipelines.jacobian_memory._GATHERED_BYTES", 1)
    monkeypatch.setattr("softmax_dask_pipelines.jacobian_memory._full_partition_rows", lambda tiles, dtype: tiles.rows)
    monkeypatch.setattr("softmax_dask.jacobian_lazy._TILE_BYTES", 7 * 25 * 4)

    job = jacobian_job.prepare(config(source, tmp_path, rows="3:", threads=1))
    jacobians.execute(job)

    assert len(list(job.batches())) == 15
    for name in ("row", "id", "target", "jacobian"):
        np.testing.assert_array_equal(opened(tmp_path)[name][:], zarr.open_group(tmp_path / "whole.zarr")[name][:])
    assert contents(tmp_path / "whole.zarr") == before


def test_targets_are_written_beside_the_rows(source, tmp_path, data):
    write_jacobian(source, tmp_path / "out.zarr", where_confidence_below=0.4, target="target")

    wanted = np.flatnonzero(confidence(data) < 0.4)
    assert opened(tmp_path)["target"][:].tolist() == dumps.targets()[wanted].tolist()


def test_a_search_says_how_far_it_has_come(source, tmp_path, monkeypatch):
    monkeypatch.setattr("softmax_dask_pipelines.cli.progress._LOG_EVERY_S", 0.0)
    flags = ("--where-confidence-below", 0.4, "--threads", 1)

    outcome = softmax_dask("jacobian", source, tmp_path / "out.zarr", *flags)

    searched = [line for line in outcome.err.splitlines() if line.startswith("searched ")]
    assert searched[0].startswith("searched 0 of 103 rows")
    assert searched[-1].startswith("searched 103 of 103 rows")


@pytest.mark.parametrize("flag", ["--quiet", "--json"])
def test_a_search_is_silent_where_nothing_but_the_result_is_wanted(source, tmp_path, monkeypatch, flag):
    monkeypatch.setattr("softmax_dask_pipelines.cli.progress._LOG_EVERY_S", 0.0)

    outcome = softmax_dask("jacobian", source, tmp_path / "out.zarr", "--where-confidence-below", 0.4, flag)

    assert (outcome.code, outcome.err) == (0, "")


def test_a_search_takes_a_npy_file_in_blocks_and_not_row_by_row(tmp_path, data, monkeypatch):
    starts = []
    read = NpySource.read
    monkeypatch.setattr(NpySource, "read", lambda self, start, stop: starts.append(start) or read(self, start, stop))

    jacobian_job.prepare(config(write_dump(tmp_path / "in.npy", data), tmp_path, where_confidence_below=0.5))

    assert sorted(starts) == list(range(0, ROWS, 12))


def test_a_plan_of_many_classes_makes_no_graph_of_many_rows(tmp_path, monkeypatch):
    graphs = []
    lazy = jacobian_job.jacobian
    monkeypatch.setattr(jacobian_job, "jacobian", lambda *a, **k: graphs.append(lazy(*a, **k)) or graphs[-1])
    source = write_dump(tmp_path / "in.npy", np.zeros((2, 5000), "float32"))

    jacobian_job.prepare(config(source, tmp_path, rows="0:1"))

    assert graphs[0].npartitions <= 100


def test_an_output_without_an_ending_is_told_the_one_that_it_needs(source, tmp_path):
    outcome = softmax_dask("jacobian", source, tmp_path / "out", "--rows", "0:9")

    assert outcome.err == f"Error: OUTPUT: is '{tmp_path / 'out'}'; expected a path that ends in .zarr.\n"


def config(source: Path, folder: Path, **given: Any) -> JacobianConfig:
    sections = {"source": {"path": str(source)}, "output": {"path": str(folder / "out.zarr")}}
    return JacobianConfig(verb="jacobian", **sections, **given)


def opened(folder: Path) -> Any:
    return zarr.open_group(folder / "out.zarr", mode="r")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_dump(path: Path, data: NDArray[Any]) -> Path:
    if path.suffix == ".zarr":
        return dumps.zarr_group(path, data, chunks=(10, data.shape[1]))
    if path.suffix == ".npy":
        np.save(path, data)
        return path
    column = pa.FixedSizeListArray.from_arrays(pa.array(data.ravel()), data.shape[1])
    pq.write_table(pa.table({"logits": column}), path, row_group_size=10)
    return path
