"""`doctor`: what a report of a bug, or of a slow run, should say of the machine and of what is installed."""

import json
import os
from typing import Any

import click

from softmax_dask_pipelines.cli.output import say

_PACKAGES = (
    "softmax-dask",
    "dask",
    "numba",
    "numpy",
    "ml_dtypes",
    "zarr",
    "numcodecs",
    "pyarrow",
    "pydantic",
    "click",
    "rich",
    "PyYAML",
    "fsspec",
    "google-crc32c",
    "xarray",
    "distributed",
)
_THREAD_SETTINGS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_ABSENT = "not installed"


@click.command(short_help="Say what is installed, and what this machine can do.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(*, as_json: bool) -> None:
    """Print versions, threads, kernels, free memory and disk, and measure memory, kernel and disk for a second.

    The disk is the one of the working directory: a file of up to 64 MB is written there, and removed.

    \b
    Example:
      softmax-dask doctor
    """
    found = _examined()
    say(json.dumps(found, indent=2) if as_json else _text(found))


def _examined() -> dict[str, Any]:
    import platform
    from pathlib import Path

    from softmax_dask_pipelines import machine

    here = Path.cwd()
    return {
        "python": f"{platform.python_version()} on {platform.platform()}",
        "versions": {name: _version(name) for name in _PACKAGES},
        "cores": machine.cores(),
        "thread_settings": {name: os.environ.get(name) for name in _THREAD_SETTINGS},
        "kernels": _kernels(),
        "gpu": _gpu(),
        "free_memory_bytes": machine.free_memory_bytes(),
        "memory_limit_bytes": machine.memory_limit_bytes(),
        "working_directory": str(here),
        "free_disk_bytes": machine.free_disk_bytes(here),
        "gigabytes_per_s": _measured(here),
    }


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return _ABSENT


def _kernels() -> dict[str, Any]:
    """What the library says of its kernels; all None where Numba finds no folder for its cache."""
    from dataclasses import asdict, fields

    from softmax_dask import KernelFacts, kernel_facts

    try:
        found: dict[str, Any] = asdict(kernel_facts())
    except RuntimeError:
        return {field.name: None for field in fields(KernelFacts)} | {"cache_is_writable": False}
    return found | {"cache_is_writable": _is_writable(found["cache_folder"])}


def _gpu() -> dict[str, Any]:
    from softmax_dask_pipelines.backend import trouble_with_gpu

    return {**_installed_for_gpu(), "trouble": trouble_with_gpu()}


def _installed_for_gpu() -> dict[str, Any]:
    try:
        import cupy
    except ModuleNotFoundError:
        return {"cupy": _ABSENT, "driver": _driver(), "devices": None}
    except ImportError as error:  # CUDA's own libraries are missing, say
        return {"cupy": f"cannot be imported: {error}", "driver": _driver(), "devices": None}
    try:
        devices = int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError:  # no driver, or no device
        devices = 0
    return {"cupy": str(cupy.__version__), "driver": _driver(), "devices": devices}


def _driver() -> str:
    """What Linux says of NVIDIA's driver; needs no CuPy."""
    from pathlib import Path

    try:
        return Path("/proc/driver/nvidia/version").read_text().splitlines()[0].strip()
    except (OSError, IndexError):
        return _ABSENT


def _measured(folder: Any) -> dict[str, float | None]:
    """GB/s; None where it cannot be measured: a folder that may not be written, kernels that do not load."""
    from softmax_dask_pipelines.cli import probe

    found: dict[str, float | None] = {"memory_read": probe.memory_read()}
    try:
        found["kernel"] = probe.kernel()
    except RuntimeError:  # Numba finds no folder for its cache
        found["kernel"] = None
    try:
        found["disk_write"], found["disk_read"] = probe.disk(folder)
    except OSError:
        found["disk_write"] = found["disk_read"] = None
    return found


def _text(found: dict[str, Any]) -> str:
    from softmax_dask_pipelines.summary import size, table

    kernels, gpu, rates = found["kernels"], found["gpu"], found["gigabytes_per_s"]
    limit = found["memory_limit_bytes"]
    versions = [f"{name} {version}" for name, version in found["versions"].items()]
    settings = [f"{name}={value}" for name, value in found["thread_settings"].items() if value is not None]
    writable = "" if kernels["cache_is_writable"] else ", cannot be written"
    return table(
        [
            ("python", found["python"]),
            *(("versions" if i == 0 else "", ", ".join(versions[i : i + 6])) for i in range(0, len(versions), 6)),
            ("threads", f"{found['cores']} cores; {', '.join(settings) or 'no setting in the environment'}"),
            ("kernels", _kernels_text(kernels)),
            ("cache", f"{kernels['cache_folder'] or 'no folder'}{writable}"),
            ("gpu", _gpu_text(gpu)),
            ("memory", f"{size(found['free_memory_bytes'])} free, limit {size(limit) if limit else 'none'}"),
            ("disk", f"{size(found['free_disk_bytes'])} free in {found['working_directory']}"),
            ("speed", ", ".join(_speed_text(name.replace("_", " "), rate) for name, rate in rates.items())),
        ]
    )


def _kernels_text(kernels: dict[str, Any]) -> str:
    if kernels["backend"] is None:
        return "none: set NUMBA_CACHE_DIR to a folder that may be written"
    halves = "float16 in hardware" if kernels["converts_float16"] else "float16 in software"
    return f"{kernels['backend']}, {kernels['instruction_set']}, {kernels['float32_lanes']} float32 lanes, {halves}"


def _gpu_text(gpu: dict[str, Any]) -> str:
    devices = "" if gpu["devices"] is None else f", {gpu['devices']} devices"
    trouble = "" if gpu["trouble"] is None else f"; backend auto takes the CPU: {gpu['trouble']}"
    return f"CuPy {gpu['cupy']}, driver {gpu['driver']}{devices}{trouble}"


def _speed_text(name: str, rate: float | None) -> str:
    return f"{name} {'cannot be measured' if rate is None else f'{rate:.2f} GB/s'}"


def _is_writable(folder: str) -> bool:
    """Whether files can be made there, or the folder itself where it is not there yet."""
    from pathlib import Path

    there = next(path for path in (Path(folder), *Path(folder).parents) if path.exists())
    return os.access(there, os.W_OK | os.X_OK)
