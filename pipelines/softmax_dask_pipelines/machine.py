"""What this machine leaves us: memory, disk and cores, cgroup limits included."""

import os
import shutil
from math import isqrt
from pathlib import Path

from dask.system import CPU_COUNT

_CGROUP = Path("/sys/fs/cgroup")


def free_memory_bytes() -> int:
    """Memory that a process may still take: what the machine has available, or the cgroup leaves if that is less."""
    left = [_available_bytes()]
    limit, used = _number(_CGROUP / "memory.max"), _number(_CGROUP / "memory.current")
    if limit is not None and used is not None:
        left.append(max(0, limit - used))
    return min(left)


def memory_limit_bytes() -> int | None:
    """Limit of the cgroup that this process is in; None where there is none."""
    return _number(_CGROUP / "memory.max")


def free_disk_bytes(folder: Path) -> int:
    """What this user may still write to the file system of a folder."""
    return shutil.disk_usage(folder).free


def resident_bytes() -> int:
    """Memory that this process holds now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def cores() -> int:
    """Cores that this process may use."""
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


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # not Linux, no cgroup, or "max"
        return None
