"""What the machine leaves us."""

import os
import subprocess
import sys

import pytest

from softmax_dask_pipelines import machine
from softmax_dask_pipelines.control_groups import MemoryGroup

MIB = 1 << 20


@pytest.fixture
def groups(monkeypatch):
    """Groups that this process is in, as a list to fill."""
    found: list[MemoryGroup] = []
    monkeypatch.setattr(machine, "memory_groups", lambda: found)
    monkeypatch.setattr(machine, "resident_bytes", lambda: 5 * MIB)
    return found


def limited(resource: str, most: int, said: str) -> str:
    """What a process says that has such a limit."""
    code = f"""
import resource
from softmax_dask_pipelines import machine
from softmax_dask_pipelines.control_groups import MemoryGroup
resource.setrlimit(resource.{resource}, ({most}, {most}))
print({said})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_free_memory_lies_between_nothing_and_all_that_the_machine_has():
    free = machine.free_memory_bytes()

    assert 0 < free <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_group_leaves_its_limit_less_what_it_uses_and_what_we_hold_is_ours(groups):
    groups.append(MemoryGroup(100 * MIB, 30 * MIB))

    assert machine.free_memory_bytes() == 70 * MIB + 5 * MIB
    assert machine.memory_limit_bytes() == 100 * MIB


def test_of_groups_inside_of_each_other_the_least_counts(groups):
    groups += [MemoryGroup(100 * MIB, 30 * MIB), MemoryGroup(200 * MIB, 190 * MIB)]

    assert machine.free_memory_bytes() == 10 * MIB + 5 * MIB
    assert machine.memory_limit_bytes() == 100 * MIB


def test_a_limit_above_the_machine_does_not_count(groups):
    groups.append(MemoryGroup(1 << 59, 0))

    assert machine.free_memory_bytes() < 1 << 59


def test_a_group_that_uses_more_than_its_limit_leaves_what_we_hold(groups):
    groups.append(MemoryGroup(64 * MIB, 65 * MIB))

    assert machine.free_memory_bytes() == 5 * MIB


def test_without_limits_the_machine_decides(groups, monkeypatch):
    monkeypatch.setattr(machine, "_own_limits", dict)

    assert machine.free_memory_bytes() > 5 * MIB
    assert machine.memory_limit_bytes() is None


@pytest.mark.parametrize("resource", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_limits_of_the_process_itself_count(resource):
    said = limited(resource, 8 << 30, "machine.memory_limit_bytes(), machine.free_memory_bytes()")

    limit, free = map(int, said.split())
    assert limit <= 8 << 30
    assert free <= 8 << 30


@pytest.mark.parametrize(("margin", "is_short"), [(0, False), (1 << 40, True)])
def test_address_space_is_short_near_its_limit(margin, is_short):
    assert limited("RLIMIT_AS", 1 << 40, f"machine.address_space_is_short({margin})") == str(is_short)


def test_address_space_without_a_limit_is_never_short():
    assert not machine.address_space_is_short(1 << 60)


def test_free_disk_lies_between_nothing_and_the_size_of_the_disk(tmp_path):
    assert 0 < machine.free_disk_bytes(tmp_path) < os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize


def test_resident_memory_grows_with_what_is_held():
    code = """
import numpy as np
from softmax_dask_pipelines import machine
from softmax_dask_pipelines.control_groups import MemoryGroup
before = machine.resident_bytes()
held = np.ones(64 << 20, np.uint8)
print((machine.resident_bytes() - before) / held.nbytes)
"""
    # A process of its own: where tests ran before, memory that they held may be given back meanwhile.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert 0.9 < float(done.stdout) < 1.5


def test_cores_are_those_that_this_process_may_use():
    assert 1 <= machine.cores() <= len(os.sched_getaffinity(0))
