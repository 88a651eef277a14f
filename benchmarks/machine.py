"""Where figures come from: processor, instruction set, versions, and how busy the machine was."""

import os
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

from softmax_dask.kernels.cpu.simd import FLOAT32_LANES

PACKAGES = ("dask", "numba", "numcodecs", "numpy", "pyarrow", "zarr")
PEERS = ("torch", "jax", "scipy", "xarray", "polars", "duckdb")


def description() -> dict[str, Any]:
    """Facts of this machine, JSON types only."""
    return {
        "processor": _processor(),
        "instruction_set": instruction_set(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: found for name in (*PACKAGES, *PEERS) if (found := _version(name))},
        "missing": [name for name in PEERS if _version(name) is None],
    }


def instruction_set() -> str:
    """Widest vectors that our kernels use here."""
    return "AVX-512" if FLOAT32_LANES == 16 else "AVX2" if "avx2" in _flags() else "neither AVX-512 nor AVX2"


def load() -> float:
    """Processes that wanted to run in the last minute."""
    return round(os.getloadavg()[0], 2)


def others_share() -> Callable[[], float]:
    """Of all cores' time from now until the result is called: the part that neither we nor our children took.

    0 where there is no /proc/stat. Children count when they have ended.
    """
    begin, busy, ours = perf_counter(), _busy_s(), _our_s()

    def share() -> float:
        others = (_busy_s() - busy) - (_our_s() - ours)
        return max(0.0, others) / max(1e-9, (perf_counter() - begin) * (os.cpu_count() or 1))

    return share


def _busy_s() -> float:
    """Seconds of all cores in which they were not idle, or were another machine's (`steal`)."""
    path = Path("/proc/stat")
    if not path.exists():
        return 0.0
    user, nice, system, _, _, *interrupts_and_steal = path.read_text().partition("\n")[0].split()[1:9]
    ticks = sum(map(int, (user, nice, system, *interrupts_and_steal)))
    return ticks / os.sysconf("SC_CLK_TCK")


def _our_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor()


def _flags() -> list[str]:
    return _cpuinfo("flags").split()


def _cpuinfo(key: str) -> str:
    """First value of a key in /proc/cpuinfo; "" where there is none."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else ():
        if line.partition(":")[0].strip() == key:
            return line.partition(":")[2].strip()
    return ""
