"""What this machine leaves us: memory, disk and cores, within the limits that this process is under."""

import os
import shutil
from math import isqrt
from pathlib import Path

from softmax_dask_pipelines.control_groups import memory_groups

_PROC = Path("/proc/self")
_COUNTED = {"RLIMIT_AS": 0, "RLIMIT_DATA": 5}
"""Limits of a process (`ulimit -v`, `ulimit -d`) -> which number of /proc/self/statm they are about."""


def free_memory_bytes() -> int:
    """Memory that this process may have: what it holds, and what the machine, control groups and `ulimit` leave it."""
    limits = _limits()
    left = resident_bytes() + min([_available_bytes(), *(max(0, most - used) for most, used in limits)])
    return min([left, *(most for most, _ in limits)])


def memory_limit_bytes() -> int | None:
    """The least of the limits that this process is under; None where there is none."""
    return min((most for most, _ in _limits()), default=None)


def address_space_is_short(margin_bytes: int = 256 << 20) -> bool:
    """Whether this process comes, or came, so near to its `ulimit -v` that loading a library may fail."""
    most, used = _own_limits().get("RLIMIT_AS", (None, 0))
    return most is not None and most - max(used, _peak_bytes()) < margin_bytes


def free_disk_bytes(folder: Path) -> int:
    """What this user may still write to the file system of a folder."""
    return shutil.disk_usage(folder).free


def resident_bytes() -> int:
    """Memory that this process holds now; 0 where the system does not say."""
    return _memory_bytes()[1]


def cores() -> int:
    """Cores that this process may use."""
    from dask.system import CPU_COUNT  # late: this module also says what is left when memory ran out

    return int(CPU_COUNT)


def processes(threads: int | None = None) -> int:
    """Processes that suit the cores: with so many threads each, or one a core up to four, then ever fewer a core."""
    if threads is not None:
        return max(1, cores() // threads)
    fewest = cores() if cores() <= 4 else max(4, isqrt(cores() - 1) + 1)
    return next(count for count in range(fewest, cores() + 1) if cores() % count == 0)


def _available_bytes() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _limits() -> list[tuple[int, int]]:
    """All that this process is under: how much, and how much of it is taken."""
    groups = [(group.most_bytes, group.used_bytes) for group in memory_groups()]
    return [*groups, *_own_limits().values()]


def _own_limits() -> dict[str, tuple[int, int]]:
    """Limits of memory that this process has -> how much, and how much of it is taken."""
    try:
        import resource
    except ModuleNotFoundError:  # not Unix
        return {}
    taken = _memory_bytes()
    soft = {name: resource.getrlimit(getattr(resource, name))[0] for name in _COUNTED}
    return {name: (most, taken[_COUNTED[name]]) for name, most in soft.items() if most != resource.RLIM_INFINITY}


def _memory_bytes() -> list[int]:
    """Address space, resident, shared, text, 0, data of this process; zeros where the system does not say."""
    try:
        return [int(pages) * os.sysconf("SC_PAGE_SIZE") for pages in (_PROC / "statm").read_text().split()]
    except (OSError, ValueError):
        return [0] * 7


def _peak_bytes() -> int:
    """The largest address space that this process ever had."""
    try:
        lines = (_PROC / "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmPeak:")), 0)
