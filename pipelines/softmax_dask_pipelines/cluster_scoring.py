"""Partitions of a scoring run on a Dask cluster: one that the config means, or one whose client is given."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from time import perf_counter
from typing import Any

from distributed import Client

from softmax_dask_pipelines.cluster import client_of
from softmax_dask_pipelines.cluster_runner import on_workers, run_on_cluster
from softmax_dask_pipelines.cluster_worker import Work
from softmax_dask_pipelines.errors import ConfigError
from softmax_dask_pipelines.job import Job
from softmax_dask_pipelines.receipts import Receipt
from softmax_dask_pipelines.retrying import Retrying
from softmax_dask_pipelines.task import ScoreTask, compile_kernels


def score_on_cluster(
    job: Job, task: ScoreTask, numbers: Sequence[int], *, client: Client | None, take: Callable[[Receipt], None]
) -> float:
    """Score these partitions on the workers of `client`, or of the cluster that the config means.

    Seconds until the workers were ready.
    """
    begin, cluster = perf_counter(), job.config.cluster
    if client is not None and client.asynchronous:
        raise ConfigError("client is asynchronous; expected one that waits: Client(..., asynchronous=False).")
    opened: Any = client_of(cluster, job.plan, tasks=len(numbers)) if client is None else nullcontext(client)
    with opened as found, on_workers(found, _work(job, task)) as run:
        ready_s = perf_counter() - begin
        run_on_cluster(run, numbers, take=take, wait_s=cluster.wait_s)
    return ready_s


def _work(job: Job, task: ScoreTask) -> Work:
    plan = job.plan
    return Work(
        task=Retrying(task, retries=job.config.retries, stop=task.stop),
        prepare=partial(compile_kernels, task, job.spec),
        stop=task.stop,
        threads=plan.threads,
        process_bytes=plan.process_bytes,
        task_bytes=plan.task_bytes,
        backend=job.backend,
    )
