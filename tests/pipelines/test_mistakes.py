"""The commonest mistakes: one line on stderr that names place and remedy, an exit code, and nothing written."""

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import zarr

from tests.pipelines import dumps
from tests.pipelines.command import UNPRIVILEGED, Outcome, run_alone, softmax_dask, tree

USAGE, DATA, EXISTS, AGAIN = 2, 3, 4, 75

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    """Runs a command that must fail, and gives its one line."""

    def run(code: int, *arguments: object) -> str:
        before = tree(tmp_path)
        outcome = softmax_dask(*arguments)
        line = _only_line(outcome, code)
        assert tree(tmp_path) == before, "something was written"
        return line

    return run


def _only_line(outcome: Outcome, code: int) -> str:
    assert outcome.code == code, outcome
    assert outcome.out == ""
    assert outcome.err.startswith("Error: ")
    assert outcome.err.count("\n") == 1, outcome.err
    return outcome.err.removeprefix("Error: ").rstrip("\n")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A Zarr dump: 103 rows of 5 classes in chunks of 10 rows, with ids, targets and class names."""
    return dumps.zarr_group(tmp_path / "logits.zarr", dumps.logits(), chunks=(10, 5))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.zarr"


def _zarr(path: Path, data: Any) -> Path:
    return dumps.zarr_array(path / "logits.zarr", np.asarray(data), chunks=np.maximum(1, np.shape(data)).tolist())


def _parquet(path: Path, logits: Any, **more: Any) -> Path:
    table = dumps.parquet_table({"logits": logits, **more}, carried=False)
    return dumps.parquet_file(path / "logits.parquet", table)


class TestPaths:
    def test_a_wrong_path_comes_with_the_nearest_name(self, refused, source, output, tmp_path):
        line = refused(USAGE, "score", tmp_path / "logit.zarr", output)

        assert line.startswith(f"{tmp_path}/logit.zarr: there is no 'logit.zarr'")
        assert "Did you mean 'logits.zarr'?" in line

    def test_a_path_below_a_wrong_folder_names_that_folder(self, refused, output, tmp_path):
        line = refused(USAGE, "score", tmp_path / "dumps" / "logits.zarr", output)

        assert "there is no 'dumps'" in line

    @pytest.mark.parametrize("name", ["out.zarr", "out.parquet"])
    @pytest.mark.parametrize("kind", ["file", "folder", "link"])
    def test_an_output_that_is_there_is_refused(self, refused, source, tmp_path, name, kind):
        make: dict[str, Callable[[Path], Any]] = {
            "file": lambda path: path.write_text("mine"),
            "folder": lambda path: (path / "mine").mkdir(parents=True),
            "link": lambda path: path.symlink_to("nowhere"),
        }
        make[kind](tmp_path / name)

        line = refused(EXISTS, "score", source, tmp_path / name)

        assert line.startswith(f"{tmp_path / name}: is there already")
        assert "--replace" in line

    @pytest.mark.parametrize("spelling", ["{0}", "{0}/", "{0}/../logits.zarr", "file://{0}", "{0}/.", "{1}/link.zarr"])
    @pytest.mark.parametrize("flags", [(), ("--replace",)], ids=["", "replace"])
    def test_an_output_that_is_the_input_is_refused(self, refused, source, tmp_path, spelling, flags):
        (tmp_path / "link.zarr").symlink_to(source)

        line = refused(USAGE, "score", source, spelling.format(source, tmp_path), *flags)

        assert "is the source itself; expected another path" in line

    @pytest.mark.parametrize("spelling", ["{0}/out.zarr", "{0}/logits/../out.zarr", "file://{0}/a.zarr", "{1}/a.zarr"])
    def test_an_output_inside_the_input_is_refused(self, refused, source, tmp_path, spelling):
        (tmp_path / "link.zarr").symlink_to(source)

        line = refused(USAGE, "score", source, spelling.format(source, tmp_path / "link.zarr"), "--replace")

        assert "lies inside the source" in line

    @pytest.mark.parametrize("spelling", ["{0}", "{0}/", "{0}/../all.zarr", "file://{0}"])
    def test_an_output_around_the_input_is_refused(self, refused, tmp_path, spelling):
        source = dumps.zarr_array(tmp_path / "all.zarr" / "inner" / "logits.zarr", dumps.logits(), chunks=(10, 5))

        line = refused(USAGE, "score", source, spelling.format(tmp_path / "all.zarr"), "--replace")

        assert "holds the source" in line

    def test_an_output_without_a_known_ending_is_refused(self, refused, source, tmp_path):
        line = refused(USAGE, "score", source, tmp_path / "out.csv")

        assert line.startswith("OUTPUT: is ")
        assert ".zarr, .parquet" in line

    def test_an_output_below_a_file_is_refused(self, refused, source, tmp_path):
        (tmp_path / "note.txt").write_text("mine")

        line = refused(USAGE, "score", source, tmp_path / "note.txt" / "out.zarr")

        assert f"{tmp_path / 'note.txt'}" in line

    @pytest.mark.parametrize("url", ["gs://bucket/out.zarr", "https://host/out.zarr"])
    def test_an_output_that_is_not_local_is_refused(self, refused, source, url, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

        assert refused(USAGE, "score", source, url).startswith(f"OUTPUT: is '{url}'; expected a local path")

    def test_an_empty_path_is_refused(self, refused, source):
        assert refused(USAGE, "score", source, "").startswith("OUTPUT: is ''")


class TestNotADump:
    @pytest.mark.parametrize("name", ["notes.txt", "plot.png", "logits.parquet"])
    def test_a_file_of_something_else_is_refused(self, refused, output, tmp_path, name):
        (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n and more")

        line = refused(DATA, "score", tmp_path / name, output)

        assert line.startswith(f"{tmp_path / name}: is ")
        assert "Parquet" in line

    def test_an_empty_folder_is_refused(self, refused, output, tmp_path):
        (tmp_path / "empty").mkdir()

        assert "is a folder with no data in it" in refused(USAGE, "score", tmp_path / "empty", output)

    def test_a_folder_of_other_things_is_refused_with_what_it_holds(self, refused, output, tmp_path):
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / "cat.png").touch()

        assert "holds cat.png; expected logits. Read are: " in refused(DATA, "score", tmp_path / "images", output)

    def test_an_empty_group_is_refused(self, refused, output, tmp_path):
        zarr.create_group(tmp_path / "empty.zarr")

        assert "no array can be logits" in refused(DATA, "score", tmp_path / "empty.zarr", output)

    def test_metadata_that_is_cut_is_refused(self, refused, source, output):
        document = source / "logits" / "zarr.json"
        document.write_text(document.read_text()[:40])

        assert str(document) in refused(DATA, "score", source, output)

    @pytest.mark.parametrize("verb", ["inspect", "score"])
    def test_a_wrong_source_format_is_refused(self, refused, tmp_path, verb):
        (tmp_path / "notes.txt").write_text("none")

        more = [tmp_path / "out.zarr", "--source-format", "zarr"] if verb == "score" else []
        assert str(tmp_path / "notes.txt") in refused(DATA, verb, tmp_path / "notes.txt", *more)


class TestNames:
    def test_a_wrong_array_comes_with_those_there_and_the_nearest(self, refused, source, output):
        line = refused(USAGE, "score", source, output, "--array", "logit")

        assert "no array 'logit'; expected one of id, logits, target. Did you mean 'logits'?" in line

    @pytest.mark.parametrize("flag", ["--id", "--target"])
    def test_a_wrong_id_or_target_comes_with_the_nearest(self, refused, source, output, flag):
        assert "Did you mean 'target'?" in refused(USAGE, "score", source, output, flag, "targget")

    def test_a_wrong_column_comes_with_those_there_and_the_nearest(self, refused, output, tmp_path):
        source = _parquet(tmp_path, dumps.lists(dumps.logits()))

        line = refused(USAGE, "score", source, output, "--column", "logit")

        assert "no column 'logit'; expected one of logits. Did you mean 'logits'?" in line

    def test_a_wrong_prefix_lists_the_columns(self, refused, output, tmp_path):
        table = dumps.parquet_table(dumps.wide(dumps.logits()), carried=False)
        source = dumps.parquet_file(tmp_path / "wide.parquet", table)

        assert "logit_0, logit_1" in refused(USAGE, "score", source, output, "--column-prefix", "score_")

    def test_several_candidates_are_listed(self, refused, output, tmp_path):
        group = zarr.create_group(tmp_path / "two.zarr")
        for name in ("one", "two"):
            group.create_array(name, data=dumps.logits(), chunks=(10, 5))

        assert "may all be logits" in refused(USAGE, "score", tmp_path / "two.zarr", output)

    def test_a_column_of_a_zarr_source_is_refused(self, refused, source, output):
        assert "se array instead" in refused(USAGE, "score", source, output, "--column", "logits")

    @pytest.mark.parametrize("name", ["label", "commit", "class"])
    def test_ids_with_the_name_of_our_own_column_are_refused(self, refused, output, tmp_path, name):
        ids = {name: pa.array(dumps.ids())}
        source = _parquet(tmp_path, dumps.lists(dumps.logits()), **ids)

        line = refused(USAGE, "score", source, output, "--id", name)

        assert f"is {name!r}; expected a name that no column of the output has" in line

    def test_a_dry_run_finds_that_too(self, refused, output, tmp_path):
        source = _parquet(tmp_path, dumps.lists(dumps.logits()), label=pa.array(dumps.ids()))

        assert "'label'" in refused(USAGE, "score", source, output, "--id", "label", "--dry-run")


class TestShapeAndDtype:
    def test_an_array_of_1_axis_is_refused_with_its_shape(self, refused, output, tmp_path):
        source = _zarr(tmp_path, np.zeros(103, np.float32))

        assert "has shape (103,); expected 2 axes or more" in refused(DATA, "score", source, output)

    @pytest.mark.parametrize("axis", [7, -3])
    def test_an_axis_of_classes_that_is_not_there_is_refused(self, refused, output, tmp_path, axis):
        source = _zarr(tmp_path, dumps.logits())

        assert f"class_axis is {axis}; expected 0 or 1" in refused(DATA, "score", source, output, "--class-axis", axis)

    @pytest.mark.parametrize("dtype", ["int64", "uint64", "bool", "complex64"])
    def test_a_zarr_dtype_that_cannot_be_logits_is_refused(self, refused, output, tmp_path, dtype):
        source = _zarr(tmp_path, np.ones((4, 5), dtype))

        line = refused(DATA, "score", source, output)

        assert f"{source}: logits are {dtype}; expected bfloat16, float16" in line
        assert "Cast first" in line

    @pytest.mark.parametrize("dtype", [pa.int64(), pa.uint64(), pa.bool_(), pa.string()], ids=str)
    def test_a_parquet_dtype_that_cannot_be_logits_is_refused(self, refused, output, tmp_path, dtype):
        source = _parquet(tmp_path, pa.array([[1, 0], [0, 1]]).cast(pa.list_(dtype)))

        line = refused(DATA, "score", source, output)

        assert f"{source}: column 'logits'" in line
        assert str(dtype) in line
        assert "Cast first" in line

    def test_bfloat16_of_floats_is_refused(self, refused, source, output):
        line = refused(DATA, "score", source, output, "--source-dtype", "bfloat16")

        assert "logits are float32, but bfloat16 was asked for" in line

    def test_no_classes_are_refused(self, refused, output, tmp_path):
        source = _zarr(tmp_path, np.zeros((4, 0), np.float32))

        assert "has shape (4, 0); expected at least 1 class" in refused(DATA, "score", source, output)

    def test_lists_of_nothing_are_refused(self, refused, output, tmp_path):
        source = _parquet(tmp_path, pa.array([[], []], pa.list_(pa.float32())))

        assert "expected at least 1 class" in refused(DATA, "score", source, output)


class TestRows:
    @pytest.fixture
    def rows(self) -> list[Any]:
        return dumps.logits(40).tolist()

    def test_a_row_of_another_length_is_named(self, refused, rows, output, tmp_path):
        rows[17] = rows[17][:3]
        source = _parquet(tmp_path, pa.array(rows, pa.list_(pa.float32())))

        assert f"{source}: column 'logits': row 17 has 3 logits; expected 5" in refused(DATA, "score", source, output)

    @pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 5)], ids=["list", "fixed"])
    @pytest.mark.parametrize("row", [0, 17])
    def test_a_null_row_is_named(self, refused, rows, output, tmp_path, kind, row):
        rows[row] = None
        source = _parquet(tmp_path, pa.array(rows, kind))

        line = refused(DATA, "score", source, output)

        assert f"{source}: column 'logits': row {row} " in line
        assert "Leave the row out" in line

    @pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 5)], ids=["list", "fixed"])
    def test_a_null_inside_a_row_is_named(self, refused, rows, output, tmp_path, kind):
        rows[17][2] = None
        source = _parquet(tmp_path, pa.array(rows, kind))

        assert f"{source}: column 'logits': row 17 holds null" in refused(DATA, "score", source, output)

    def test_a_null_in_a_column_of_a_class_is_named(self, refused, rows, output, tmp_path):
        columns = {f"logit_{k}": [row[k] for row in rows] for k in range(5)}
        columns["logit_3"][17] = None
        source = dumps.parquet_file(tmp_path / "wide.parquet", pa.table(columns))

        assert f"{source}: column 'logit_3': row 17 is null" in refused(DATA, "score", source, output)

    def test_another_class_count_names_both_files(self, refused, output, tmp_path):
        for name, classes in (("one", 5), ("two", 6)):
            table = pa.table({"logits": dumps.fixed_lists(dumps.logits(classes=classes))})
            dumps.parquet_file(tmp_path / "dump" / f"{name}.parquet", table)

        line = refused(DATA, "score", tmp_path / "dump", output)

        assert all(part in line for part in ("one.parquet", "two.parquet", "lists of 5", "lists of 6"))


class TestBrokenFiles:
    @pytest.mark.parametrize("keep", [4, 1000, -1], ids=["magic only", "half", "all but a byte"])
    def test_a_truncated_parquet_file_is_refused(self, refused, output, tmp_path, keep):
        source = _parquet(tmp_path, dumps.lists(dumps.logits()))
        source.write_bytes(source.read_bytes()[:keep])

        line = refused(DATA, "score", source, output)

        assert line.startswith(f"{source}: is no whole Parquet file")
        assert "Copy it again" in line

    @pytest.mark.parametrize("options", [{"compression": "zstd"}, {"write_page_checksum": True}], ids=["zstd", "crc"])
    def test_parquet_pages_that_are_garbage_are_refused(self, refused, output, tmp_path, options):
        table = pa.table({"logits": dumps.lists(dumps.logits())})
        source = dumps.parquet_file(tmp_path / "logits.parquet", table, use_dictionary=False, **options)
        stored = bytearray(source.read_bytes())
        stored[400:800] = b"\x5a" * 400
        source.write_bytes(stored)

        assert refused(DATA, "score", source, output).startswith(f"{source}: ")

    def test_one_broken_file_of_a_folder_is_named(self, refused, output, tmp_path):
        table = pa.table({"logits": dumps.lists(dumps.logits())})
        folder = dumps.parquet_folder(tmp_path / "dump", table, [31, 60])
        broken = folder / "part-10.parquet"
        broken.write_bytes(broken.read_bytes()[:100])

        assert refused(DATA, "score", folder, output, "--settle", "0").startswith(f"{broken}: ")

    @pytest.mark.parametrize(
        ("break_it", "says"),
        [
            (lambda file: file.write_bytes(file.read_bytes()[:-20]), "does not decode"),
            (lambda file: file.write_bytes(b"\x5a" * 200), "does not decode"),
            (lambda file: file.write_bytes(b""), "is empty"),
            (lambda file: file.unlink(), "is not there"),
        ],
        ids=["cut", "garbage", "0 bytes", "missing"],
    )
    def test_a_broken_chunk_is_named(self, refused, source, output, break_it, says):
        break_it(source / "logits" / "c" / "3" / "0")

        line = refused(DATA, "score", source, output)

        assert line.startswith(f"{source}: chunk logits/c/3/0 ")
        assert says in line
        assert "Copy" in line

    def test_a_shard_of_no_bytes_is_named(self, refused, output, tmp_path):
        source = dumps.zarr_array(tmp_path / "s.zarr", dumps.logits(), chunks=(5, 5), shards=(30, 5))
        (source / "c" / "1" / "0").write_bytes(b"")

        assert "chunk c/1/0 is empty" in refused(DATA, "score", source, output)

    def test_broken_chunks_leave_the_output_that_is_to_be_replaced(self, refused, source, tmp_path):
        assert softmax_dask("score", source, tmp_path / "out.parquet").code == 0
        (source / "logits" / "c" / "3" / "0").unlink()

        refused(DATA, "score", source, tmp_path / "out.parquet", "--replace")


class TestFlags:
    @pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "-inf", "1e400", "hot", ""])
    def test_a_temperature_that_is_not_above_0_is_refused(self, refused, source, output, value):
        line = refused(USAGE, "score", source, output, f"--temperature={value}")

        assert line.startswith("--temperature: is ")
        assert "expected" in line

    def test_an_unknown_column_comes_with_the_nearest(self, refused, source, output):
        line = refused(USAGE, "score", source, output, "--columns", "label,confidense")

        assert line.startswith("--columns: is 'confidense'; expected one of label, ")
        assert "Did you mean 'confidence'?" in line

    @pytest.mark.parametrize(
        ("column", "remedy"), [("nll", "--target NAME"), ("correct", "--target NAME"), ("label_name", "--classes FILE")]
    )
    def test_a_column_that_lacks_what_it_needs_names_the_flag(self, refused, output, tmp_path, column, remedy):
        source = _zarr(tmp_path, dumps.logits())

        line = refused(USAGE, "score", source, output, "--columns", f"label,{column}")

        assert line.startswith(f"columns: {column!r} needs ")
        assert remedy in line

    def test_a_column_that_stands_twice_is_refused(self, refused, source, output):
        assert "'label' stands twice" in refused(USAGE, "score", source, output, "--columns", "label,label")

    def test_an_unknown_flag_comes_with_the_nearest(self, refused, source, output):
        line = refused(USAGE, "score", source, output, "--colums", "label")

        assert "--colums" in line
        assert "--columns" in line

    def test_a_missing_output_is_named(self, refused, source):
        assert "OUTPUT" in refused(USAGE, "score", source)

    def test_an_unknown_verb_is_named(self, refused):
        assert "'scor'" in refused(USAGE, "scor")

    def test_a_memory_limit_that_is_too_small_names_the_figure_needed(self, refused, source, output):
        line = refused(DATA, "score", source, output, "--memory-limit", "1MiB")

        needed = int(line.partition("expected at least ")[2].partition(" MiB")[0])
        assert line.startswith("memory_limit is 1 MiB; ")
        assert softmax_dask("score", source, output, "--memory-limit", f"{needed}MiB").code == 0

    @pytest.mark.parametrize("value", ["lots", "12 parsecs", "0", "-1GiB"])
    def test_a_memory_limit_that_is_none_is_refused(self, refused, source, output, value):
        line = refused(USAGE, "score", source, output, f"--memory-limit={value}")

        assert line.startswith("--memory-limit: is ")

    @pytest.mark.parametrize("value", ["0", "-2", "many"])
    def test_a_number_of_threads_that_is_none_is_refused(self, refused, source, output, value):
        assert refused(USAGE, "score", source, output, f"--threads={value}").startswith("--threads: is ")

    @pytest.mark.parametrize("flag", ["--dtype", "--nonfinite", "--source-format", "--output-format"])
    def test_a_word_that_is_none_of_those_expected_names_them(self, refused, source, output, flag):
        assert refused(USAGE, "score", source, output, flag, "int8").startswith(f"{flag}: is 'int8'; expected '")


class TestClassNamesAndTargets:
    @pytest.mark.parametrize("text", ["a\nb\nc\nd\n", '["a", "b", "c", "d"]'])
    def test_class_names_of_another_count_are_refused(self, refused, source, output, tmp_path, text):
        (tmp_path / "names.txt").write_text(text)

        line = refused(DATA, "score", source, output, "--classes", tmp_path / "names.txt")

        assert "4 class names for 5 classes; expected one each" in line

    def test_a_class_names_file_that_is_not_there_is_named(self, refused, source, output, tmp_path):
        line = refused(USAGE, "score", source, output, "--classes", tmp_path / "names.txt")

        assert line.startswith(f"{tmp_path / 'names.txt'}: is not there")

    @pytest.mark.parametrize("text", ["[1, 2]", '["a", "b"', '[["a"], "b"]', ""])
    def test_a_class_names_file_of_something_else_is_named(self, refused, source, output, tmp_path, text):
        (tmp_path / "names.json").write_text(text)

        line = refused(USAGE, "score", source, output, "--classes", tmp_path / "names.json")

        assert line.startswith(f"{tmp_path / 'names.json'}: ")

    @pytest.mark.parametrize("name", ["id", "target"])
    def test_ids_and_targets_of_another_length_are_refused(self, refused, source, output, name):
        shutil.rmtree(source / name)
        zarr.open_group(source).create_array(name, data=np.arange(102) % 5)

        line = refused(DATA, "score", source, output)

        assert line.startswith(f"{source}: {name}: has shape (102,); expected (103,)")

    @pytest.mark.parametrize("value", [5, -2])
    def test_a_target_out_of_range_is_named(self, refused, source, output, value):
        zarr.open_array(source / "target")[47] = value

        line = refused(DATA, "score", source, output)

        assert line.startswith(f"{source}: target: row 47 has target {value}; expected 0 to 4")

    def test_a_target_that_is_no_class_name_comes_with_the_nearest(self, refused, output, tmp_path):
        truth = pa.array(["cat", "dogg", "eel"])
        source = _parquet(tmp_path, dumps.lists(dumps.logits(3)), target=truth)
        (tmp_path / "names.txt").write_text("\n".join(dumps.CLASS_NAMES))

        line = refused(DATA, "score", source, output, "--classes", tmp_path / "names.txt")

        assert "row 1 has target 'dogg'" in line
        assert "Did you mean 'dog'?" in line

    def test_text_targets_without_class_names_are_refused(self, refused, output, tmp_path):
        source = _parquet(tmp_path, dumps.lists(dumps.logits(3)), target=pa.array(["cat", "dog", "eel"]))

        assert "targets are text and the source names no classes" in refused(DATA, "score", source, output)


class TestConfigFiles:
    @pytest.fixture
    def config(self, source: Path, output: Path, tmp_path: Path) -> Callable[..., Path]:
        """Writes a config: source and output on lines 1 to 4, then these lines."""

        def write(*lines: str) -> Path:
            head = ["source:", f"  path: {source}", "output:", f"  path: {output}"]
            (tmp_path / "run.yaml").write_text("\n".join([*head, *lines, ""]))
            return tmp_path / "run.yaml"

        return write

    @pytest.mark.parametrize("verb", ["run", "plan"])
    def test_an_unknown_key_is_named_with_line_and_nearest(self, refused, config, verb):
        path = config("columns: [label]", "temprature: 2.0")

        line = refused(USAGE, verb, path)

        assert line.startswith(f"{path}:6: temprature: is no key; expected one of verb, source, output, ")
        assert "Did you mean 'temperature'?" in line

    def test_an_unknown_key_of_a_section_is_named_with_line_and_nearest(self, refused, config):
        path = config("  dtipe: float16")

        line = refused(USAGE, "run", path)

        assert line.startswith(f"{path}:5: output.dtipe: is no key; ")
        assert "Did you mean 'dtype'?" in line

    @pytest.mark.parametrize("value", ["0", "-1.0", ".nan", ".inf", "hot", "[1]", ""])
    def test_a_temperature_that_is_not_above_0_is_named_with_its_line(self, refused, config, value):
        path = config("columns:", "- label", f"temperature: {value}")

        assert refused(USAGE, "run", path).startswith(f"{path}:7: temperature: is ")

    def test_a_wrong_value_of_set_names_the_flag(self, refused, config):
        line = refused(USAGE, "run", config("temperature: 2"), "--set", "temperature=-1")

        assert line.startswith("--set temperature: is -1; expected a finite number above 0")

    @pytest.mark.parametrize("text", ["temperature", "=2", "output.path.more=2"])
    def test_a_set_that_is_no_assignment_is_refused(self, refused, config, text):
        assert refused(USAGE, "run", config(), "--set", text).startswith(f"--set {text}: ")

    def test_a_missing_key_is_named(self, refused, tmp_path):
        (tmp_path / "run.yaml").write_text("output:\n  path: out.zarr\n")

        assert refused(USAGE, "run", tmp_path / "run.yaml").endswith("source: is missing; expected a value.")

    @pytest.mark.parametrize(
        "text",
        ["source: [1", "a: b: c", "\t- x", "source: !!python/object/apply:os.getcwd []", "a: \x01"],
        ids=["open list", "two colons", "tab", "code", "control character"],
    )
    def test_text_that_is_no_yaml_is_refused_with_its_line(self, refused, tmp_path, text):
        (tmp_path / "run.yaml").write_text(f"columns: [label]\n{text}\n")

        line = refused(USAGE, "run", tmp_path / "run.yaml")

        assert line.startswith(f"{tmp_path / 'run.yaml'}:")

    @pytest.mark.parametrize("text", ["- source\n- output\n", "just text\n", "", "7\n"])
    def test_a_config_without_keys_is_refused(self, refused, tmp_path, text):
        (tmp_path / "run.yaml").write_text(text)

        assert "expected keys such as source:" in refused(USAGE, "run", tmp_path / "run.yaml")

    def test_a_key_that_stands_twice_is_refused(self, refused, config):
        path = config("temperature: 1", "temperature: 2")

        assert refused(USAGE, "run", path).startswith(f"{path}:6: temperature: ")

    @pytest.mark.parametrize(
        "text", ["a: &a [1]\nb: *a\n", "a: &a {k: 1}\nb:\n  <<: *a\n", "a: &a [[*a]]\n"], ids=["list", "merge", "cycle"]
    )
    def test_aliases_are_refused(self, refused, tmp_path, text):
        (tmp_path / "run.yaml").write_text(text)

        assert "expected no aliases" in refused(USAGE, "run", tmp_path / "run.yaml")

    def test_lists_in_lists_without_end_are_refused(self, refused, tmp_path):
        (tmp_path / "run.yaml").write_text("[" * 5000)

        assert refused(USAGE, "run", tmp_path / "run.yaml").startswith(f"{tmp_path / 'run.yaml'}: is no YAML")

    def test_a_config_that_is_not_there_is_named(self, refused, tmp_path):
        line = refused(USAGE, "run", tmp_path / "none.yaml")

        assert line.startswith(f"{tmp_path / 'none.yaml'}: is not there")

    def test_a_config_that_is_a_folder_or_no_text_is_refused(self, refused, tmp_path):
        (tmp_path / "run.yaml").write_bytes(b"\xff\xfe\x00")

        assert "is a folder" in refused(USAGE, "run", tmp_path)
        assert "is not UTF-8 text" in refused(USAGE, "run", tmp_path / "run.yaml")


def _modes_hold() -> bool:
    """Whether a command can be run for which the modes of files hold."""
    if not sys.platform.startswith("linux"):
        return os.name == "posix" and os.getuid() != 0
    return subprocess.run([*UNPRIVILEGED, sys.executable, "-c", ""], check=False, timeout=60).returncode == 0


@pytest.fixture
def closed() -> Iterator[Callable[[Path, int], None]]:
    """Changes the mode of a path for the length of a test."""
    changed: list[tuple[Path, int]] = []

    def close(path: Path, mode: int) -> None:
        changed.append((path, path.stat().st_mode))
        path.chmod(mode)

    yield close
    for path, mode in reversed(changed):
        path.chmod(mode)


@pytest.mark.skipif(not _modes_hold(), reason="this user cannot give up the right to open every file")
class TestPermissions:
    @pytest.mark.parametrize("part", ["", "logits", "logits/zarr.json", "logits/c/3/0", "target/c/1"])
    def test_what_may_not_be_read_is_named(self, source, output, tmp_path, closed, part):
        closed(source / part, 0)
        before = tree(tmp_path)

        line = _only_line(run_alone("score", source, output, before=UNPRIVILEGED), USAGE)

        assert line.startswith(f"{source}")
        assert "permission" in line
        assert tree(tmp_path) == before

    def test_a_parquet_file_that_may_not_be_read_is_named(self, output, tmp_path, closed):
        table = pa.table({"logits": dumps.lists(dumps.logits())})
        folder = dumps.parquet_folder(tmp_path / "dump", table, [31, 60])
        closed(folder / "part-5.parquet", 0)

        line = _only_line(run_alone("score", folder, output, before=UNPRIVILEGED), USAGE)

        assert line.startswith(f"{folder / 'part-5.parquet'}: cannot be read")
        assert not output.exists()

    @pytest.mark.parametrize("name", ["out.zarr", "out.parquet"])
    def test_where_may_not_be_written_is_named(self, source, tmp_path, closed, name):
        (tmp_path / "closed").mkdir()
        closed(tmp_path / "closed", 0o555)
        before = tree(tmp_path)

        line = _only_line(run_alone("score", source, tmp_path / "closed" / name, before=UNPRIVILEGED), USAGE)

        assert line.startswith(f"{tmp_path / 'closed' / name}")
        assert "cannot be written" in line
        assert tree(tmp_path) == before

    def test_a_config_that_may_not_be_read_is_named(self, tmp_path, closed):
        (tmp_path / "run.yaml").write_text("source: {}")
        closed(tmp_path / "run.yaml", 0)

        line = _only_line(run_alone("run", tmp_path / "run.yaml", before=UNPRIVILEGED), USAGE)

        assert line.startswith(f"{tmp_path / 'run.yaml'}: cannot be read")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a device of 600 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux has tmpfs")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=600K"):
        pytest.skip(f"a small device cannot be mounted here: {os.strerror(ctypes.get_errno())}")
    yield folder
    libc.umount2(os.fsencode(folder), 2)


class TestFullDisk:
    @pytest.fixture
    def large(self, tmp_path: Path) -> Path:
        return dumps.zarr_array(tmp_path / "logits.zarr", dumps.logits(10_000, 100), chunks=(1000, 100))

    @pytest.mark.parametrize("name", ["out.zarr", "out.parquet"])
    def test_it_is_exit_75_and_leaves_nothing(self, large, small_disk, name):
        flags = ("--columns", "probabilities", "--dtype", "float64")

        outcome = softmax_dask("score", large, small_disk / name, *flags)

        assert outcome.code == AGAIN
        warning, line = outcome.err.splitlines()
        assert warning.startswith(f"Warning: {small_disk / name}: may need 8,000,000 bytes")
        assert line.startswith(f"Error: {small_disk}/")
        assert "no space left" in line
        assert "run the same command again" in line
        assert tree(small_disk) == {}

    def test_the_same_command_works_when_there_is_space(self, large, small_disk):
        (small_disk / "ballast").write_bytes(bytes(560 << 10))
        command = ("score", large, small_disk / "out.parquet", "--columns", "label,confidence")
        assert softmax_dask(*command).code == AGAIN
        (small_disk / "ballast").unlink()

        outcome = softmax_dask(*command, "--json")

        assert outcome.code == 0, outcome.err
        assert json.loads(outcome.out)["rows"] == 10_000


class TestRoom:
    """What the plan knows of the disk, before anything is written."""

    @staticmethod
    def _leave(monkeypatch, free):
        usage = shutil.disk_usage("/")._replace(free=free)
        monkeypatch.setattr("softmax_dask_pipelines.output_checks.shutil.disk_usage", lambda path: usage)

    def test_an_output_that_cannot_fit_is_refused(self, refused, source, output, monkeypatch):
        self._leave(monkeypatch, 10)

        said = refused(AGAIN, "score", source, output, "--columns", "probabilities")

        assert "has 10 left; expected more room. Free some" in said

    def test_an_output_that_may_not_fit_is_written_with_a_warning(self, source, output, monkeypatch):
        self._leave(monkeypatch, 1000)

        outcome = softmax_dask("score", source, output, "--columns", "probabilities")

        assert outcome.code == 0
        assert "before compression, and" in outcome.err
