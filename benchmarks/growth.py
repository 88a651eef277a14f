"""Memory that a run adds to a process with everything imported, beside what idiomatic Dask adds.

Each in a process of its own that has run once on the smallest of dumps, so that nothing more is imported or compiled:
then the peak of memory is reset and the same run made on the dump. Zarr to Zarr, lz4, chunks of 4 MB, every core.

    python -m benchmarks.growth
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import runs, script
from benchmarks.dumps import zarr_dump
from benchmarks.figures import Figure
from benchmarks.measure import Effort, Spread
from softmax_dask_pipelines.machine import cores
from softmax_dask_pipelines.sources.blocks import READ_BYTES

MIB = 1 << 20
TABLE = "memory a run adds"

RUN = """
import gc, json, sys
from pathlib import Path
from benchmarks import memory, score
who, tiny, source, output, *columns = sys.argv[1:]
score.run(who, Path(tiny), Path(output) / "warm.zarr", columns)
gc.collect()
before = memory.reset_peak()
score.run(who, Path(source), Path(output) / "out.zarr", columns)
print(json.dumps(memory.peak_bytes() - before))
"""


def figures(effort: Effort) -> Iterator[Figure]:
    """A row with probabilities and one without."""
    turns = 3 if effort.name == "full" else 1
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "warm").mkdir()
        tiny = zarr_dump(Path(folder) / "warm", "lz4", 1 << 18)
        source = zarr_dump(Path(folder), "lz4", effort.dump_bytes)
        for row, columns in (("decisions", runs.NARROW), ("with probabilities", runs.WIDE)):
            ours, dask = ([added_bytes(who, tiny, source, columns) for _ in range(turns)] for who in ("ours", "dask"))
            yield from _row(row, ours, dask)


def added_bytes(who: str, tiny: Path, source: Path, columns: Sequence[str]) -> int:
    """Peak of a run less what its process held before."""
    with tempfile.TemporaryDirectory(dir=source.parent) as output:
        line = [sys.executable, "-c", RUN, who, str(tiny), str(source), output, *columns]
        done = subprocess.run(line, check=True, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
    found: int = json.loads(done.stdout)
    return found


def _row(row: str, ours: Sequence[int], dask: Sequence[int]) -> Iterator[Figure]:
    allowed = cores() * 4 * READ_BYTES + 32 * MIB
    beside = Spread.of([a / b for a, b in zip(ours, dask, strict=True)])
    yield Figure(TABLE, row, "of what Dask adds", beside, "less")
    bound = Spread.of([added / allowed for added in ours])
    yield Figure(TABLE, row, "of threads x (3 blocks + encoded) + 32 MiB", bound, "less")
    yield Figure(TABLE, row, "ours", Spread.of([added / MIB for added in ours]), "shown", "MiB")
    yield Figure(TABLE, row, "Dask", Spread.of([added / MIB for added in dask]), "shown", "MiB")


if __name__ == "__main__":
    script.main(__doc__, figures)
