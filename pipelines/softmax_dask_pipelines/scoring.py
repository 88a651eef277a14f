"""Score a dump of logits: the story, from top to bottom.

source -> plan -> partitions -> task (read, kernel, write) on Dask's threads -> receipts, journal -> commit -> result
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace as replaced
from os import PathLike, fspath
from threading import Event
from time import perf_counter
from typing import TYPE_CHECKING, Any

from softmax_dask_pipelines.backend import GpuOfProcess
from softmax_dask_pipelines.config import ScoreConfig, key_of, make_config, require_distributed, tell_both_ends
from softmax_dask_pipelines.expectations import Shift, require_expected, shift_of
from softmax_dask_pipelines.job import Job, prepare
from softmax_dask_pipelines.ledger.history import History
from softmax_dask_pipelines.ledger.identity import RunIdentity
from softmax_dask_pipelines.ledger.lock import locked
from softmax_dask_pipelines.ledger.manifest import RunRecord, Told
from softmax_dask_pipelines.ledger.opening import Opening, Step
from softmax_dask_pipelines.ledger.publication import Building, recovered
from softmax_dask_pipelines.ledger.sidecars import Sidecars
from softmax_dask_pipelines.marks import Marks
from softmax_dask_pipelines.notices import NoteWarning
from softmax_dask_pipelines.receipts import Receipt
from softmax_dask_pipelines.result import RunResult, together
from softmax_dask_pipelines.retrying import Retrying
from softmax_dask_pipelines.runner import Stop, run_on_threads
from softmax_dask_pipelines.sinks import Sink, open_sink
from softmax_dask_pipelines.sources.record import short_facts_of_source
from softmax_dask_pipelines.tally import Tally
from softmax_dask_pipelines.task import CountsPlace, ScoreTask, compile_kernels

if TYPE_CHECKING:
    from distributed import Client

OnStart = Callable[[int], None]
OnReceipt = Callable[[Receipt], None]

_MERGED_AT_ONCE = 64
"""Tallies of partitions."""


def score(
    source: str | PathLike[str],
    output: str | PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    temperature: float = 1.0,
    calibration: str | PathLike[str] | None = None,
    accept: str | PathLike[str] | None = None,
    conformal: str | PathLike[str] | None = None,
    source_format: str | None = None,
    array: str | None = None,
    column: str | None = None,
    column_prefix: str | None = None,
    source_dtype: str | None = None,
    id: str | None = None,
    target: str | None = None,
    classes: str | PathLike[str] | None = None,
    class_axis: int | None = None,
    missing_chunks: str = "error",
    nulls: str = "error",
    settle: float = 60.0,
    verify_input: str = "metadata",
    link: str = "softmax",
    storage_options: Mapping[str, Any] | None = None,
    top_k: int | None = None,
    output_format: str | None = None,
    dtype: str | None = None,
    rename: Mapping[str, str] | None = None,
    nonfinite: str = "propagate",
    backend: str = "cpu",
    memory_limit: int | str | None = None,
    threads: int | None = None,
    on_changed: str = "error",
    durability: str = "fsync",
    replace: bool = False,
    cluster: str | Mapping[str, Any] = "local",
    client: "Client | None" = None,
) -> RunResult:
    """Score the logits at `source` and write the results to `output`, which is complete or absent.

    Called again after it was ended, it goes on; over a finished output, it scores what the source has new.

    Parameters
    ----------
    source : Zarr group or array, Parquet file or folder of files, local or s3://bucket/key
        Logits, (rows, classes). Format, array or column are found out where that can only mean one thing.
    output : a path where nothing is yet, or what this function has written there; ends in .zarr or .parquet, or give
        `output_format`
    columns : names in `softmax_dask.COLUMNS`
        Default: label and confidence; label_name with class names; nll and correct with targets.
    temperature : above 0, no unit
    calibration : a file that `calibrate` wrote, instead of a temperature
    accept, conformal : files that `threshold` and `conformal` wrote, for the columns accept and conformal_set
    array, column, column_prefix, id, target : names in the source
    source_dtype : "bfloat16", where 16-bit integers hold its bits
    classes : a file of class names, one a line or a JSON list
    class_axis : axis of the classes, of Zarr and npy; default the last
    missing_chunks : "error", or "fill" for a Zarr source that did not store chunks that are all fill value
    nulls : "error", or "abstain": a Parquet row that is null or holds one is undecidable
    settle : seconds; of many Parquet files one that is not whole, and younger than this, is left for the next run
    verify_input : "metadata", or "content": whether what was scored has changed is told by checksums of all bytes
    link : "sigmoid" for one logit z a row, read as the two logits 0 and z
    storage_options : profile, endpoint_url, region, anon, requester_pays of what is on s3://; by the environment
    top_k : classes in top_k_labels and top_k_probabilities
    dtype : "float16", "float32" or "float64", of probabilities and log_probabilities
    rename : name of carried ids or of a Hive key -> its name in the output
    nonfinite : "propagate" marks rows with NaN, +inf or only -inf; "error" refuses them
    backend : "cpu", "cuda" for an NVIDIA GPU, or "auto" for one if it works
    memory_limit : bytes, or a text such as "2GiB"; of the whole process; default half of what is free
    threads : default all cores
    on_changed : "error", "rescore" (all of it) or "ignore", where what was scored has changed in the source
    durability : "fsync", or "none": what is written may be lost when the machine stops
    replace : an output that is there is swapped for the new one when that is complete
    cluster : "local", "processes", or the keys of a config's `cluster:`, such as {"connect": "tcp://127.0.0.1:8786"}
    client : a distributed.Client, whose workers see the paths of source and output; instead of `cluster`

    Returns
    -------
    RunResult
        Rows, counts, seconds and bytes; `softmax_dask_pipelines.summary.text_of_run` makes text of it.

    Raises
    ------
    UsageError, DataError, OutputExistsError, TemporaryError
        See `softmax_dask_pipelines.errors`; nothing is published, and an old output stays.
    """
    documents = {
        name: None if path is None else fspath(path)
        for name, path in (("calibration", calibration), ("accept", accept), ("conformal", conformal))
    }
    given: dict[str, Any] = {
        "source": {
            "path": fspath(source),
            "format": source_format,
            "array": array,
            "column": column,
            "column_prefix": column_prefix,
            "dtype": source_dtype,
            "id": id,
            "target": target,
            "classes": None if classes is None else fspath(classes),
            "class_axis": class_axis,
            "missing_chunks": missing_chunks,
            "nulls": nulls,
            "settle": settle,
            "verify_input": verify_input,
            "link": link,
            "storage_options": storage_options,
        },
        "output": {
            "path": fspath(output),
            "format": output_format,
            "dtype": dtype,
            "rename": None if rename is None else dict(rename),
        },
        "columns": None if columns is None else tuple(columns),
        "top_k": top_k,
        "temperature": temperature,
        **documents,
        "nonfinite": nonfinite,
        "backend": backend,
        "memory_limit": memory_limit,
        "threads": threads,
        "on_changed": on_changed,
        "durability": durability,
        "cluster": cluster,
    }
    tell_both_ends(given)
    job = prepare(make_config(ScoreConfig, given, key_of), has_client=client is not None)
    return execute(job, replace=replace, client=client)


def execute(
    job: Job,
    *,
    replace: bool = False,
    client: "Client | None" = None,
    on_start: OnStart | None = None,
    on_receipt: OnReceipt | None = None,
) -> RunResult:
    """Score what is not scored yet, then publish. Ended before that, the next run goes on with what is done.

    `on_start` is told how many rows there are to score, and `on_receipt` of each partition: also of those that an
    earlier run has done. `client` submits to a Dask cluster that is there, whatever the config says.
    """
    require_distributed(job.config.cluster)
    results: list[RunResult] = []
    output = job.output
    with locked(output) as run:
        opening = Opening(job, replace=replace)
        while (step := opening.step(history := recovered(output))) is not None:
            if on_start is not None:
                on_start(step.job.total_rows)
            results.append(_carry_out(step, history, opening, run, on_receipt, client))
            if step.is_last:
                break
            opening, run = Opening(job, replace=False), RunIdentity.new()
    return together(job, results)


def _carry_out(
    step: Step,
    history: History,
    opening: Opening,
    run: RunIdentity,
    on_receipt: OnReceipt | None,
    client: "Client | None",
) -> RunResult:
    """Score one plan, and publish it."""
    job = step.job
    place = history.place(step.plan, durable=job.config.durability == "fsync")
    sink = open_sink(job.spec, place)
    totals = _Totals(job, on_receipt)
    told = Told(job.config.model_dump(mode="json"), short_facts_of_source(job.facts))
    record = RunRecord(history.output, run, told, lambda: totals.result().record())
    sidecars = Sidecars(history, step.plan, job)
    with Building(history, step.plan, sink, place, record, sidecars) as building:
        _score_missing(job, sink, building, totals, client, sidecars.place)
        totals.require_expected()
        building.seal()
        opening.require_unchanged(step.plan)
        result = totals.result()
        building.publish(result)
    return result


def _score_missing(
    job: Job, sink: Sink, building: Building, totals: "_Totals", client: "Client | None", counts: CountsPlace
) -> None:
    """Score the partitions that no earlier run has done."""
    done = Marks()
    for receipt in building.finished(len(job.plan.numbers)):
        totals.add_done(receipt)
        done.add(receipt.partition)
    missing = done.rest(job.plan.numbers)
    if not len(missing):
        return
    task = task_of(job, sink, Stop(), counts)

    def take(receipt: Receipt) -> None:
        for note in receipt.notes:
            warnings.warn(note, NoteWarning, stacklevel=2)
        building.note(receipt)
        totals.add(receipt)

    if client is None and job.config.cluster.kind == "local":
        totals.compile_s = _compile_kernels(job, task)
        _score_on_threads(job, task, missing, take)
    else:
        from softmax_dask_pipelines.cluster_scoring import score_on_cluster

        totals.compile_s = score_on_cluster(job, task, missing, client=client, take=take)


def _score_on_threads(job: Job, task: ScoreTask, missing: Sequence[int], take: Callable[[Receipt], None]) -> None:
    """Here; while some threads wait for a disk, as many as the plan has compute.

    These are always the same: each thread keeps memory of its own for blocks, which others do not use again.
    """
    threads = job.plan.threads
    with ThreadPoolExecutor(threads, thread_name_prefix="softmax-dask-compute") as computing:
        again = Retrying(replaced(task, threads=computing), retries=job.config.retries, stop=task.stop)
        run_on_threads(again, missing, threads=2 * threads, take=take, stop=task.stop)


def task_of(job: Job, sink: Sink, stop: Event, counts: CountsPlace | None = None) -> ScoreTask:
    """What scores the partitions of a run, and leaves its metrics at `counts`; `stop` ends those that have begun."""
    return ScoreTask(
        source=job.source,
        sink=sink,
        plan=job.plan,
        rule=job.rule,
        float_dtype=job.spec.float_dtype,
        wide_dtype=job.spec.wide_dtype,
        top_k=job.spec.top_k,
        refuse_nonfinite=job.config.nonfinite == "error",
        stop=stop,
        compute=None if job.backend == "cpu" else GpuOfProcess(),
        counts=counts,
    )


def _compile_kernels(job: Job, task: ScoreTask) -> float:
    """Seconds that it took."""
    begin = perf_counter()
    compile_kernels(task, job.spec)
    return perf_counter() - begin


class _Totals:
    """Receipts of one plan, added up: a run of a million partitions keeps none of them."""

    def __init__(self, job: Job, on_receipt: OnReceipt | None) -> None:
        self.compile_s = 0.0
        self._job, self._on_receipt = job, on_receipt
        self._begin = perf_counter()
        self._tallies = [Tally()]
        """Of the partitions so far, in few: many are merged in little more time than two."""
        self._shift: Shift | None = None
        self._rows_read = 0
        self._bytes_written = 0
        self._seconds = {"read_s": 0.0, "kernel_s": 0.0, "write_s": 0.0}

    def add(self, receipt: Receipt) -> None:
        """Of a partition that this run has scored."""
        self._rows_read += receipt.rows
        for name in self._seconds:
            self._seconds[name] += getattr(receipt, name)
        self.add_done(receipt)

    def add_done(self, receipt: Receipt) -> None:
        """Of a partition that an earlier run has scored."""
        self._tallies.append(receipt.tally)
        if len(self._tallies) >= _MERGED_AT_ONCE:
            self._tallies = [self._tally]
        self._bytes_written += receipt.bytes_written
        if self._on_receipt is not None:
            self._on_receipt(receipt)

    @property
    def _tally(self) -> Tally:
        return Tally.merged(self._tallies)

    def require_expected(self) -> None:
        """Refuse to publish what the config does not expect."""
        job, tally = self._job, self._tally
        self._shift = shift_of(job.config, job.spec.path, tally, job.facts.classes)
        require_expected(job.config.expect, tally, self._shift)

    def result(self) -> RunResult:
        job = self._job
        return RunResult(
            job=job,
            partitions=len(job.plan.numbers),
            bytes_in=job.plan.bytes_in * self._rows_read // max(1, job.plan.rows_to_score),
            tally=self._tally,
            seconds=perf_counter() - self._begin,
            compile_s=self.compile_s,
            bytes_written=self._bytes_written,
            read_s=self._seconds["read_s"],
            kernel_s=self._seconds["kernel_s"],
            write_s=self._seconds["write_s"],
            shift=self._shift,
            new_rows=job.spec.rows - (job.spec.visible_rows if job.spec.format == "zarr" else 0),
        )
