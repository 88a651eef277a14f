"""What a partition costs beside its work, and what planning very many takes.

that do nothing: the runner alone, on the threads of a run, and on two processes with a thread each, where short tasks
travel in batches. A run of tiny partitions: `score` of a dump cut very
small, less the same run cut as usual, by the partitions that it has more; each writes files of its own, and waits for
the disk. Planning: a dump of as many chunks, none of which is there, up to where a run would begin, every partition's
rows asked for; each in a process of its own, and how much more memory it takes than 10^5. Running: the first so many
of 10^4, 10^5 and 10^6 partitions of rows that nobody has stored, with the plan, journal, receipts and totals of any
run; the most memory of the process that drives it, scheduler and all.

    python -m benchmarks.partitions
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import zarr

from benchmarks import nothing, runs, script
from benchmarks.figures import Figure
from benchmarks.logits import normal
from benchmarks.measure import Effort, Spread, in_turns
from softmax_dask_pipelines import score
from softmax_dask_pipelines.machine import cores

TABLE = "partitions"

_NOTHING = {"tiny": 100, "quick": 3000, "full": 10_000}
_TINY_RUN = {"tiny": 50, "quick": 200, "full": 1000}
_TINY_ROWS = 50
_RUN = {"tiny": 100, "quick": 1000, "full": 1_000_000}
_CHUNK = (1 << 18, 10)
"""10 MB: a chunk is a block, and a partition as small as can be."""

PLAN = """
import json, sys
from pathlib import Path
from time import perf_counter
from unittest.mock import patch
from benchmarks import memory, runs
from softmax_dask_pipelines import plan
with patch.object(plan, "PARTITION_BYTES", 1):
    begin = perf_counter()
    job = runs.job_of(Path(sys.argv[1]), Path(sys.argv[2]), runs.NARROW, missing_chunks="fill")
    for number in range(job.plan.count):
        job.plan.partition(number)
    seconds = perf_counter() - begin
print(json.dumps({"seconds": seconds, "peak_bytes": memory.peak_bytes(), "partitions": job.plan.count}))
"""


def figures(effort: Effort) -> Iterator[Figure]:
    """All of them; planning 10^6 only with an effort of that size."""
    count = _NOTHING[effort.name]
    seconds = in_turns({"ours": lambda: runs.do_nothing(count, cores())}, effort)["ours"]
    spread = Spread.of([taken / count * 1000 for taken in seconds])
    yield Figure(TABLE, "that do nothing, threads", "each", spread, "less", "ms")
    yield _on_processes(count, effort)
    with tempfile.TemporaryDirectory() as folder:
        yield _tiny_run(Path(folder), effort)
        yield from _planning(Path(folder), effort)
    yield from _running(effort)


def _on_processes(count: int, effort: Effort) -> Figure:
    with runs.processes(2) as client:
        seconds = in_turns({"ours": lambda: runs.do_nothing_on(client, count)}, effort)["ours"]
    spread = Spread.of([taken / count * 1000 for taken in seconds])
    return Figure(TABLE, "that do nothing, processes", "each", spread, "less", "ms")


def _running(effort: Effort) -> Iterator[Figure]:
    """The memory of drivers; with the quick effort of one on threads alone."""
    most = _RUN[effort.name]
    counts = [count for count in (10_000, 100_000, 1_000_000) if count <= effort.partitions] or [effort.partitions]
    for cluster in ("local", "processes") if effort.name == "full" else ("local",):
        peaks = {count: nothing.peak_bytes_of(count, cluster, min(count, most)) for count in counts}
        for count, peak in peaks.items():
            row = f"running 10^{len(str(count)) - 1}, {'threads' if cluster == 'local' else cluster}"
            yield Figure(TABLE, row, "peak", Spread.exactly(peak / 2**20), "shown", "MiB")
            if count == 1_000_000:
                more = max(0.0, (peak - peaks[100_000]) / 2**20)
                yield Figure(TABLE, row, "memory beyond 10^5", Spread.exactly(more), "less", "MiB")


def _tiny_run(folder: Path, effort: Effort) -> Figure:
    source, rows = folder / "tiny.zarr", _TINY_RUN[effort.name] * _TINY_ROWS
    zarr.create_array(source, data=normal((rows, 100)), chunks=(_TINY_ROWS, 100))
    counts: dict[str, int] = {}

    def cut(name: str, how: AbstractContextManager[None]) -> None:
        with how:
            counts[name] = score(source, folder / "out.zarr", replace=True).job.plan.count

    cuts = {"usual": lambda: cut("usual", nullcontext()), "tiny": lambda: cut("tiny", runs.small_partitions())}
    seconds = in_turns(cuts, effort)
    more = counts["tiny"] - counts["usual"]
    assert more > 0, f"partitions: {counts}"
    each = [(many - few) / more * 1000 for many, few in zip(seconds["tiny"], seconds["usual"], strict=True)]
    return Figure(TABLE, "a run of tiny partitions", "each", Spread.of(each), "shown", "ms")


def _planning(folder: Path, effort: Effort) -> Iterator[Figure]:
    few, many = (planned(folder, count) for count in (min(100_000, effort.partitions), effort.partitions))
    row = f"planning 10^{len(str(effort.partitions)) - 1}"
    yield Figure(TABLE, row, "seconds", Spread.exactly(many["seconds"]), "less", "s")
    if many["partitions"] > few["partitions"]:
        more = (many["peak_bytes"] - few["peak_bytes"]) / 2**20
        yield Figure(TABLE, row, "memory beyond 10^5", Spread.exactly(max(0.0, more)), "less", "MiB")


def planned(folder: Path, count: int) -> dict[str, float]:
    """Seconds, peak of memory and partitions of a plan, made in a process of its own."""
    source = folder / f"{count}.zarr"
    if not source.exists():
        zarr.create_array(source, shape=(count * _CHUNK[0], _CHUNK[1]), chunks=_CHUNK, dtype="float32")
    line = [sys.executable, "-c", PLAN, str(source), str(folder / "out.zarr")]
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
    found: dict[str, float] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    script.main(__doc__, figures)
