"""Write the Jacobians of some rows of a dump: the story, from top to bottom.

source -> chosen rows -> pieces -> task (read, compute a tile, write) on Dask's threads -> receipts -> publish -> result
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from secrets import token_hex
from threading import Event
from time import perf_counter
from typing import Any

import numpy as np

from softmax_dask_pipelines.config import JacobianConfig, key_of, make_config
from softmax_dask_pipelines.gathering import read_rows
from softmax_dask_pipelines.jacobian_job import JacobianJob, prepare
from softmax_dask_pipelines.jacobian_task import JacobianReceipt, JacobianTask
from softmax_dask_pipelines.ledger.fingerprint import json_of
from softmax_dask_pipelines.ledger.history import History, PlanRecord
from softmax_dask_pipelines.ledger.lock import locked
from softmax_dask_pipelines.ledger.manifest import RunRecord, Told
from softmax_dask_pipelines.ledger.publication import Building, recovered
from softmax_dask_pipelines.retrying import Retrying
from softmax_dask_pipelines.runner import run_on_threads
from softmax_dask_pipelines.sinks.places import require_absent, require_output
from softmax_dask_pipelines.sinks.zarr import ZarrSink
from softmax_dask_pipelines.sinks.zarr_layout import ArrayLayout
from softmax_dask_pipelines.sources import Stamps
from softmax_dask_pipelines.sources.record import short_facts_of_source

OnStart = Callable[[int], None]
OnReceipt = Callable[[JacobianReceipt], None]


@dataclass(frozen=True, slots=True)
class JacobianResult:
    """What a run came to."""

    job: JacobianJob
    undecidable: int
    """Rows whose matrices are NaN."""
    bytes_written: int
    seconds: float
    """Wall time, from the first check of the output to its publication; without the search for rows."""

    def facts(self) -> dict[str, Any]:
        """The figures of a run, for machines: JSON types only, seconds and bytes."""
        spec = self.job.spec
        return {
            "output": spec.path,
            "rows": spec.rows,
            "of_rows": self.job.source.facts.rows,
            "classes": spec.classes,
            "undecidable_rows": self.undecidable,
            "dtype": str(spec.wide_dtype),
            "tile": [self.job.tiles.rows, self.job.tiles.lines, self.job.tiles.columns],
            "threads": self.job.threads,
            "bytes_out": self.job.bytes_out,
            "bytes_written": self.bytes_written,
            "seconds": self.seconds,
        }

    def record(self) -> dict[str, Any]:
        """What stands in the manifest."""
        return self.facts()


def write_jacobian(
    source: str | PathLike[str],
    output: str | PathLike[str],
    *,
    rows: str | None = None,
    where_confidence_below: float | None = None,
    limit: int | None = None,
    temperature: float = 1.0,
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
    link: str = "softmax",
    storage_options: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    rename: Mapping[str, str] | None = None,
    memory_limit: int | str | None = None,
    threads: int | None = None,
    replace: bool = False,
) -> JacobianResult:
    """Write the derivatives of the probabilities of some rows by their logits, as a Zarr group: complete or absent.

    The group holds `jacobian`, (rows, classes, classes), of which [r, j, k] is s_j (delta_jk - s_k) / temperature,
    `row`, the number of each row in the source, and what is carried beside it: ids, Hive keys, `target`.
    Undecidable rows have NaN.

    Parameters
    ----------
    source : Zarr group or array, Parquet file or folder of files, or .npy, local or s3://bucket/key
        Logits, (rows, classes).
    output : a path where nothing is yet, which ends in .zarr
    rows : which rows, such as "0:100", the second number exclusive; default all, if there is a confidence
    where_confidence_below : above 0, at most 1; of the rows those whose largest probability is below this
        Undecidable rows are not among them.
    limit : of these so many, the first ones
    temperature : above 0, no unit
    dtype : "float16", "float32" or "float64", of the matrices; default float32, of float64 logits float64
    memory_limit : bytes, or a text such as "2GiB"; of the whole process; default half of what is free
    array, column, column_prefix, source_dtype, id, target, classes, class_axis, missing_chunks, nulls, settle, link,
    storage_options, rename, threads, replace : as of `score`

    Returns
    -------
    JacobianResult
        Rows, bytes and seconds.

    Raises
    ------
    UsageError, DataError, OutputExistsError, TemporaryError
        See `softmax_dask_pipelines.errors`; nothing is published, and an old output stays.
    """
    given: dict[str, Any] = {
        "verb": "jacobian",
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
            "link": link,
            "storage_options": storage_options,
        },
        "output": {"path": fspath(output), "dtype": dtype, "rename": None if rename is None else dict(rename)},
        "rows": rows,
        "where_confidence_below": where_confidence_below,
        "limit": limit,
        "temperature": temperature,
        "memory_limit": memory_limit,
        "threads": threads,
    }
    return execute(prepare(make_config(JacobianConfig, given, key_of)), replace=replace)


def execute(
    job: JacobianJob, *, replace: bool = False, on_start: OnStart | None = None, on_receipt: OnReceipt | None = None
) -> JacobianResult:
    """Compute and write every piece, then publish. Whatever ends it before that, nothing of it stays."""
    output = Path(job.spec.path)
    if on_start is not None:
        on_start(job.total_rows)
    with locked(output) as run:
        history = recovered(output)
        (require_output if replace else require_absent)(output)
        plan = _plan(job, history, replace=replace)
        place = history.place(plan)
        sink = ZarrSink(job.spec, place, more=_layouts(job))
        totals = _Totals(job, on_receipt)
        told = Told(job.config.model_dump(mode="json"), short_facts_of_source(job.source.facts))
        record = RunRecord(output, run, told, lambda: totals.result().record())
        with Building(history, plan, sink, place, record) as building:
            _compute(job, sink, totals)
            building.seal()
            result = totals.result()
            building.publish(result)
    return result


def _compute(job: JacobianJob, sink: ZarrSink, totals: "_Totals") -> None:
    stop = Event()
    for places in job.batches():
        task = _task(job, sink, places, stop)
        again = Retrying(task, retries=job.config.retries, stop=stop)
        run_on_threads(again, task.pieces, threads=job.threads, take=totals.add, stop=stop)


def _plan(job: JacobianJob, history: History, *, replace: bool) -> PlanRecord:
    """A plan that no other run goes on with: of a piece that is done nothing is noted."""
    number = history.number + 1
    return PlanRecord.made(
        commit=number,
        first=number,
        replaces=replace,
        settings={"verb": "jacobian", "run": token_hex(8)},
        input=json_of(Stamps("")),
        rows=job.spec.rows,
        visible_rows=0,
        partition_rows=job.spec.partition_rows,
        chunk_rows=job.spec.chunk_rows,
        attributes=job.spec.attributes,
    )


def _task(job: JacobianJob, sink: ZarrSink, places: range, stop: Event) -> JacobianTask:
    """What computes these rows, once they are read."""
    numbers = job.rows[places.start : places.stop]
    return JacobianTask(
        first_partition=places.start // job.spec.partition_rows,
        block=read_rows(job.source, numbers, threads=job.threads, stop=stop),
        numbers=numbers,
        sink=sink,
        spec=job.spec,
        tiles=job.tiles,
        temperature=job.config.temperature,
        stop=stop,
    )


class _Totals:
    """Receipts, added up."""

    def __init__(self, job: JacobianJob, on_receipt: OnReceipt | None) -> None:
        self._job, self._on_receipt = job, on_receipt
        self._begin = perf_counter()
        self._undecidable = 0
        self._bytes_written = 0

    def add(self, receipt: JacobianReceipt) -> None:
        self._undecidable += receipt.undecidable
        self._bytes_written += receipt.bytes_written
        if self._on_receipt is not None:
            self._on_receipt(receipt)

    def result(self) -> JacobianResult:
        return JacobianResult(self._job, self._undecidable, self._bytes_written, perf_counter() - self._begin)


def _layouts(job: JacobianJob) -> list[ArrayLayout]:
    spec, tiles = job.spec, job.tiles
    numbers = ArrayLayout(
        name="row",
        dtype=np.dtype(np.int64),
        dims=("row",),
        shape=(spec.rows,),
        chunks=(spec.partition_rows,),
        fill=-1,
        attributes={"long_name": "number of the row in the source", "units": "row number"},
    )
    matrices = ArrayLayout(
        name="jacobian",
        dtype=spec.wide_dtype,
        dims=("row", "class", "class_of_logit"),
        shape=(spec.rows, spec.classes, spec.classes),
        chunks=(tiles.rows, tiles.lines, tiles.columns),
        fill=np.nan,
        attributes={"long_name": "derivative of the probability of the class by the logit", "units": "1"},
    )
    return [numbers, matrices]
