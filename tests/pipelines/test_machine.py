"""What the machine leaves us."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from softmax_dask_pipelines import machine

MIB = 1 << 20


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    """The folder of a cgroup, with no limit yet."""
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    return tmp_path


def limit(folder: Path, most: str, used: str) -> None:
    (folder / "memory.max").write_text(most + "\n")
    (folder / "memory.current").write_text(used + "\n")


def test_free_memory_lies_between_nothing_and_all_that_the_machine_has():
    free = machine.free_memory_bytes()

    assert 0 < free <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_the_cgroup_leaves_its_limit_less_what_it_uses(cgroup):
    limit(cgroup, str(100 * MIB), str(30 * MIB))

    assert machine.free_memory_bytes() == 70 * MIB


def test_a_cgroup_without_limit_leaves_what_the_machine_has(cgroup):
    limit(cgroup, "max", str(30 * MIB))

    assert machine.free_memory_bytes() > 100 * MIB


def test_a_limit_above_the_machine_does_not_count(cgroup):
    limit(cgroup, str(1 << 60), "0")

    assert machine.free_memory_bytes() < 1 << 60


def test_a_cgroup_that_uses_more_than_its_limit_leaves_nothing(cgroup):
    limit(cgroup, str(MIB), str(2 * MIB))

    assert machine.free_memory_bytes() == 0


def test_without_a_cgroup_the_machine_decides(cgroup):
    assert machine.free_memory_bytes() > 0


@pytest.mark.parametrize(("most", "known"), [(str(100 * MIB), 100 * MIB), ("max", None)])
def test_the_memory_limit_is_that_of_the_cgroup(cgroup, most, known):
    limit(cgroup, most, "0")

    assert machine.memory_limit_bytes() == known


def test_without_a_cgroup_there_is_no_memory_limit(cgroup):
    assert machine.memory_limit_bytes() is None


def test_free_disk_lies_between_nothing_and_the_size_of_the_disk(tmp_path):
    assert 0 < machine.free_disk_bytes(tmp_path) < os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize


def test_resident_memory_grows_with_what_is_held():
    code = """
import numpy as np
from softmax_dask_pipelines import machine
before = machine.resident_bytes()
held = np.ones(64 << 20, np.uint8)
print((machine.resident_bytes() - before) / held.nbytes)
"""
    # A process of its own: where tests ran before, memory that they held may be given back meanwhile.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert 0.9 < float(done.stdout) < 1.5


def test_cores_are_those_that_this_process_may_use():
    assert 1 <= machine.cores() <= len(os.sched_getaffinity(0))
