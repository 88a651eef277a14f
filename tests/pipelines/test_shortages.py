"""What the machine does not give is no bug of ours: one line, and a code of the contract."""

import errno
import subprocess
import sys

import numpy as np
import pytest
import zarr

from softmax_dask_pipelines import machine
from softmax_dask_pipelines.cli import shortages
from softmax_dask_pipelines.errors import MemoryBudgetError, TemporaryError

BAD_DATA, LATER = 3, 75

# The limit comes when everything is loaded, as libraries say in their own ways that they could not be.
_LIMITED = """
import resource, sys
from softmax_dask_pipelines import machine
from softmax_dask_pipelines.cli import main, scoring
def limited(real=scoring.carry_out):
    def carry_out(*args, **named):
        taken = machine._memory_bytes()[0]
        resource.setrlimit(resource.RLIMIT_AS, (taken + (64 << 20),) * 2)
        return real(*args, **named)
    return carry_out
scoring.carry_out = limited()
import numpy as np, softmax_dask
softmax_dask.decisions(np.zeros((4, 4), np.float32), columns=("label", "confidence", "entropy"))
main(prog_name="softmax-dask")
"""


def test_a_run_that_is_out_of_memory_says_so_and_writes_nothing(tmp_path):
    logits = np.zeros((20_000, 1000), np.float32)
    zarr.create_array(tmp_path / "in.zarr", data=logits, chunks=logits.shape, compressors=None)
    flags = ["--memory-limit", "4GiB", "--threads", "1"]
    command = [sys.executable, "-c", _LIMITED, "score", tmp_path / "in.zarr", tmp_path / "out.zarr", *flags]

    done = subprocess.run(command, capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (BAD_DATA, "")
    assert done.stderr.startswith("Error: memory ran out (")
    assert "the limit of this process is" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out.zarr").exists()


def test_a_memory_error_says_what_is_left_and_what_to_do():
    found = shortages.shortage(MemoryError("Unable to allocate 8 GiB"))

    assert isinstance(found, MemoryBudgetError)
    assert "memory ran out (Unable to allocate 8 GiB): " in str(found)
    assert "--memory-limit" in str(found)


@pytest.mark.parametrize("error", [OSError("cannot load libllvmlite.so"), SystemError("error return")])
def test_near_the_limit_of_address_space_whatever_fails_is_that(monkeypatch, error):
    monkeypatch.setattr(machine, "address_space_is_short", lambda: True)

    assert isinstance(shortages.shortage(error), MemoryBudgetError)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_without_files_to_open_the_same_command_may_work_later(number):
    found = shortages.shortage(OSError(number, "Too many open files", "/dump/0"))

    assert isinstance(found, TemporaryError)
    assert "ulimit -n" in str(found)


def test_without_threads_to_start_the_same_command_may_work_later():
    found = shortages.shortage(RuntimeError("can't start new thread"))

    assert isinstance(found, TemporaryError)
    assert "ulimit -u" in str(found)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O"), RuntimeError("no"), ValueError("no")])
def test_anything_else_is_no_shortage(error):
    assert shortages.shortage(error) is None
