"""Where figures come from: processor, instruction set, versions, and how busy the machine was."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
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
