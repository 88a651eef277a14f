"""Runs CUDA kernels on the CPU: compiles their text with g++ and emulator.h, and launches them on NumPy arrays.

A launch runs in several schedules, with memory poisoned differently, in other numbers of blocks; all must leave the
same bytes, whatever else the test asserts.
"""

import ctypes
import fcntl
import hashlib
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from shutil import which
from typing import Any, NamedTuple

import numpy as np

from softmax_dask.kernels.cuda.text import package_text
from softmax_dask.kernels.cuda.variants import Kernel

HEADER = Path(__file__).with_name("emulator.h")
COMPILER = which("g++")
_NATIVE = ("-march=native",) if platform.machine() == "x86_64" else ()  # fused multiply-adds in hardware
_FLAGS = ("-std=c++17", "-O1", "-ffp-contract=off", "-w", "-fPIC", *_NATIVE)
_A_FILE = 24
"""Kernels compiled together: enough to pay for the header, few enough that a test that needs one need not wait."""


class Schedule(NamedTuple):
    """An order of threads, and what memory holds before."""

    order: int
    """0: warps as they are numbered, 1: the last one first, 2: warps and lanes shuffled at every turn"""
    poison: int
    """Byte of shared memory"""
    blocks: int
    """At most"""
    seed: int = 0


SCHEDULES = (Schedule(2, 0xFF, 3, 1), Schedule(0, 0x00, 2), Schedule(1, 0x7F, 1))


class _Buffer(ctypes.Structure):
    _fields_ = (("begin", ctypes.c_uint64), ("size", ctypes.c_uint64))


class _Launch(ctypes.Structure):
    _fields_ = (
        *(
            (name, ctypes.c_int)
            for name in ("blocks", "threads", "order", "poison", "seed", "traced", "flush", "count")
        ),
        ("buffers", ctypes.POINTER(_Buffer)),
    )


class _Report(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("loaded", "stored", "load_sectors", "store_sectors")),
        ("error", ctypes.c_char * 256),
    )


class EmulatorError(AssertionError):
    """A kernel did what a GPU forbids, or what schedules disagree on."""


@dataclass
class Traffic:
    """Bytes that launches moved, and the sectors of 32 bytes that their warps touched, access by access."""

    loaded: int = 0
    stored: int = 0
    load_sectors: int = 0
    store_sectors: int = 0


class Emulator:
    """A device whose memory is NumPy's."""

    def __init__(
        self, folder: Path, schedules: Sequence[Schedule] = SCHEDULES, *, text: str | None = None, traced: bool = False
    ) -> None:
        self.folder, self.schedules, self.traced = folder, schedules, traced
        self.text = package_text() if text is None else text
        self.traffic = Traffic()
        self.launched: list[str] = []
        self._functions: dict[str, Any] = {}

    def blocks(self, kernel: Kernel) -> int:
        return self.schedules[0].blocks

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        return np.frombuffer(bytearray(b"\xa5" * (int(np.prod(shape)) * dtype.itemsize)), dtype).reshape(shape)

    def compile(self, kernels: Iterable[Kernel]) -> None:
        """All at once, which is faster than one by one."""
        missing = list({k.name: k for k in kernels if k.name not in self._functions}.values())
        for i in range(0, len(missing), _A_FILE):
            part = missing[i : i + _A_FILE]
            library = ctypes.CDLL(str(_library(self.folder, self.text, tuple(part))))
            self._functions |= {kernel.name: getattr(library, f"emulate_{kernel.name}") for kernel in part}

    def launch(self, kernel: Kernel, blocks: int, arguments: tuple[Any, ...]) -> None:
        self.compile([kernel])
        self.launched.append(kernel.name)
        arrays = [a for a in arguments if isinstance(a, np.ndarray) and a.flags.writeable]
        before = [array.copy() for array in arrays]
        first: list[bytes] = []
        for schedule in self.schedules:
            for array, content in zip(arrays, before, strict=True):
                array[...] = content
            self._run(kernel, min(blocks, schedule.blocks), arguments, schedule)
            found = [array.tobytes() for array in arrays]
            first = first or found
            if found != first:
                raise EmulatorError(f"{kernel.name}: results depend on the schedule")

    def _run(self, kernel: Kernel, blocks: int, arguments: tuple[Any, ...], schedule: Schedule) -> None:
        values = [_value(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        extents = [_extent(argument) for argument in arguments if isinstance(argument, np.ndarray)]
        buffers = (_Buffer * len(extents))(*extents)
        flush = not any(isinstance(a, np.ndarray) and a.dtype == np.float64 for a in arguments)
        launch = _Launch(
            blocks,
            kernel.threads,
            schedule.order,
            schedule.poison,
            schedule.seed,
            self.traced,
            flush,
            len(extents),
            buffers,
        )
        report = _Report()
        self._functions[kernel.name](pointers, ctypes.byref(launch), ctypes.byref(report))
        if report.error:
            raise EmulatorError(f"{kernel.name}: {report.error.decode()}")
        if schedule is self.schedules[0]:
            for name in ("loaded", "stored", "load_sectors", "store_sectors"):
                setattr(self.traffic, name, getattr(self.traffic, name) + getattr(report, name))


_SCALARS = {
    np.dtype(np.int32): ctypes.c_int32,
    np.dtype(np.int64): ctypes.c_int64,
    np.dtype(np.float32): ctypes.c_float,
    np.dtype(np.float64): ctypes.c_double,
}


def _value(argument: Any) -> Any:
    if argument is None:
        return ctypes.c_void_p(0)
    if isinstance(argument, np.ndarray):
        return ctypes.c_void_p(argument.ctypes.data)
    return _SCALARS[argument.dtype](argument.item())


def _extent(array: Any) -> _Buffer:
    low, high = np.lib.array_utils.byte_bounds(array)
    return _Buffer(low, high - low if array.size else 0)


@cache
def _library(folder: Path, text: str, kernels: tuple[Kernel, ...]) -> Path:
    """The compiled kernels; kept under a name that says all that they are made from."""
    prefix = _prefix(folder, text)
    lines = "".join(f"{kernel.line}\nEMULATE({kernel.name})\n" for kernel in kernels)
    path = folder / f"{prefix.stem}-{_digest(lines)}.so"
    with _alone(path):
        if not path.exists():
            _compile(path, "-shared", "-x", "c++", "-include", str(prefix), "-", code=lines)
    return path


@cache
def _prefix(folder: Path, text: str) -> Path:
    """A header with the emulator and the text; compiled ahead, so that a single kernel costs little."""
    code = f"#pragma once\n{HEADER.read_text(encoding='utf-8')}\n{text}"
    folder.mkdir(parents=True, exist_ok=True)
    made_from = (code, *_FLAGS, platform.processor(), platform.node(), str(COMPILER))
    header = folder / f"{_digest(repr(made_from))}.h"
    ahead = header.with_suffix(".h.gch")
    with _alone(header):
        if not ahead.exists():
            header.write_text(code, encoding="utf-8")
            _compile(ahead, "-x", "c++-header", str(header))
    return header


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Processes that run tests beside this one need the same files."""
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _compile(path: Path, *arguments: str, code: str = "") -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        made = Path(scratch) / path.name
        command = [str(COMPILER), *_FLAGS, *arguments, "-o", str(made)]
        subprocess.run(command, input=code, text=True, check=True, timeout=600)
        os.replace(made, path)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]
