"""Peak resident memory (VmHWM) of processes that score, each started afresh.

Process: everything imported, and a dump of a hundred rows scored; with kernels from the cache, and compiled first.
Runs: a dump and one of eight times its rows, in blocks of 8 MB, two threads, partitions of 16 MiB in both: the
smaller has six or more.
`plan` is what the plan promised. Ids: two classes, so that ids, targets and class names are most of it.

    python -m benchmarks.memory
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

from benchmarks import script
from benchmarks.figures import Figure
from benchmarks.measure import Effort, Spread

MIB = 1 << 20

CLASSES = 100
BLOCK_ROWS = 20_000
"""Rows of a chunk or row group: 8 MB of float32."""

_WIDE, _NARROW = ["label", "confidence", "probabilities"], ["label", "confidence"]
_RUNS = (("zarr", "zarr", _WIDE), ("zarr", "parquet", _NARROW), ("parquet", "parquet", _NARROW))
_FEW = 12
_ROWS_WITH_IDS = 4_000_000

RUN = """
import json, sys
from softmax_dask_pipelines import plan, score
source, output, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
plan.PARTITION_BYTES = options.pop("partition_bytes")
cut = score(source, output, **options).job.plan
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(json.dumps({"peak_bytes": int(peak.split()[1]) << 10, "plan_bytes": cut.peak_bytes,
                  "threads": cut.threads, "partitions": cut.count, "partition_rows": cut.partition_rows}))
"""
"""Scores, and prints what its process took at most: VmHWM, because ru_maxrss begins with the parent's."""


def measured_run(
    source: Path, output: Path, *, partition_bytes: int = 16 * MIB, cache: Path | None = None, **options: Any
) -> dict[str, Any]:
    """Score in a process of its own: `peak_bytes` that it took, and what its plan said."""
    arguments = json.dumps(options | {"partition_bytes": partition_bytes})
    environment = os.environ | ({} if cache is None else {"NUMBA_CACHE_DIR": str(cache)})
    line = [sys.executable, "-c", RUN, str(source), str(output), arguments]
    found: dict[str, Any] = json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE, env=environment).stdout)
    return found


def write_zarr(path: Path, blocks: int) -> Path:
    """A dump of so many chunks, all alike."""
    block = _block(BLOCK_ROWS)
    shape, chunks = (blocks * BLOCK_ROWS, CLASSES), (BLOCK_ROWS, CLASSES)
    array = zarr.create_array(path, shape=shape, chunks=chunks, dtype="float32")
    for start in range(0, shape[0], BLOCK_ROWS):
        array[start : start + BLOCK_ROWS] = block
    return path


def write_parquet(path: Path, blocks: int, *, block_rows: int = BLOCK_ROWS) -> Path:
    """A dump of so many row groups, all alike."""
    values = pa.array(_block(block_rows).ravel())
    table = pa.table({"logits": pa.FixedSizeListArray.from_arrays(values, CLASSES)})
    with pq.ParquetWriter(path, table.schema, use_dictionary=False, compression="lz4") as file:
        for _ in range(blocks):
            file.write_table(table)
    return path


def write_with_ids(path: Path, rows: int) -> Path:
    """A Zarr dump of two classes, with ids, targets and class names."""
    random = np.random.default_rng(1)
    group = zarr.create_group(path, attributes={"class_names": ["ham", "spam"]})
    group.create_array("logits", data=random.normal(size=(rows, 2)).astype("float32"), chunks=(rows // 4, 2))
    group.create_array("target", data=random.integers(-1, 2, rows), chunks=(rows // 4,))
    texts = np.array([f"message-{row:010d}" for row in range(rows)], dtype=np.dtypes.StringDType())
    group.create_array("id", data=texts, chunks=(rows // 8,))
    return path


def _block(rows: int) -> Any:
    return np.random.default_rng(0).normal(scale=3, size=(rows, CLASSES)).astype("float32")


def figures(effort: Effort) -> Iterator[Figure]:
    """All of them with full effort, else runs from Zarr to Zarr alone: each is a process that begins afresh."""
    is_full = effort.name == "full"
    with tempfile.TemporaryDirectory() as folder:
        yield from _runs(Path(folder), _RUNS if is_full else _RUNS[:1])
        if is_full:
            yield from _process(Path(folder))
            yield from _ids(Path(folder))


def reset_peak() -> int:
    """Bytes that this process holds now; `peak_bytes` counts from here."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status_bytes("VmRSS")


def peak_bytes() -> int:
    """The most that this process has held."""
    return _status_bytes("VmHWM")


def _status_bytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{key}:"))


def _process(folder: Path) -> Iterator[Figure]:
    tiny = write_parquet(folder / "tiny.parquet", 1, block_rows=100)
    for suffix in ("zarr", "parquet"):
        for turn, state in enumerate(("kernels compiled", "from the cache")):
            output, cache = folder / f"of-tiny-{turn}.{suffix}", folder / f"cache-{suffix}"
            peak = measured_run(tiny, output, cache=cache)["peak_bytes"]
            yield _figure("a process that scores 100 rows", f"Parquet to {suffix}", state, peak)


def _runs(folder: Path, asked: Sequence[tuple[str, str, list[str]]]) -> Iterator[Figure]:
    table = f"memory of runs of {_FEW} and {8 * _FEW} blocks"
    for source, output, columns in asked:
        small, large = (_run_of(folder, source, output, columns, blocks) for blocks in (_FEW, 8 * _FEW))
        row = f"{source} to {output}, {', '.join(columns)}"
        yield _figure(table, row, "peak", small["peak_bytes"])
        yield _figure(table, row, "plan", small["plan_bytes"])
        yield _figure(table, row, "peak of 8 times the rows", large["peak_bytes"])
        growth = Spread.exactly(large["peak_bytes"] / small["peak_bytes"])
        yield Figure(table, row, "8 times the rows, of the peak", growth, "less")


def _run_of(folder: Path, source: str, output: str, columns: Sequence[str], blocks: int) -> dict[str, Any]:
    path = folder / f"{blocks}.{source}"
    if not path.exists():
        {"zarr": write_zarr, "parquet": write_parquet}[source](path, blocks)
    return measured_run(path, folder / f"{blocks}-{source}.{output}", columns=columns, threads=2)


def _ids(folder: Path) -> Iterator[Figure]:
    source = write_with_ids(folder / "ids.zarr", _ROWS_WITH_IDS)
    for suffix in ("zarr", "parquet"):
        run = measured_run(source, folder / f"of-ids.{suffix}", threads=1)
        table = f"memory of {_ROWS_WITH_IDS:,} rows with ids, targets and names"
        yield _figure(table, f"to {suffix}", "peak", run["peak_bytes"])
        yield _figure(table, f"to {suffix}", "plan", run["plan_bytes"])


def _figure(table: str, row: str, column: str, found_bytes: int) -> Figure:
    return Figure(table, row, column, Spread.exactly(found_bytes / MIB), "shown", "MiB")


if __name__ == "__main__":
    script.main(__doc__, figures)
