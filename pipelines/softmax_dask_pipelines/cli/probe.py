"""How fast memory, a kernel and the disk are here, in about a second. Figures to compare by, not a benchmark."""

import os
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from time import perf_counter

import numpy as np

from softmax_dask import decisions
from softmax_dask_pipelines import storage

_TURN_S = 0.2
"""Each figure is taken for this long, or once."""
_MEMORY_BYTES = 128 << 20
"""More than the caches of most machines hold."""
_ROWS, _CLASSES = 2000, 1000
_DISK_BYTES = 64 << 20
_PIECE_BYTES = 4 << 20


def memory_read() -> float:
    """GB/s: one thread reads an array from end to end."""
    values = np.ones(_MEMORY_BYTES // 8)
    return _rate(values.max, values.nbytes)


def kernel() -> float:
    """GB/s: one thread decides rows of 1000 float32 classes, as a run does."""
    logits = np.random.default_rng(0).normal(size=(_ROWS, _CLASSES)).astype(np.float32)
    decisions(logits[:1], ("label", "confidence"))  # compiles, or loads
    return _rate(lambda: decisions(logits, ("label", "confidence")), logits.nbytes)


def disk(folder: Path) -> tuple[float, float]:
    """GB/s: new files are written and synced, then read after the system was asked to forget them; and removed."""
    inside = folder / f".softmax-dask-doctor-{token_hex(4)}"
    storage.make_folder(inside)
    try:
        written, seconds = _write(inside)
        begin = perf_counter()
        _read(inside)
        return written / seconds / 1e9, written / (perf_counter() - begin) / 1e9
    finally:
        storage.remove(inside)


def _write(folder: Path) -> tuple[int, float]:
    piece = np.random.default_rng(0).bytes(_PIECE_BYTES)  # a file system that compresses finds nothing to do
    begin, written = perf_counter(), 0
    while written < _DISK_BYTES and perf_counter() - begin < _TURN_S:
        written += storage.put(folder / str(written), [piece])
    return written, perf_counter() - begin


def _read(folder: Path) -> None:
    for path in folder.iterdir():
        with open(path, "rb", buffering=0) as file:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while file.read(_PIECE_BYTES):
                pass


def _rate(call: Callable[[], object], count: int) -> float:
    """GB/s of the fastest call: the others were disturbed."""
    begin, fastest = perf_counter(), float("inf")
    while perf_counter() - begin < _TURN_S:
        start = perf_counter()
        call()
        fastest = min(fastest, perf_counter() - start)
    return count / fastest / 1e9
