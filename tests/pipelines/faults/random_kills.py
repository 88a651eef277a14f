"""kill -9 of the real command at random moments, again and again until it has once been left alone."""

import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from tests.pipelines.faults.histories import tree_of

_ROWS, _CLASSES = 60_000, 100
_PROGRAM = """
import os, sys
from softmax_dask_pipelines import plan, task
from softmax_dask_pipelines.cli import main
from softmax_dask_pipelines.sources import blocks
plan.CHUNK_BYTES = blocks.READ_BYTES = 1 << 18
plan.PARTITION_BYTES = 1 << 20
begun, real = sys.argv.pop(1), task._Scoring.run
def run(self):
    with open(begun, "a") as file:
        file.write(f"{self._partition.number}\\n")
    return real(self)
task._Scoring.run = run
main(prog_name="softmax-dask")
"""
"""The command, in partitions of a megabyte, which notes each partition that it begins."""


def random_kills(*, kills: int) -> dict[str, Any]:
    """So many, over as many histories as it takes, Zarr and Parquet in turns."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        root = Path(folder)
        _write_dump(root / "in.zarr")
        found: dict[str, Any] = {"tried": 0, "violations": [], "histories": 0, "partitions": 0, "begun": 0}
        expected = {suffix: _never_killed(root, suffix) for suffix in ("zarr", "parquet")}
        while found["tried"] < kills:
            suffix = ("zarr", "parquet")[found["histories"] % 2]
            _history(root, suffix, expected[suffix], found, most=kills - found["tried"])
    share = (found["begun"] - found["partitions"]) / max(1, found["partitions"])
    return found | {"recomputed partitions": share, "recomputed partitions a kill": share * found["partitions"] / kills}


def _history(
    root: Path, suffix: str, expected: tuple[dict[str, bytes], float], found: dict[str, Any], *, most: int
) -> None:
    output, begun = root / f"out.{suffix}", root / "begun"
    files, work_s = expected
    killed = 0
    while killed < min(most, 5 + found["histories"] % 7):
        size = _size(begun)
        process = _start(root, output, begun)
        while process.poll() is None and _size(begun) == size:  # not while it starts: that would be cheap
            time.sleep(0.002)
        time.sleep(random.uniform(0, work_s / 2))
        process.kill()
        ended = process.wait()
        if ended == 0:
            break
        killed += 1
        if output.exists() and tree_of(output) != files:
            found["violations"].append(f"{suffix}: a half after kill {found['tried'] + killed}")
    ended = _start(root, output, begun).wait()
    if ended or tree_of(output) != files:
        found["violations"].append(f"{suffix}: exit {ended} and other bytes after kill {found['tried'] + killed}")
    numbers = begun.read_text().split()
    found["tried"] += killed
    found["histories"] += 1
    found["begun"] += len(numbers)
    found["partitions"] += len(set(numbers))
    _clear(output, begun)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _never_killed(root: Path, suffix: str) -> tuple[dict[str, bytes], float]:
    """The output's files, and how long a run works."""
    output, begun = root / f"out.{suffix}", root / "begun"
    process = _start(root, output, begun)
    while not list(root.glob(f"out.{suffix}.job/plan-*.json")):
        time.sleep(0.002)
    begin = time.monotonic()
    assert process.wait() == 0
    files = tree_of(output), time.monotonic() - begin
    _clear(output, begun)
    return files


def _start(root: Path, output: Path, begun: Path) -> "subprocess.Popen[bytes]":
    columns = ("--columns", "label,confidence,probabilities", "--threads", "2", "--quiet")
    line = [sys.executable, "-c", _PROGRAM, begun, "score", root / "in.zarr", output, *columns]
    return subprocess.Popen(list(map(str, line)))


def _clear(output: Path, begun: Path) -> None:
    shutil.rmtree(output)
    shutil.rmtree(f"{output}.job")
    begun.unlink()


def _write_dump(path: Path) -> None:
    logits = np.random.default_rng(3).normal(size=(_ROWS, _CLASSES)).astype(np.float32)
    array = zarr.create_array(path, shape=logits.shape, chunks=(2000, _CLASSES), dtype="float32", compressors=None)
    array[:] = logits


def main() -> None:
    sys.stdout.write(json.dumps(random_kills(kills=int(sys.argv[1])), indent=2) + "\n")


if __name__ == "__main__":
    main()
