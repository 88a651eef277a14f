"""A dump that grows, and the runs over it: every state in which a reader may find the output."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

from softmax_dask_pipelines import plan, retrying, score
from softmax_dask_pipelines.ledger import journal
from softmax_dask_pipelines.sources import blocks

ROWS = (20, 37, 48, 49)
"""After each growth; chunks and partitions have 8, so that the last one is partly filled each time but one."""
CLASSES = 5
LOGITS = np.random.default_rng(7).normal(scale=4, size=(60, CLASSES)).astype(np.float32)
LOGITS[:16, 0] = 50  # labels of whole chunks are 0, which is what Zarr fills with


@dataclass(frozen=True)
class Step:
    """One growth of the input, and the command that follows."""

    rows: int
    temperature: float = 1.0
    replace: bool = False


STEPS = (*(Step(rows) for rows in ROWS), Step(ROWS[-1], temperature=2.0, replace=True))


@dataclass(frozen=True)
class History:
    """Of one output."""

    root: Path
    source_format: str
    output_format: str

    @property
    def source(self) -> Path:
        return self.root / f"in.{self.source_format}"

    @property
    def output(self) -> Path:
        return self.root / f"out.{self.output_format}"

    @property
    def job(self) -> Path:
        return self.root / f"out.{self.output_format}.job"

    def grow(self, number: int) -> None:
        """Write what step `number` adds to the input."""
        first, last = (0, *ROWS)[number] if number < len(ROWS) else ROWS[-1], STEPS[number].rows
        if first < last:
            {"zarr": self._grow_zarr, "parquet": self._grow_parquet}[self.source_format](first, last)

    def run(self, number: int) -> Any:
        """The command of step `number`."""
        step = STEPS[number]
        result = score(
            self.source,
            self.output,
            columns=("label", "confidence", "probabilities"),
            temperature=step.temperature,
            threads=1,
            replace=step.replace,
        )
        return result.facts()["rows"]

    def states(self, number: int) -> list[tuple[int, float]]:
        """What a reader may find while step `number` runs: what was there, and what comes."""
        steps = STEPS[max(0, number - 1) : number + 1]
        return [(step.rows, step.temperature) for step in steps]

    def save(self, to: Path) -> None:
        """Copy everything, times included."""
        shutil.copytree(self.root, to, symlinks=True)

    def restore(self, saved: Path) -> None:
        """Put everything back as it was."""
        for entry in self.root.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        shutil.copytree(saved, self.root, symlinks=True, dirs_exist_ok=True)

    def _grow_zarr(self, first: int, last: int) -> None:
        if first == 0:
            group = zarr.create_group(self.source)
            group.create_array("logits", shape=(last, CLASSES), chunks=(8, CLASSES), dtype="float32")
            group.create_array("id", shape=(last,), chunks=(12,), dtype="int64")
        group = zarr.open_group(self.source, mode="r+", use_consolidated=False)
        for name, values in (("logits", LOGITS), ("id", np.arange(len(LOGITS)))):
            group[name].resize((last, *group[name].shape[1:]))
            group[name][first:last] = values[first:last]

    def _grow_parquet(self, first: int, last: int) -> None:
        self.source.mkdir(exist_ok=True)
        lists = pa.FixedSizeListArray.from_arrays(pa.array(LOGITS[first:last].ravel()), CLASSES)
        table = pa.table({"id": np.arange(first, last), "logits": lists})
        # Names fall while ids rise: files that come later are not the last ones.
        pq.write_table(table, self.source / f"part-{99 - first}.parquet")


def small_pieces() -> None:
    """Chunks and partitions of 8 rows, a journal that is synced each time, retries without waiting: in this process."""
    row_bytes = CLASSES * 4
    blocks.READ_BYTES = plan.CHUNK_BYTES = 8 * row_bytes
    plan.PARTITION_BYTES = 8 * (2 * row_bytes + 80)
    journal.SYNC_EVERY_S = 0.0
    retrying.FIRST_WAIT_S = 0.0


def tree_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def left_in(job: Path) -> set[str]:
    """Kinds of things in OUTPUT.job."""
    return {name.partition("-")[0] for name in os.listdir(job)}
