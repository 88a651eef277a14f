"""What a shell does to a command: pipes that close, disks that are full, signals, and names that are not UTF-8."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.pipelines import dumps
from tests.pipelines.command import NOTICES_A_HANGUP, PROGRAM, Outcome, end, run_alone, softmax_dask, start, tree

NOT_UTF_8 = b"\xff.zarr"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """103 rows of 5 classes with ids, targets and class names."""
    return dumps.zarr_group(tmp_path / "logits.zarr", dumps.logits(), chunks=(10, 5))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dump whose scoring takes seconds."""
    path = tmp_path_factory.mktemp("large") / "logits.zarr"
    return dumps.zarr_array(path, dumps.logits(60_000, 100), chunks=(5000, 100), compressors=None)


def _closed_pipe() -> int:
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def _run(*arguments: object, out: Any = subprocess.PIPE, err: Any = subprocess.PIPE, **options: Any) -> Outcome:
    line = [*PROGRAM, *(str(argument) for argument in arguments)]
    done = subprocess.run(line, stdout=out, stderr=err, text=True, timeout=120, check=False, **options)
    return Outcome(done.returncode, done.stdout or "", done.stderr or "")


class TestVerbs:
    @pytest.mark.parametrize(("wrong", "right"), [("scoer", "score"), ("inpsect", "inspect"), ("validat", "validate")])
    def test_a_wrong_verb_comes_with_the_nearest(self, wrong, right):
        outcome = softmax_dask(wrong, "a", "b")

        assert outcome.code == 2
        assert outcome.err.startswith(f"Error: {wrong!r} is no verb; expected one of score, run, ")
        assert outcome.err.endswith(f" Did you mean {right!r}? See softmax-dask --help.\n")

    def test_a_verb_that_is_like_none_gets_no_guess(self):
        assert "Did you mean" not in softmax_dask("logits.zarr").err

    def test_an_unknown_flag_of_the_group_is_no_verb(self):
        outcome = softmax_dask("--colums", "label")

        assert outcome.code == 2
        assert "verb" not in outcome.err


class TestStdout:
    """A reader that stops reading, and a disk that is full."""

    @pytest.mark.parametrize("verb", ["inspect", "schema"])
    def test_a_reader_that_has_gone_is_no_error(self, source, tmp_path, verb):
        outcome = _run(verb, *([source] if verb == "inspect" else []), out=_closed_pipe(), cwd=tmp_path)

        assert (outcome.code, outcome.err) == (0, "")

    @pytest.mark.parametrize("flag", ["--json", "--threads=1"])
    def test_the_output_is_there_though_nobody_reads_the_summary(self, source, tmp_path, flag):
        outcome = _run("score", source, tmp_path / "out.parquet", flag, out=_closed_pipe())

        assert (outcome.code, outcome.err) == (0, "")
        assert len(pq.read_table(tmp_path / "out.parquet")) == 103

    @pytest.mark.parametrize("verb", ["inspect", "schema"])
    def test_a_full_disk_under_stdout_is_exit_75_in_one_line(self, source, tmp_path, verb):
        with open("/dev/full", "w") as full:
            outcome = _run(verb, *([source] if verb == "inspect" else []), out=full, cwd=tmp_path)

        assert outcome.code == 75
        assert re.fullmatch(r"Error: stdout: cannot be written \(No space left on device\); .*\n", outcome.err)

    def test_a_full_disk_under_stdout_leaves_the_output(self, source, tmp_path):
        with open("/dev/full", "w") as full:
            outcome = _run("score", source, tmp_path / "out.parquet", out=full)

        assert outcome.code == 75
        assert len(pq.read_table(tmp_path / "out.parquet")) == 103

    @pytest.mark.parametrize("words", [["--help"], ["--version"], ["score", "--help"]])
    def test_help_on_a_full_disk_is_exit_75_in_one_line(self, words):
        with open("/dev/full", "w") as full:
            outcome = _run(*words, out=full)

        assert outcome.code == 75
        assert re.fullmatch(r"Error: stdout: cannot be written \(No space left on device\); .*\n", outcome.err)

    def test_a_closed_stdout_is_no_error(self, source):
        outcome = _run("inspect", source, out=None, preexec_fn=lambda: os.close(1))

        assert (outcome.code, outcome.err) == (0, "")


class TestStderr:
    """Nobody reads the warnings: no reason to end a run."""

    @pytest.mark.parametrize(
        "stderr", [_closed_pipe, lambda: os.open("/dev/full", os.O_WRONLY)], ids=["nobody reads", "a full disk"]
    )
    def test_a_warning_that_cannot_be_shown_does_not_end_the_run(self, tmp_path, stderr):
        source = dumps.zarr_array(tmp_path / "in.zarr", dumps.logits(classes=1), chunks=(10, 1))

        outcome = _run("score", source, tmp_path / "out.parquet", err=stderr())

        assert outcome.code == 0
        assert len(pq.read_table(tmp_path / "out.parquet")) == 103

    @pytest.mark.parametrize(
        "stderr", [_closed_pipe, lambda: os.open("/dev/full", os.O_WRONLY)], ids=["nobody reads", "a full disk"]
    )
    def test_an_error_that_cannot_be_shown_keeps_its_exit_code(self, tmp_path, stderr):
        assert _run("inspect", tmp_path / "none.zarr", err=stderr()).code == 2

    def test_a_closed_stderr_is_no_error(self, source, tmp_path):
        outcome = _run("score", source, tmp_path / "out.parquet", err=None, preexec_fn=lambda: os.close(2))

        assert outcome.code == 0
        assert outcome.out.startswith("rows ")


