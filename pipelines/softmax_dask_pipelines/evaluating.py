"""Evaluate a dump of logits, or a scored output: one read, no output but the figures.

source -> plan -> partitions -> task (read, kernel, count) on Dask's threads -> metrics merged -> document
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from time import perf_counter
from typing import Any

from softmax_dask import Metrics, metrics_document, metrics_from_document
from softmax_dask_pipelines import storage
from softmax_dask_pipelines.config import EvaluateConfig, key_of, make_config
from softmax_dask_pipelines.errors import OutputExistsError
from softmax_dask_pipelines.evaluation_job import EvaluationJob, KnownJob, prepare
from softmax_dask_pipelines.evaluation_task import EvaluationReceipt, EvaluationTask, Total
from softmax_dask_pipelines.metrics_about import about
from softmax_dask_pipelines.retrying import Retrying
from softmax_dask_pipelines.runner import Stop, run_on_threads

_LOOKED_AT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation came to."""

    job: EvaluationJob | KnownJob
    document: dict[str, Any]
    """Of `softmax_dask.metrics_document`: docs/metrics.md."""
    metrics: Metrics
    seconds: float = 0.0
    """0 where nothing was read, as are"""
    compile_s: float = 0.0
    """of it, what compiling the kernels took, or loading them,"""
    bytes_in: int = 0
    """logits that were read, decoded,"""
    read_s: float = 0.0
    """and of all threads together, reading"""
    kernel_s: float = 0.0
    """and computing."""

    def facts(self) -> dict[str, Any]:
        """The document: JSON types only."""
        return self.document


def evaluate(
    source: str | PathLike[str],
    *,
    target: str | None = None,
    output: str | PathLike[str] | None = None,
    temperature: float = 1.0,
    source_format: str | None = None,
    array: str | None = None,
    column: str | None = None,
    column_prefix: str | None = None,
    source_dtype: str | None = None,
    classes: str | PathLike[str] | None = None,
    class_axis: int | None = None,
    missing_chunks: str = "error",
    nulls: str = "error",
    settle: float = 60.0,
    link: str = "softmax",
    storage_options: Mapping[str, Any] | None = None,
    memory_limit: int | str | None = None,
    threads: int | None = None,
) -> Evaluation:
    """How good the decisions of the logits at `source` are; of what `score` has written, from what it has counted.

    Parameters
    ----------
    source : Zarr group or array, Parquet file or folder of files, or .npy, local or s3://bucket/key; or a scored output
    target : the array or column of true classes; default `target` or `targets`, if there is one
    output : a .json file for the document; one of an earlier evaluation is replaced
    temperature : above 0, no unit
    array, column, column_prefix, source_dtype, classes, class_axis, missing_chunks, nulls, settle, link,
    storage_options, memory_limit, threads : as of `score`

    Returns
    -------
    Evaluation
        Its `metrics` and `document`; docs/metrics.md defines each figure.

    Raises
    ------
    UsageError, DataError, OutputExistsError, TemporaryError
        See `softmax_dask_pipelines.errors`; nothing is written.
    """
    given: dict[str, Any] = {
        "verb": "evaluate",
        "source": {
            "path": fspath(source),
            "format": source_format,
            "array": array,
            "column": column,
            "column_prefix": column_prefix,
            "dtype": source_dtype,
            "target": target,
            "classes": None if classes is None else fspath(classes),
            "class_axis": class_axis,
            "missing_chunks": missing_chunks,
            "nulls": nulls,
            "settle": settle,
            "link": link,
            "storage_options": storage_options,
        },
        "output": {"path": None if output is None else fspath(output)},
        "temperature": temperature,
        "memory_limit": memory_limit,
        "threads": threads,
    }
    return execute(prepare(make_config(EvaluateConfig, given, key_of)))


def execute(
    job: EvaluationJob | KnownJob,
    *,
    replace: bool = False,
    on_start: Callable[[int], None] | None = None,
    on_receipt: Callable[[EvaluationReceipt], None] | None = None,
) -> Evaluation:
    """Count all rows, and write the document, if it has a path; `replace` also what is no such document."""
    output = None if job.config.output is None else Path(job.config.output.path)
    if output is not None and not replace:
        _require_replaceable(output)
    if on_start is not None:
        on_start(job.total_rows)
    if isinstance(job, KnownJob):
        result = Evaluation(job, job.document, metrics_from_document(job.document))
    else:
        result = _read_all(job, on_receipt)
    if output is not None:
        storage.make_folder(output.absolute().parent)
        storage.put(output, [json.dumps(result.document, allow_nan=False).encode()])
    return result


def _read_all(job: EvaluationJob, on_receipt: Callable[[EvaluationReceipt], None] | None) -> Evaluation:
    begin, stop, facts = perf_counter(), Stop(), job.facts
    task = EvaluationTask(job.source, job.plan, job.config.temperature, Total(facts.classes), stop)
    task.compile()
    compile_s = perf_counter() - begin
    spent = {"read_s": 0.0, "kernel_s": 0.0}

    def take(receipt: EvaluationReceipt) -> None:
        for name in spent:
            spent[name] += getattr(receipt, name)
        if on_receipt is not None:
            on_receipt(receipt)

    again = Retrying(task, retries=job.config.retries, stop=stop)
    run_on_threads(again, job.plan.numbers, threads=job.plan.threads, take=take, stop=stop)
    metrics = task.total.metrics
    return Evaluation(
        job=job,
        document=metrics_document(metrics, class_names=facts.class_names, about=about(job)),
        metrics=metrics,
        seconds=perf_counter() - begin,
        compile_s=compile_s,
        bytes_in=job.plan.bytes_in,
        **spent,
    )


def _require_replaceable(output: Path) -> None:
    """Refuse a path where something is that no evaluation has written."""
    if not os.path.lexists(output):
        return
    with storage.plain_errors(output):
        is_ours = output.is_file() and _begins_as_ours(output)
    if not is_ours:
        raise OutputExistsError(
            f"{output}: is there already, and holds no metrics; expected a path where nothing is, or an earlier "
            "document. Choose another path, or replace it with --replace."
        )


def _begins_as_ours(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(_LOOKED_AT_BYTES).startswith(b'{"program": "softmax-dask", "kind": "metrics"')
