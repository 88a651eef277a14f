"""One run at a time writes an output, and --replace replaces nothing but an output."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from softmax_dask_pipelines.errors import LockedError, PermissionDeniedError
from softmax_dask_pipelines.ledger.lock import locked
from tests.pipelines import dumps
from tests.pipelines.command import softmax_dask

USAGE, EXISTS, AGAIN = 2, 4, 75


@pytest.fixture
def source(tmp_path):
    return dumps.zarr_array(tmp_path / "in.zarr", dumps.logits(), chunks=(10, 5))


@pytest.fixture(params=["out.zarr", "out.parquet"])
def output(request, tmp_path):
    return tmp_path / request.param


def test_a_second_run_is_told_to_try_again_and_who_is_first(source, output):
    with locked(output) as run:
        outcome = softmax_dask("score", source, output)

    assert outcome.code == AGAIN
    who = f"run {run.run} on {run.host}, process {os.getpid()}, since {run.started.isoformat(timespec='seconds')}"
    assert outcome.err == (
        f"Error: {output}: another run is writing it ({who}); expected none. Wait for it to end, and run again.\n"
    )


@pytest.mark.parametrize("left", [b"", b'{"ru', b'{"run": "20260307T02', b"\0" * 200, b'{"run": "\x1b[31m"}'])
def test_what_a_killed_run_or_a_power_cut_leaves_in_the_lock_is_overwritten(output, left):
    lock = Path(f"{output}.job", "lock")
    lock.parent.mkdir()
    lock.write_bytes(left)

    with locked(output) as run, pytest.raises(LockedError, match=f"run {run.run} on "), locked(output):
        pass


@pytest.mark.parametrize("left", [b"", b"[]", b'{"run": "x"}'])
def test_a_second_run_ends_in_one_line_whatever_the_first_has_written(source, output, left):
    with locked(output):
        Path(f"{output}.job", "lock").write_bytes(left)
        outcome = softmax_dask("score", source, output)

    assert outcome.code == (EXISTS if left == b"[]" else AGAIN)
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("flags", [(), ("--replace",)])
def test_a_second_run_takes_nothing_from_the_first(source, output, flags):
    stage = Path(f"{output}.job", "stage")
    stage.mkdir(parents=True)
    (stage / "chunk").write_bytes(b"of the first run")

    with locked(output):
        softmax_dask("score", source, output, *flags)

    assert (stage / "chunk").read_bytes() == b"of the first run"


def test_the_lock_leaves_nothing_behind(output):
    with locked(output):
        assert Path(f"{output}.job", "lock").exists()

    assert not Path(f"{output}.job").exists()


def test_the_lock_of_a_killed_run_is_free(tmp_path, output):
    program = "import os, sys; from pathlib import Path; from softmax_dask_pipelines.ledger.lock import locked\n"
    program += "with locked(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", program, str(output)], check=False)
    assert Path(f"{output}.job", "lock").exists()

    with locked(output), pytest.raises(LockedError), locked(output):
        pass


def test_a_folder_of_other_things_is_not_replaced(source, output):
    output.mkdir()
    (output / "thesis.tex").write_text("years of work")

    outcome = softmax_dask("score", source, output, "--replace")

    assert outcome.code == EXISTS
    assert "other things than an output" in outcome.err
    assert (output / "thesis.tex").read_text() == "years of work"


def test_a_file_of_the_pattern_is_not_replaced(tmp_path):
    for name in ("a", "b"):
        table = pa.table({"logits": dumps.fixed_lists(dumps.logits())})
        dumps.parquet_file(tmp_path / "dump" / f"{name}.parquet", table)
    kept = (tmp_path / "dump" / "a.parquet").read_bytes()

    outcome = softmax_dask("score", tmp_path / "dump" / "*.parquet", tmp_path / "dump" / "a.parquet", "--replace")

    assert outcome.code == USAGE
    assert "is part of the source" in outcome.err
    assert (tmp_path / "dump" / "a.parquet").read_bytes() == kept


def test_the_file_of_class_names_is_not_replaced(source, tmp_path):
    names = tmp_path / "names.zarr"
    names.write_text("a\nb\nc\nd\ne\n")

    outcome = softmax_dask("score", source, names, "--classes", names, "--replace")

    assert outcome.code == USAGE
    assert names.read_text() == "a\nb\nc\nd\ne\n"


def test_a_source_in_the_job_folder_is_not_removed(tmp_path):
    source = dumps.zarr_array(tmp_path / "out.zarr.job" / "stage", dumps.logits(), chunks=(10, 5))

    outcome = softmax_dask("score", source, tmp_path / "out.zarr")

    assert outcome.code == USAGE
    assert (source / "zarr.json").exists()


def test_replacing_behind_a_link_keeps_the_link(source, output, tmp_path):
    real = tmp_path / f"real{output.suffix}"
    assert softmax_dask("score", source, real).code == 0
    output.symlink_to(real)

    outcome = softmax_dask("score", source, output, "--columns", "margin", "--replace")

    assert outcome.code == 0, outcome.err
    assert output.is_symlink()
    assert os.path.isdir(real)


def test_a_name_that_is_too_long_is_refused(source, tmp_path):
    outcome = softmax_dask("score", source, tmp_path / ("x" * 250 + ".zarr"))

    assert outcome.code == USAGE
    assert "name that is too long" in outcome.err


@pytest.mark.parametrize("flags", [(), ("--replace",)])
def test_a_file_of_somebody_else_in_the_place_of_the_lock_stays(source, output, flags):
    lock = Path(f"{output}.job", "lock")
    lock.parent.mkdir()
    lock.write_text("mine")

    outcome = softmax_dask("score", source, output, *flags)

    assert (outcome.code, lock.read_text()) == (EXISTS, "mine")
    assert outcome.err.startswith(f"Error: {lock}: is there, and no lock of a run; ")


def test_a_lock_that_cannot_be_read_back_is_a_path_that_cannot_be_written(tmp_path, monkeypatch):
    # `rclone mount` opens a file for both, and reads nothing of it.
    def pread(*_: object) -> bytes:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("softmax_dask_pipelines.ledger.lock.os.pread", pread)

    with (
        pytest.raises(PermissionDeniedError, match="lock: cannot be written; "),
        locked(tmp_path / "out.zarr"),
    ):
        pass
