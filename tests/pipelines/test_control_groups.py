"""Memory that control groups leave, of both versions, where the process is in one deep inside."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from softmax_dask_pipelines import control_groups
from softmax_dask_pipelines.control_groups import MemoryGroup, memory_groups

MIB = 1 << 20


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A system of our own: what /proc says of this process, and where groups are mounted."""
    proc = tmp_path / "proc"
    proc.mkdir()
    monkeypatch.setattr(control_groups, "_PROC", proc)
    return System(tmp_path)


class System:
    def __init__(self, folder: Path) -> None:
        self._proc, self.mounted = folder / "proc", folder / "groups"

    def version_2(self, path: str, *, root: str = "/") -> None:
        self._say(f"0::{path}", f"30 23 0:26 {root} {self.mounted} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate")

    def version_1(self, path: str, *, root: str = "/") -> None:
        self._say(
            f"5:cpu,cpuacct:/elsewhere\n4:memory:{path}\n0::/",
            f"31 23 0:27 / {self.mounted}-cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
            f"36 23 0:32 {root} {self.mounted} rw,nosuid shared:17 - cgroup cgroup rw,memory",
        )

    def _say(self, groups: str, mounts: str) -> None:
        disk = "22 1 254:1 / / rw,relatime - ext4 /dev/root rw"
        (self._proc / "cgroup").write_text(groups + "\n")
        (self._proc / "mountinfo").write_text(f"{disk}\n{mounts}\n")

    def group(self, path: str, **files: object) -> None:
        folder = self.mounted / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / f"memory.{name}").write_text(f"{content}\n")


def test_the_group_of_version_2_has_its_limit_and_its_use(system):
    system.version_2("/")
    system.group("", max=100 * MIB, current=30 * MIB)

    assert memory_groups() == [MemoryGroup(100 * MIB, 30 * MIB)]


def test_a_job_deep_inside_is_under_all_limits_above(system):
    system.version_2("/system.slice/slurmstepd.scope/job_7/step_0")
    system.group("system.slice/slurmstepd.scope/job_7/step_0", max="max", current=MIB)
    system.group("system.slice/slurmstepd.scope/job_7", max=8 * MIB, current=2 * MIB)
    system.group("system.slice", max=64 * MIB, current=32 * MIB)
    system.group("user.slice", max=1, current=1)  # another's

    assert memory_groups() == [MemoryGroup(8 * MIB, 2 * MIB), MemoryGroup(64 * MIB, 32 * MIB)]


def test_version_1_is_found_by_its_controller_and_no_limit_is_none(system):
    system.version_1("/slurm/uid_0/job_7")
    system.group("slurm/uid_0/job_7", limit_in_bytes=8 * MIB, usage_in_bytes=2 * MIB)
    system.group("slurm", limit_in_bytes=9223372036854771712, usage_in_bytes=2 * MIB)

    assert memory_groups() == [MemoryGroup(8 * MIB, 2 * MIB)]


@pytest.mark.parametrize("version", ["version_1", "version_2"])
def test_a_container_that_sees_its_own_group_alone(system, version):
    getattr(system, version)("/docker/4f3a", root="/docker/4f3a")
    system.group("", max=8 * MIB, current=MIB, limit_in_bytes=8 * MIB, usage_in_bytes=MIB)

    assert memory_groups() == [MemoryGroup(8 * MIB, MIB)]


@pytest.mark.parametrize("path", ["/../../job", "/other"])
def test_a_group_outside_of_what_is_mounted_counts_as_what_is_mounted(system, path):
    system.version_2(path, root="/docker/4f3a")
    system.group("", max=8 * MIB, current=MIB)

    assert memory_groups() == [MemoryGroup(8 * MIB, MIB)]


def test_where_memory_is_high_the_system_slows_a_group_down_so_that_counts_too(system):
    system.version_2("/")
    system.group("", max="max", high=5 * MIB, current=MIB)

    assert memory_groups() == [MemoryGroup(5 * MIB, MIB)]


@pytest.mark.parametrize(("version", "counters"), [("version_1", "total_"), ("version_2", "")])
def test_pages_of_files_that_were_read_are_not_in_use(system, version, counters):
    getattr(system, version)("/job")
    stat = f"anon {MIB}\n{counters}inactive_file {90 * MIB}\n{counters}active_file {6 * MIB}\nother_file 7"
    used = {"current": 100 * MIB, "usage_in_bytes": 100 * MIB, "stat": stat}
    system.group("job", max=100 * MIB, limit_in_bytes=100 * MIB, **used)

    assert memory_groups() == [MemoryGroup(100 * MIB, 4 * MIB)]


def test_without_groups_there_is_none(system):
    assert memory_groups() == []


@pytest.fixture
def real_group():
    """A group of this system, of 900 MiB, and what says which processes are in it."""
    folder = next((folder for folder, _ in control_groups._folders() if (folder / "memory.stat").exists()), None)
    if folder is None:
        pytest.skip("this system has no control groups of memory")
    inner = folder / f"softmax-dask-{os.getpid()}"
    try:
        inner.mkdir()
    except OSError as error:
        pytest.skip(f"no group can be made here: {error.strerror}")
    try:
        yield inner
    finally:
        with suppress(OSError):
            inner.rmdir()


def test_a_process_in_a_group_of_this_system_sees_the_limit(real_group):
    most = next((path for name in ("limit_in_bytes", "max") if (path := real_group / f"memory.{name}").exists()), None)
    if most is None:
        pytest.skip("groups inside of this one have no limit of memory")
    most.write_text(f"{900 * MIB}\n")
    code = """
import pathlib, sys
pathlib.Path(sys.argv[1], "cgroup.procs").write_text("0")
from softmax_dask_pipelines import machine
print(machine.memory_limit_bytes(), machine.free_memory_bytes() - machine.resident_bytes())
"""
    done = subprocess.run([sys.executable, "-c", code, str(real_group)], capture_output=True, text=True, check=True)

    limit, left = map(int, done.stdout.split())
    assert limit <= 900 * MIB
    assert left <= 900 * MIB