class TestSignals:
    @pytest.fixture
    def command(self, large: Path, tmp_path: Path) -> list[object]:
        columns = "label,probabilities,log_probabilities"
        return ["score", large, tmp_path / "out.zarr", "--columns", columns, "--dtype", "float64", "--threads", 1]

    @pytest.mark.parametrize(
        "signals",
        [(signal.SIGHUP,), (signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM, signal.SIGINT)],
        ids=["a terminal that closes", "SIGTERM twice", "three at once"],
    )
    def test_they_end_it_with_75_and_nothing_stays(self, command, tmp_path, signals):
        process = _writing(command, tmp_path, before=NOTICES_A_HANGUP)

        for number in signals:
            process.send_signal(number)
        outcome = end(process)

        assert outcome.code == 75
        assert re.fullmatch(r"Error: interrupted; .*again.*\n", outcome.err)
        assert tree(tmp_path) == {}

    def test_nohup_keeps_it_running_when_the_terminal_closes(self, command, tmp_path):
        process = _writing(command, tmp_path, before=("nohup",))

        process.send_signal(signal.SIGHUP)

        assert end(process).code == 0
        assert (tmp_path / "out.zarr" / "zarr.json").exists()

    def test_after_the_command_signals_do_what_they_did(self):
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]

        softmax_dask("schema")

        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def _writing(command: list[Any], folder: Path, **options: Any) -> "subprocess.Popen[str]":
    """The command, once it writes results."""
    process = start(*command, "--quiet", **options)
    while not any(folder.rglob("c.*")):
        try:
            process.wait(timeout=0.002)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"ended before it wrote: {end(process)}")
    return process


class TestNamesThatAreNotUtf8:
    """Linux allows any byte in a name but `/` and 0."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A folder of such a name, with a dump in it."""
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xfe"))
        folder.mkdir()
        dumps.zarr_group(folder / "logits.zarr", dumps.logits(), chunks=(10, 5))
        return folder

    @pytest.mark.parametrize("verb", [["inspect"], ["score"], ["score", "--json"]], ids=" ".join)
    def test_a_source_of_such_a_name_is_refused_in_one_line(self, source, tmp_path, verb):
        os.rename(source, os.fsencode(tmp_path) + b"/" + NOT_UTF_8)
        output = [] if verb == ["inspect"] else [tmp_path / "out.parquet"]

        outcome = run_alone(verb[0], tmp_path / os.fsdecode(NOT_UTF_8), *output, *verb[1:])

        assert (outcome.code, outcome.out) == (2, "")
        expected = r"Error: SOURCE: is '.*\\udcff\.zarr'; expected text that is UTF-8\. Rename the file, .*\n"
        assert re.fullmatch(expected, outcome.err)

    def test_an_output_of_such_a_name_is_refused_and_not_made(self, source, tmp_path):
        before = tree(tmp_path)

        outcome = run_alone("score", source, tmp_path / os.fsdecode(NOT_UTF_8))

        assert outcome.code == 2
        assert outcome.err.startswith("Error: OUTPUT: is ")
        assert tree(tmp_path) == before

    def test_a_part_of_such_a_name_is_refused_in_one_line(self, tmp_path):
        (tmp_path / "in").mkdir()
        table = dumps.parquet_table({"logits": dumps.fixed_lists(dumps.logits())})
        part = dumps.parquet_file(tmp_path / "in" / "part.parquet", table)
        os.rename(part, os.fsencode(tmp_path) + b"/in/\xff.parquet")

        outcome = run_alone("inspect", tmp_path / "in")

        assert outcome.code == 2
        assert re.fullmatch(r"Error: .*\\udcff\.parquet: .*UTF-8.*\n", outcome.err)

    @pytest.mark.parametrize("verb", [["inspect", "logits.zarr"], ["doctor"]], ids=["inspect", "doctor"])
    def test_inside_a_folder_of_such_a_name_text_has_it_with_an_escape(self, folder, verb):
        outcome = run_alone(*verb, cwd=folder)

        assert (outcome.code, outcome.err) == (0, "")
        assert "/\\udcfe" in outcome.out

    @pytest.mark.parametrize(
        ("verb", "path"),
        [(["inspect", "logits.zarr"], lambda found: found["path"]), (["doctor"], lambda f: f["working_directory"])],
        ids=["inspect", "doctor"],
    )
    def test_inside_a_folder_of_such_a_name_json_has_it_as_python_writes_it(self, folder, verb, path):
        outcome = run_alone(*verb, "--json", cwd=folder)

        found: Callable[[Any], str] = path
        assert Path(found(json.loads(outcome.out))).is_relative_to(folder)

    @pytest.mark.parametrize("name", ["out.zarr", "out.parquet"])
    def test_inside_a_folder_of_such_a_name_a_run_is_scored_and_recorded(self, folder, name):
        outcome = run_alone("score", "logits.zarr", name, cwd=folder)

        assert (outcome.code, outcome.err) == (0, "")
        (record,) = (folder / f"{name}.job" / "runs").iterdir()
        assert json.loads(record.read_text())["result"]["rows"] == 103


class TestMemory:
    @pytest.mark.parametrize(("limit", "said"), [("1", "1 B"), ("1000", "1000 B"), ("1MiB", "1 MiB")])
    def test_a_small_limit_is_shown_as_it_was_given(self, source, tmp_path, limit, said):
        outcome = softmax_dask("score", source, tmp_path / "out.zarr", "--memory-limit", limit)

        assert outcome.code == 3
        assert f"memory_limit is {said}; expected at least " in outcome.err
