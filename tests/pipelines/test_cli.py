"""The command line, verb by verb, on real files."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax

from softmax_dask import __version__
from softmax_dask_pipelines import sample
from tests.pipelines import dumps
from tests.pipelines.command import Outcome, end, run_alone, softmax_dask, start, tree

VERBS = ("score", "run", "plan", "validate", "schema", "inspect", "doctor", "demo")
DASK = (sys.executable, "-m", "dask", "softmax")

# A probability is within 4 float32 eps of the float64 truth (docs/design.md, section 4).
RELATIVE = 4.8e-7


@pytest.fixture
def zarr_dump(tmp_path: Path) -> Path:
    """103 rows of 5 classes with ids, targets and class names."""
    return dumps.zarr_group(tmp_path / "logits.zarr", dumps.logits(), chunks=(10, 5))


@pytest.fixture
def parquet_dump(tmp_path: Path) -> Path:
    """The same rows."""
    table = dumps.parquet_table({"logits": dumps.fixed_lists(dumps.logits())})
    return dumps.parquet_file(tmp_path / "logits.parquet", table, row_group_size=40)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dump whose scoring takes seconds."""
    path = tmp_path_factory.mktemp("large") / "logits.zarr"
    return dumps.zarr_array(path, dumps.logits(60_000, 100), chunks=(5000, 100), compressors=None)


def _truth() -> Any:
    return softmax(dumps.logits().astype(np.float64), axis=1)


def _read(folder: Path) -> dict[str, Any]:
    table = pq.read_table(folder)
    return {name: table[name].to_pylist() for name in table.column_names}


def _score(source: Path, output: Path, *flags: object) -> Outcome:
    outcome = softmax_dask("score", source, output, *flags)
    assert outcome.code == 0, outcome.err
    return outcome


