"""Parts of a run of ours, one at a time: a copy, decoding alone, kernels alone, tasks that do nothing.

These take inner modules of the pipelines apart, which no user should.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, local
from typing import Any
from unittest.mock import patch

import numpy as np
import zarr
from numpy.typing import NDArray

from softmax_dask import decisions
from softmax_dask_pipelines import plan, score, scoring
from softmax_dask_pipelines.config import ScoreConfig
from softmax_dask_pipelines.job import Job, prepare
from softmax_dask_pipelines.runner import Stop, run_on_threads
from softmax_dask_pipelines.sources import blocks
from softmax_dask_pipelines.task import ScoreTask

WIDE, NARROW = ("label", "confidence", "probabilities"), ("label", "confidence")


def job_of(source: Path, output: Path, columns: Sequence[str], **of_source: Any) -> Job:
    """A run that is ready to begin."""
    asked: dict[str, Any] = {"source": {"path": str(source)} | of_source, "output": {"path": str(output)}}
    return prepare(ScoreConfig(**asked, columns=tuple(columns)))


def copy(source: Path, output: Path) -> None:
    """A run with the reader, the writer and all else of ours, which copies the logits to where probabilities go."""
    with patch.object(scoring, "ScoreTask", _CopyTask):
        score(source, output, columns=["probabilities"])


class _CopyTask(ScoreTask):
    def decide(
        self, logits: NDArray[Any], targets: NDArray[np.int64] | None, out: dict[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        """The logits as they are; the columns that the summary counts are all 0."""
        np.copyto(out["probabilities"], logits)
        rows = len(logits)
        counted = {"confidence": np.zeros(rows, np.float32), "entropy": np.zeros(rows, np.float32)}
        return {"label": np.zeros(rows, np.int32)} | counted | out


def decode(job: Job) -> None:
    """Read every row of the source with our reader, on the threads of the run."""

    def read(number: int) -> None:
        rows = job.plan.partition(number)
        for _ in job.source.read(rows.start, rows.stop):
            pass

    _on_threads(read, job)


def decode_with_zarr(array: "zarr.Array[Any]", job: Job) -> None:
    """The same rows by zarr-python's `array[start:stop]`, a chunk of it a call, or a shard."""
    step = (array.shards or array.chunks)[0]

    def read(number: int) -> None:
        rows = job.plan.partition(number)
        for start in range(rows.start, rows.stop, step):
            array[start : min(start + step, rows.stop)]

    _on_threads(read, job)


def compute(job: Job, block: NDArray[Any]) -> None:
    """The kernels of a run over one block that stays in the cache, as often as the run has such blocks."""
    kept = local()

    def decide(number: int) -> None:
        if not hasattr(kept, "out"):
            kept.out = decisions(block, ("label", "confidence", "entropy"))
        rows = job.plan.partition(number)
        for start in range(rows.start, rows.stop, len(block)):
            part = block[: rows.stop - start]
            out = {name: array[: len(part)] for name, array in kept.out.items()}
            decisions(part, tuple(out), out=out)

    _on_threads(decide, job)


def remove(output: Path) -> None:
    """Take away the last run's files, and let what is still to be written reach the disk."""
    for path in (output, output.with_name(f"{output.name}.job")):
        path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)
    os.sync()


def do_nothing(count: int, threads: int) -> None:
    """So many partitions, without any work in them."""
    run_on_threads(int, range(count), threads=threads, take=lambda _: None, stop=Event())


@contextmanager
def processes(count: int) -> Iterator[Any]:
    """A client of so many worker processes with a thread each."""
    from distributed import Client, LocalCluster

    quiet = {"dashboard_address": None, "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"}}
    local = LocalCluster(n_workers=count, threads_per_worker=1, host="127.0.0.1", silence_logs=40, **quiet)
    with local as cluster, Client(cluster, set_as_default=False) as client:
        yield client


def do_nothing_on(client: Any, count: int) -> None:
    """So many partitions on the workers of a client, without any work in them."""
    from softmax_dask_pipelines.cluster_runner import on_workers, run_on_cluster
    from softmax_dask_pipelines.cluster_worker import Work

    work = Work(int, int, Stop(), threads=1, process_bytes=0, task_bytes=0)
    with on_workers(client, work) as run:
        run_on_cluster(run, range(count), take=lambda _: None, wait_s=60)


@contextmanager
def small_partitions() -> Iterator[None]:
    """Runs inside are cut as small as their source's chunks allow."""
    with ExitStack() as patches:
        for module, name in ((plan, "PARTITION_BYTES"), (plan, "CHUNK_BYTES"), (blocks, "READ_BYTES")):
            patches.enter_context(patch.object(module, name, 1))
        yield


def _on_threads(function: Any, job: Job) -> None:
    numbers = range(job.plan.count)
    run_on_threads(function, numbers, threads=job.plan.threads, take=lambda _: None, stop=Event())
