"""The real command over a dump of many partitions, which notes each that it begins."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr

from tests.pipelines.faults.histories import tree_of

_CLASSES, _CHUNK_ROWS = 100, 2000
_PROGRAM = """
import os, sys
from softmax_dask_pipelines import plan, task
from softmax_dask_pipelines.console import main
from softmax_dask_pipelines.sources import blocks
if small := int(sys.argv.pop(1)):
    plan.CHUNK_BYTES = blocks.READ_BYTES = small >> 2
    plan.PARTITION_BYTES = small
begun, real = sys.argv.pop(1), task._Scoring.compute
def run(self):
    with open(begun, "a") as file:
        file.write(f"{self._partition.number}\\n")
    return real(self)
task._Scoring.compute = run
main()
"""
"""The command, in partitions of so many bytes (0: as it likes)."""


@dataclass(frozen=True)
class Site:
    """A dump, and where its scores go."""

    root: Path
    suffix: str
    partition_bytes: int

    @property
    def output(self) -> Path:
        return self.root / f"out.{self.suffix}"

    @property
    def job(self) -> Path:
        return self.root / f"out.{self.suffix}.job"

    @property
    def begun(self) -> Path:
        """A line for each partition that was begun, by any run."""
        return self.root / "begun"

    def start(self) -> "subprocess.Popen[bytes]":
        """The command, whose standard error is thrown away: people read it."""
        columns = ("--columns", "label,confidence,probabilities", "--threads", "2", "--quiet")
        before = [sys.executable, "-c", _PROGRAM, self.partition_bytes, self.begun]
        line = [*before, "score", self.root / "in.zarr", self.output, *columns]
        return subprocess.Popen(list(map(str, line)), stderr=subprocess.DEVNULL)

    def partitions_begun(self) -> int:
        return self.begun.read_bytes().count(b"\n") if self.begun.exists() else 0

    def clear(self) -> None:
        """Nothing was ever run."""
        for path in (self.output, self.job):
            shutil.rmtree(path, ignore_errors=True)
        self.begun.unlink(missing_ok=True)


@contextmanager
def site(suffix: str, *, rows: int, partition_bytes: int) -> Iterator[Site]:
    """In memory where that is possible."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        root = Path(folder)
        rng = np.random.default_rng(3)
        array = zarr.create_array(
            root / "in.zarr", shape=(rows, _CLASSES), chunks=(_CHUNK_ROWS, _CLASSES), dtype="float32", compressors=None
        )
        for start in range(0, rows, _CHUNK_ROWS):
            array[start : start + _CHUNK_ROWS] = rng.normal(size=(min(_CHUNK_ROWS, rows - start), _CLASSES))
        yield Site(root, suffix, partition_bytes)


@dataclass(frozen=True)
class Whole:
    """What a run comes to when nothing happens."""

    files: dict[str, bytes]
    partitions: int


def never_stopped(at: Site) -> Whole:
    """A run that nothing happens to; afterwards nothing was ever run."""
    assert at.start().wait() == 0
    whole = Whole(tree_of(at.output), at.partitions_begun())
    at.clear()
    return whole


def wait_for_partitions(process: "subprocess.Popen[bytes]", at: Site, count: int) -> bool:
    """Wait until so many are begun; False where the command ends before."""
    while at.partitions_begun() < count:
        if process.poll() is not None:
            return False
        time.sleep(0.001)  # files tell nobody that they have grown
    return True


def partitions_done(at: Site) -> int:
    """How many the journal tells of."""
    files = list(at.job.glob("journal-*.jsonl"))
    lines = [line for file in files for line in file.read_bytes().splitlines() if b"objects" in line]
    return len({json.loads(line[9:])["partition"] for line in lines if line.endswith(b"}")})


def has_committed(at: Site) -> bool:
    """Whether the decision has fallen."""
    return at.job.is_dir() and any(name.startswith("commit-") and name.endswith(".json") for name in os.listdir(at.job))