class TestScore:
    def test_zarr_to_parquet_with_no_flag_gives_what_can_be_known(self, zarr_dump, tmp_path):
        _score(zarr_dump, tmp_path / "out.parquet")

        columns = _read(tmp_path / "out.parquet")
        assert set(columns) == {"id", "label", "label_name", "confidence", "nll", "correct", "target", "commit"}
        assert columns["id"] == dumps.ids()
        assert_array_equal(columns["label"], dumps.logits().argmax(axis=1))
        assert columns["label_name"] == [f"class {k}" for k in columns["label"]]
        assert_allclose(columns["confidence"], _truth().max(axis=1), rtol=RELATIVE)

    def test_parquet_to_zarr_with_no_flag_gives_what_can_be_known(self, parquet_dump, tmp_path):
        _score(parquet_dump, tmp_path / "out.zarr")

        group = zarr.open_group(tmp_path / "out.zarr", mode="r")
        assert {"id", "label", "label_name", "confidence", "nll", "correct", "target"} <= set(group)
        assert list(group["id"][:]) == dumps.ids()
        assert_array_equal(group["target"][:], dumps.targets())
        assert_array_equal(group["label"][:], dumps.logits().argmax(axis=1))
        assert_allclose(group["confidence"][:], _truth().max(axis=1), rtol=RELATIVE)

    def test_without_targets_and_names_there_are_label_and_confidence(self, tmp_path):
        source = dumps.zarr_array(tmp_path / "bare.zarr", dumps.logits(), chunks=(10, 5))

        _score(source, tmp_path / "out.parquet")

        assert set(_read(tmp_path / "out.parquet")) == {"row", "label", "confidence", "commit"}

    def test_unlabelled_rows_have_no_nll_and_are_not_correct_or_wrong(self, zarr_dump, tmp_path):
        _score(zarr_dump, tmp_path / "out.parquet")

        columns = _read(tmp_path / "out.parquet")
        unlabelled = dumps.targets() < 0
        assert [value is None for value in columns["target"]] == unlabelled.tolist()
        assert [value is None for value in columns["correct"]] == unlabelled.tolist()
        assert_array_equal(np.isnan(columns["nll"]), unlabelled)

    def test_source_and_output_may_be_file_urls(self, zarr_dump, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

        softmax_dask("score", f"file://{zarr_dump}", f"file://{tmp_path / 'out.parquet'}")

        assert len(_read(tmp_path / "out.parquet")["label"]) == 103
        assert not (tmp_path / "file:").exists()

    def test_the_summary_says_what_came_out(self, zarr_dump, tmp_path):
        out = _score(zarr_dump, tmp_path / "out.parquet").out

        lines = dict(re.split(r"  +", line, maxsplit=1) for line in out.splitlines())
        labels = np.bincount(dumps.logits().argmax(axis=1))
        assert lines["rows"] == "103 of 5 classes"
        assert lines["undecidable"].startswith("0 rows")
        assert float(lines["confidence"].split()[0]) == pytest.approx(_truth().max(axis=1).mean(), rel=1e-5)
        assert lines["top labels"].startswith(f"class {labels.argmax()} ")
        assert re.search(r"[\d.]+ s, [\d,]+ rows/s, [\d.]+ GB/s", lines["time"])
        assert lines["output"].startswith(str(tmp_path / "out.parquet"))

    @pytest.mark.parametrize("rows", [1, 2, 7, 103])
    @pytest.mark.parametrize("threads", [1, 2, 3])
    def test_every_row_is_in_the_summary(self, tmp_path, rows, threads):
        source = dumps.zarr_array(tmp_path / "in.zarr", dumps.logits(rows), chunks=(1, 5))

        outcome = _score(source, tmp_path / "out.zarr", "--threads", threads, "--json")

        assert json.loads(outcome.out)["rows"] == rows

    def test_json_is_one_object_and_nothing_else(self, zarr_dump, tmp_path):
        outcome = _score(zarr_dump, tmp_path / "out.parquet", "--json")

        facts = json.loads(outcome.out)
        labelled = dumps.targets() >= 0
        right = dumps.logits().argmax(axis=1) == dumps.targets()
        assert (facts["rows"], facts["classes"], facts["undecidable_rows"]) == (103, 5, 0)
        assert facts["labelled_rows"] == labelled.sum()
        assert facts["accuracy"] == pytest.approx(right[labelled].mean())
        assert facts["bytes_in"] == 103 * 5 * 4
        assert facts["bytes_written"] > 0
        assert outcome.err == ""

    def test_quiet_says_nothing(self, zarr_dump, tmp_path):
        outcome = _score(zarr_dump, tmp_path / "out.parquet", "--quiet")

        assert (outcome.out, outcome.err) == ("", "")

    def test_dry_run_prints_the_plan_and_writes_nothing(self, zarr_dump, tmp_path):
        before = tree(tmp_path)

        outcome = _score(zarr_dump, tmp_path / "out.parquet", "--dry-run")

        assert all(word in outcome.out for word in ("partitions", "memory", "103 rows x 5 classes", "out.parquet"))
        assert tree(tmp_path) == before

    def test_dry_run_as_json_is_one_object(self, zarr_dump, tmp_path):
        outcome = _score(zarr_dump, tmp_path / "out.parquet", "--dry-run", "--json", "--columns", "label")

        facts = json.loads(outcome.out)
        assert facts["columns"] == ["label"]
        assert facts["peak_bytes"] <= facts["memory_limit_bytes"]

    @pytest.mark.parametrize("name", ["out.zarr", "out.parquet"])
    def test_a_finished_output_is_refused_and_untouched(self, zarr_dump, tmp_path, name):
        _score(zarr_dump, tmp_path / name)
        before = tree(tmp_path)

        outcome = softmax_dask("score", zarr_dump, tmp_path / name, "--temperature", "2")

        assert outcome.code == 4
        assert outcome.err.startswith("Error: ")
        assert "--replace" in outcome.err
        assert tree(tmp_path) == before

    @pytest.mark.parametrize("name", ["out.zarr", "out.parquet"])
    def test_replace_swaps_a_finished_output(self, zarr_dump, tmp_path, name):
        _score(zarr_dump, tmp_path / name)

        _score(zarr_dump, tmp_path / name, "--replace", "--columns", "max_logit")

        read: Callable[[Path], Any] = _read if name.endswith("parquet") else zarr.open_group
        columns = set(read(tmp_path / name))
        assert "max_logit" in columns
        assert "label" not in columns

    def test_temperature_and_columns_are_taken(self, zarr_dump, tmp_path):
        flags = ("--temperature", "10", "--columns", "probabilities, margin", "--dtype", "float64")
        _score(zarr_dump, tmp_path / "out.zarr", *flags)

        group = zarr.open_group(tmp_path / "out.zarr", mode="r")
        expected = softmax(dumps.logits().astype(np.float64) / 10, axis=1)
        assert group["probabilities"].dtype == np.float64
        assert_allclose(group["probabilities"][:], expected, rtol=RELATIVE, atol=1e-30)
        assert "label" not in group

    def test_class_names_of_a_file_are_taken(self, zarr_dump, tmp_path):
        (tmp_path / "names.txt").write_text("\n".join(dumps.CLASS_NAMES))

        _score(zarr_dump, tmp_path / "out.parquet", "--classes", tmp_path / "names.txt")

        expected = [dumps.CLASS_NAMES[k] for k in dumps.logits().argmax(axis=1)]
        assert _read(tmp_path / "out.parquet")["label_name"] == expected

    def test_targets_that_are_text_are_matched_to_class_names(self, tmp_path):
        truth = [dumps.CLASS_NAMES[k] if k >= 0 else None for k in dumps.targets()]
        columns = {"logits": dumps.lists(dumps.logits()), "animal": pa.array(truth)}
        source = dumps.parquet_file(tmp_path / "in.parquet", dumps.parquet_table(columns, carried=False))
        (tmp_path / "names.json").write_text(json.dumps(dumps.CLASS_NAMES))

        outcome = _score(
            source, tmp_path / "out.zarr", "--target", "animal", "--classes", tmp_path / "names.json", "--json"
        )

        labelled = dumps.targets() >= 0
        right = dumps.logits().argmax(axis=1) == dumps.targets()
        assert json.loads(outcome.out)["accuracy"] == pytest.approx(right[labelled].mean())
        group = zarr.open_group(tmp_path / "out.zarr", mode="r")
        assert_array_equal(group["target"][:], dumps.targets())

    def test_integers_are_read_as_bfloat16_when_told_so(self, tmp_path):
        data = dumps.logits().astype(ml_dtypes.bfloat16)
        source = dumps.zarr_array(tmp_path / "in.zarr", data.view(np.uint16), chunks=(10, 5))

        _score(source, tmp_path / "out.parquet", "--source-dtype", "bfloat16")

        expected = softmax(data.astype(np.float64), axis=1).max(axis=1)
        assert_allclose(_read(tmp_path / "out.parquet")["confidence"], expected, rtol=RELATIVE)

    def test_ids_are_carried_under_their_name(self, tmp_path):
        columns = {"logits": dumps.lists(dumps.logits()), "image": pa.array(range(500, 603), pa.int32())}
        source = dumps.parquet_file(tmp_path / "in.parquet", dumps.parquet_table(columns, carried=False))

        _score(source, tmp_path / "out.parquet", "--id", "image")

        table = pq.read_table(tmp_path / "out.parquet")
        assert table["image"].to_pylist() == list(range(500, 603))
        assert table["image"].type == pa.int32()

    @pytest.mark.parametrize("name", ["out.zarr", "out.parquet"])
    def test_ids_of_a_group_inside_the_group_are_carried_under_their_last_name(self, tmp_path, name):
        source = dumps.zarr_group(tmp_path / "in.zarr", dumps.logits(), carried=False, chunks=(10, 5))
        zarr.open_group(source).create_array("meta/image", data=np.arange(len(dumps.logits())))

        outcome = _score(source, tmp_path / name, "--id", "meta/image")

        assert outcome.code == 0, outcome.err
        found = zarr.open_group(tmp_path / name)["image"][:] if name == "out.zarr" else _read(tmp_path / name)["image"]
        assert list(found) == list(range(len(dumps.logits())))

    def test_probabilities_are_scored_with_a_warning(self, tmp_path):
        probs = np.full((20, 4), 0.25, np.float32)
        source = dumps.zarr_array(tmp_path / "in.zarr", probs, chunks=(10, 4))

        outcome = _score(source, tmp_path / "out.parquet")

        assert outcome.code == 0
        assert outcome.err.startswith(f"Warning: {source}: the first rows lie in [0, 1] and sum to 1")
        assert "logarithms" in outcome.err

    def test_more_ranks_than_classes_are_all_of_them_with_a_warning(self, tmp_path):
        source = dumps.zarr_array(tmp_path / "in.zarr", dumps.logits(classes=3), chunks=(10, 3))

        outcome = _score(source, tmp_path / "out.parquet", "--top-k", 9)

        assert outcome.err.startswith("Warning: top_k is 9, but there are 3 classes")
        assert {len(labels) for labels in _read(tmp_path / "out.parquet")["top_k_labels"]} == {3}

    def test_one_class_is_scored_with_a_warning(self, tmp_path):
        source = dumps.zarr_array(tmp_path / "in.zarr", dumps.logits(classes=1), chunks=(10, 1))

        outcome = _score(source, tmp_path / "out.parquet")

        assert outcome.err.startswith("Warning: ")
        assert "sigmoid" in outcome.err
        assert set(_read(tmp_path / "out.parquet")["confidence"]) == {1.0}

    @pytest.mark.parametrize("name", ["out.zarr", "out.parquet"])
    def test_no_rows_give_a_complete_output(self, tmp_path, name):
        source = dumps.zarr_array(tmp_path / "in.zarr", dumps.logits(rows=0), chunks=(10, 5))

        outcome = _score(source, tmp_path / name, "--columns", "label,probabilities")

        assert "0 of 5 classes" in outcome.out
        read: Callable[[Path], Any] = _read if name.endswith("parquet") else zarr.open_group
        assert np.shape(read(tmp_path / name)["label"]) == (0,)


class TestUndecidableRows:
    @pytest.fixture
    def bad(self, tmp_path: Path) -> Path:
        """Rows 7, 50 and 51 cannot be decided; in row 3 one class is masked, which is legal."""
        data = dumps.logits()
        data[7, 2], data[50, 0], data[51] = np.nan, np.inf, -np.inf
        data[3, 4] = -np.inf
        return dumps.zarr_group(tmp_path / "bad.zarr", data, chunks=(10, 5))

    def test_they_are_counted_and_marked(self, bad, tmp_path):
        outcome = _score(bad, tmp_path / "out.parquet", "--columns", "label,label_name,confidence", "--json")

        columns = _read(tmp_path / "out.parquet")
        assert json.loads(outcome.out)["undecidable_rows"] == 3
        assert [i for i, label in enumerate(columns["label"]) if label == -1] == [7, 50, 51]
        assert [i for i, name in enumerate(columns["label_name"]) if name is None] == [7, 50, 51]
        assert np.flatnonzero(np.isnan(columns["confidence"])).tolist() == [7, 50, 51]

    def test_they_change_no_neighbour_by_a_bit(self, bad, zarr_dump, tmp_path):
        _score(bad, tmp_path / "bad-out.zarr", "--columns", "probabilities")
        _score(zarr_dump, tmp_path / "out.zarr", "--columns", "probabilities")

        rows = np.delete(np.arange(103), [3, 7, 50, 51])
        found = zarr.open_array(tmp_path / "bad-out.zarr" / "probabilities", mode="r")[:]
        expected = zarr.open_array(tmp_path / "out.zarr" / "probabilities", mode="r")[:]
        assert found[rows].tobytes() == expected[rows].tobytes()

    def test_they_are_refused_by_name_when_told_so(self, bad, tmp_path):
        before = tree(tmp_path)

        outcome = softmax_dask("score", bad, tmp_path / "out.zarr", "--nonfinite", "error", "--threads", "1")

        assert outcome.code == 3
        assert re.fullmatch(r"Error: .*bad\.zarr: row 7 .*propagate.*\n", outcome.err)
        assert tree(tmp_path) == before

    def test_a_refusal_leaves_the_output_that_is_to_be_replaced(self, bad, zarr_dump, tmp_path):
        _score(zarr_dump, tmp_path / "out.parquet")
        before = tree(tmp_path)

        outcome = softmax_dask("score", bad, tmp_path / "out.parquet", "--nonfinite", "error", "--replace")

        assert outcome.code == 3
        assert tree(tmp_path) == before


class TestConfigs:
    @pytest.fixture
    def config(self, zarr_dump, tmp_path) -> Path:
        text = f"""\
source:
  path: {zarr_dump}
output:
  path: {tmp_path / "out.parquet"}
columns: [label, entropy]
temperature: 2
"""
        (tmp_path / "run.yaml").write_text(text)
        return tmp_path / "run.yaml"

    def test_run_does_what_the_config_says(self, config, tmp_path):
        outcome = softmax_dask("run", config)

        assert outcome.code == 0, outcome.err
        columns = _read(tmp_path / "out.parquet")
        truth = softmax(dumps.logits().astype(np.float64) / 2, axis=1)
        logs = np.log(truth, where=truth > 0, out=np.zeros_like(truth))
        # Entropy is promised within 2e-6, absolute.
        assert_allclose(columns["entropy"], -(truth * logs).sum(axis=1), atol=2e-6, rtol=0)
        assert "confidence" not in columns

    def test_set_changes_a_key(self, config, tmp_path):
        other = tmp_path / "other.zarr"

        outcome = softmax_dask("run", config, "--set", f"output.path={other}", "--set", "columns=[margin]", "--json")

        assert outcome.code == 0, outcome.err
        assert json.loads(outcome.out)["output"] == str(other)
        assert "margin" in zarr.open_group(other, mode="r")
        assert not (tmp_path / "out.parquet").exists()

    def test_run_refuses_a_finished_output_of_other_settings_and_replaces_it_when_told_so(self, config):
        other = ("--set", "temperature=7")

        codes = [softmax_dask("run", config, *flags).code for flags in ((), other, (*other, "--replace"), other)]

        assert codes == [0, 4, 0, 0]

    def test_plan_prints_and_writes_nothing(self, config, tmp_path):
        before = tree(tmp_path)

        outcome = softmax_dask("plan", config, "--set", "threads=1")

        assert outcome.code == 0, outcome.err
        assert re.search(r"^threads +1$", outcome.out, re.MULTILINE)
        assert re.search(r"^columns +label, entropy$", outcome.out, re.MULTILINE)
        assert tree(tmp_path) == before

    def test_plan_as_json_is_one_object(self, config):
        facts = json.loads(softmax_dask("plan", config, "--json").out)

        assert facts["source"]["rows"] == 103
        assert facts["output_format"] == "parquet"

    def test_plan_says_that_an_output_is_there(self, config):
        softmax_dask("run", config)

        assert "is there already" in softmax_dask("plan", config).out


class TestInspect:
    def test_the_text_says_what_the_dump_holds(self, zarr_dump):
        outcome = softmax_dask("inspect", zarr_dump)

        lines = dict(re.split(r"  +", line, maxsplit=1) for line in outcome.out.splitlines())
        assert lines["logits"] == "103 rows x 5 classes, float32"
        assert "chunks of 10 x 5" in lines["stored"]
        assert (lines["ids"], lines["targets"]) == ("id", "target")
        assert lines["classes"].startswith("class 0, class 1")

    def test_json_is_one_object(self, parquet_dump):
        facts = json.loads(softmax_dask("inspect", parquet_dump, "--json").out)

        assert facts["format"] == "parquet"
        assert (facts["logits"], facts["rows"], facts["classes"], facts["dtype"]) == ("logits", 103, 5, "float32")
        assert facts["class_names"] == [f"class {k}" for k in range(5)]
        assert (facts["id"], facts["target"]) == ("id", "target")

    def test_the_array_is_named_by_a_flag(self, tmp_path):
        group = zarr.create_group(tmp_path / "two.zarr")
        group.create_array("one", data=dumps.logits(), chunks=(10, 5))
        group.create_array("two", data=dumps.logits(classes=9), chunks=(10, 9))

        facts = json.loads(softmax_dask("inspect", tmp_path / "two.zarr", "--array", "two", "--json").out)

        assert facts["classes"] == 9


class TestDemo:
    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(sample, "ROWS", 2000)
        monkeypatch.chdir(tmp_path)

    def test_it_writes_and_scores_a_sample(self, tmp_path):
        outcome = softmax_dask("demo")

        assert outcome.code == 0, outcome.err
        assert outcome.out.count("2,000 of 100 classes") == 2
        group = zarr.open_group(tmp_path / "softmax-dask-demo" / "scores.zarr", mode="r")
        assert group["probabilities"].shape == (2000, 100)
        assert len(pq.read_table(tmp_path / "softmax-dask-demo" / "decisions.parquet")) == 2000

    def test_the_lines_that_open_the_result_run(self, capsys):
        out = softmax_dask("demo").out

        lines = out.partition("Open the result in Python:")[2].strip().splitlines()
        assert len(lines) == 3
        exec("\n".join(line.strip() for line in lines), {})

    def test_it_can_be_run_twice(self, tmp_path):
        first = softmax_dask("demo", "sample")
        made = tree(tmp_path / "sample" / "logits.zarr")

        second = softmax_dask("demo", "sample")

        assert (first.code, second.code) == (0, 0)
        assert tree(tmp_path / "sample" / "logits.zarr") == made


class TestHelp:
    def test_version(self):
        assert softmax_dask("--version").out == f"softmax-dask, version {__version__}\n"

    @pytest.mark.parametrize("verb", VERBS)
    def test_every_verb_has_help_with_an_example(self, verb):
        outcome = softmax_dask(verb, "--help")

        assert outcome.code == 0
        assert re.search(rf"Example:\n +softmax-dask {verb}", outcome.out)

    @pytest.mark.parametrize("flag", ["-h", "--help"])
    def test_the_help_names_every_verb(self, flag):
        outcome = softmax_dask(flag)

        assert all(re.search(rf"^  {verb} +\w", outcome.out, re.MULTILINE) for verb in VERBS)

    def test_the_example_of_each_verb_names_real_flags(self):
        helps = [softmax_dask(verb, "--help").out for verb in VERBS]

        for text in helps:
            example = text.partition("Example:")[2].partition("Options:")[0]
            assert set(re.findall(r"--[a-z-]+", example)) <= set(re.findall(r"^  (--[a-z-]+)", text, re.MULTILINE))

    def test_help_loads_nothing_heavy(self):
        heavy = ("numba", "dask.array", "zarr", "pyarrow", "pydantic", "numpy", "cupy", "distributed", "pandas")
        code = f"""
import sys
from softmax_dask_pipelines.cli import main
main(["--help"], standalone_mode=False)
sys.exit(", ".join(name for name in {heavy!r} if name in sys.modules) or 0)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

        assert (done.returncode, done.stderr) == (0, "")


class TestProcess:
    def test_the_summary_is_on_stdout_and_nothing_on_stderr(self, zarr_dump, tmp_path):
        outcome = run_alone("score", zarr_dump, tmp_path / "out.parquet")

        assert outcome.code == 0
        assert "103 of 5 classes" in outcome.out
        assert outcome.err == ""

    def test_an_error_is_on_stderr_and_nothing_on_stdout(self, tmp_path):
        outcome = run_alone("score", tmp_path / "none.zarr", tmp_path / "out.parquet", "--json")

        assert outcome.code == 2
        assert outcome.out == ""
        assert outcome.err.count("\n") == 1
        assert outcome.err.startswith("Error: ")

    def test_debug_shows_the_traceback(self, tmp_path):
        outcome = run_alone("--debug", "score", tmp_path / "none.zarr", tmp_path / "out.parquet")

        assert outcome.code == 2
        assert "Traceback (most recent call last)" in outcome.err
        assert "SourceAbsentError" in outcome.err

    def test_our_own_bug_is_exit_1_in_one_line(self, zarr_dump, tmp_path, monkeypatch):
        def broken(*_: object, **__: object) -> None:
            raise ZeroDivisionError("seven")

        monkeypatch.setattr("softmax_dask_pipelines.job.make_plan", broken)
        outcome = softmax_dask("score", zarr_dump, tmp_path / "out.parquet")

        assert outcome.code == 1
        assert re.fullmatch(r"Error: this is our bug: ZeroDivisionError: .*--debug.*\n", outcome.err)


class TestDaskPlugIn:
    def test_dask_lists_it(self):
        outcome = run_alone("--help", program=DASK)

        assert outcome.code == 0
        assert re.search(r"^  score +", outcome.out, re.MULTILINE)

    def test_it_scores_with_the_same_exit_codes(self, zarr_dump, tmp_path):
        runs = [run_alone("score", zarr_dump, tmp_path / "out.zarr", "--temperature", t, program=DASK) for t in "12"]

        assert [run.code for run in runs] == [0, 4]
        assert runs[1].err.startswith("Error: ")
        assert "Traceback" not in runs[1].err

    def test_bad_data_is_exit_3(self, tmp_path):
        (tmp_path / "note.txt").write_text("no logits")

        outcome = run_alone("score", tmp_path / "note.txt", tmp_path / "out.zarr", program=DASK)

        assert outcome.code == 3
        assert outcome.err.count("\n") == 1


class TestStopping:
    """A command that is ended while it writes."""

    @pytest.fixture(params=["out.zarr", "out.parquet"])
    def command(self, request: pytest.FixtureRequest, large: Path, tmp_path: Path) -> list[object]:
        flags = ("--columns", "label,probabilities,log_probabilities", "--dtype", "float64", "--threads", 1)
        return ["score", large, tmp_path / request.param, *flags]

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
    def test_a_signal_ends_it_with_75_and_the_command_then_works(self, command, tmp_path, number):
        process = _started_writing(command, tmp_path)

        process.send_signal(number)
        outcome = end(process)

        assert outcome.code == 75
        assert re.fullmatch(r"Error: .*interrupted.*again.*\n", outcome.err)
        assert not _opens(command[2])
        assert _rows_of(softmax_dask(*command, "--json")) == 60_000

    def test_after_kill_9_nothing_is_published_and_the_command_works(self, command, tmp_path):
        process = _started_writing(command, tmp_path)

        process.kill()
        end(process)

        assert not _opens(command[2])
        assert _rows_of(softmax_dask(*command, "--json")) == 60_000
        assert _opens(command[2])
        assert not [path for path in tmp_path.rglob("*") if path.name.startswith(("stage", "scratch", "plan"))]

    def test_a_signal_leaves_the_output_that_is_to_be_replaced(self, command, zarr_dump, tmp_path):
        _score(zarr_dump, command[2])
        before = tree(command[2])
        process = _started_writing([*command, "--replace"], tmp_path / f"{command[2].name}.job")

        process.send_signal(signal.SIGTERM)

        assert end(process).code == 75
        assert tree(command[2]) == before


def _started_writing(command: list[Any], folder: Path) -> "subprocess.Popen[str]":
    """The command, once there is a file of 100 kB in the folder: results, no longer notes."""
    process = start(*command, "--quiet")
    while not any(_size(path) > 100_000 for path in folder.rglob("*")):
        try:
            process.wait(timeout=0.002)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"ended before it wrote: {end(process)}")
    return process


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:  # renamed just now
        return 0


def _rows_of(outcome: Outcome) -> int:
    assert outcome.code == 0, outcome.err
    return int(json.loads(outcome.out)["rows"])


def _opens(output: Path) -> bool:
    if output.suffix == ".parquet":
        return output.exists()
    try:
        return "label" in zarr.open_group(output, mode="r")
    except FileNotFoundError:
        return False
