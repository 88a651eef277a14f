"""Peak resident memory (VmHWM) of processes that score, each started afresh.

Process: everything imported, and a dump of a hundred rows scored; with kernels from the cache, and compiled first.
Runs: a dump and one of eight times its rows, two threads, partitions of 16 MiB in both: the smaller has six or more.
`plan` is what the plan promised. Ids: two classes, so that ids, targets and class names are most of it.

    python benchmarks/memory.py
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

MIB = 1 << 20

CLASSES = 100
BLOCK_ROWS = 20_000
"""Rows of a chunk or row group: 8 MB of float32."""

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


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        print_process(Path(folder))
        print_runs(Path(folder))
        print_ids(Path(folder))


def print_process(folder: Path) -> None:
    tiny = write_parquet(folder / "tiny.parquet", 1, block_rows=100)
    print("| a process that scores 100 rows | kernels compiled | from the cache |\n|---|---|---|")
    for suffix in ("zarr", "parquet"):
        compiled, cached = (
            measured_run(tiny, folder / f"of-tiny-{turn}.{suffix}", cache=folder / f"cache-{suffix}")["peak_bytes"]
            for turn in (1, 2)
        )
        print(f"| Parquet to {suffix} | {compiled / MIB:.0f} MiB | {cached / MIB:.0f} MiB |")


def print_runs(folder: Path) -> None:
    print("\n| run | peak | plan | peak of 8 times the rows | ratio |\n|---|---|---|---|---|")
    wide, narrow = ["label", "confidence", "probabilities"], ["label", "confidence"]
    for source, output, columns in (
        ("zarr", "zarr", wide),
        ("zarr", "parquet", narrow),
        ("parquet", "parquet", narrow),
    ):
        small, large = (_run_of(folder, source, output, columns, blocks) for blocks in (12, 96))
        print(
            f"| {source} -> {output}, {', '.join(columns)} | {small['peak_bytes'] / MIB:.0f} MiB "
            f"| {small['plan_bytes'] / MIB:.0f} MiB | {large['peak_bytes'] / MIB:.0f} MiB "
            f"| {large['peak_bytes'] / small['peak_bytes']:.2f} |"
        )


def _run_of(folder: Path, source: str, output: str, columns: Sequence[str], blocks: int) -> dict[str, Any]:
    path = folder / f"{blocks}.{source}"
    if not path.exists():
        {"zarr": write_zarr, "parquet": write_parquet}[source](path, blocks)
    return measured_run(path, folder / f"{blocks}-{source}.{output}", columns=columns, threads=2)


def print_ids(folder: Path) -> None:
    source = write_with_ids(folder / "ids.zarr", 4_000_000)
    print("\n| 2 classes, ids, targets, names; one thread | peak | plan |\n|---|---|---|")
    for suffix in ("zarr", "parquet"):
        run = measured_run(source, folder / f"of-ids.{suffix}", threads=1)
        print(f"| to {suffix} | {run['peak_bytes'] / MIB:.0f} MiB | {run['plan_bytes'] / MIB:.0f} MiB |")


if __name__ == "__main__":
    main()
