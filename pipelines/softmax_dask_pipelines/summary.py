"""Text for people: what a source is, what a plan would do, what a run came to."""

import os
from math import prod
from typing import Any

from softmax_dask_pipelines.config import Config
from softmax_dask_pipelines.estimate import Estimate
from softmax_dask_pipelines.expectations import Shift
from softmax_dask_pipelines.job import Job
from softmax_dask_pipelines.relayout import advice
from softmax_dask_pipelines.result import RunResult
from softmax_dask_pipelines.sinks import OutputSpec
from softmax_dask_pipelines.sources import SourceFacts
from softmax_dask_pipelines.sources.record import facts_of_source, type_text

Line = tuple[str, str]


def text_of_run(result: RunResult) -> str:
    """The summary that ends a run."""
    facts = result.facts()
    if result.is_up_to_date:
        return table([("rows", "nothing new: the output is up to date"), ("output", facts["output"])])
    lines = [
        *day_lines(result.job.config),
        ("rows", f"{facts['rows']:,} of {facts['classes']:,} classes{_new(facts)}"),
        ("undecidable", f"{facts['undecidable_rows']:,} rows with NaN, +inf or only -inf"),
        ("confidence", f"{_figure(facts['mean_confidence'])} mean"),
        ("entropy", f"{_figure(facts['mean_entropy'])} nat mean"),
        *_target_lines(facts),
        *_tail_lines(facts, result.job.spec.top_k),
        ("top labels", _top_labels(facts)),
        *_shift_lines(result.shift),
        ("time", _time(facts)),
        ("output", f"{facts['output']} ({size(facts['bytes_written'])} written{_times_smaller(result)})"),
    ]
    return table(lines)


def text_of_plan(job: Job, estimate: Estimate | str | None = None) -> str:
    """What a run would do, and how long it may take."""
    plan, spec = job.plan, job.spec
    lines = [
        *day_lines(job.config),
        *source_lines(job.facts),
        ("output", output_text(spec)),
        ("columns", ", ".join(spec.columns)),
        ("partitions", f"{plan.count:,} of {plan.partition_rows:,} rows, chunks of {plan.chunk_rows:,}"),
        ("bytes", f"{size(plan.bytes_in)} in, {size(plan.bytes_out)} out before compression"),
        ("memory", f"{size(plan.peak_bytes)} at most, limit {size(plan.memory_limit_bytes)}"),
        ("threads", _threads(job)),
    ]
    return table(lines if estimate is None else [*lines, ("time", _time_text(estimate))])


def _time_text(estimate: Estimate | str) -> str:
    if isinstance(estimate, str):
        return estimate
    low, high = (_seconds_text(seconds) for seconds in (estimate.low_s, estimate.high_s))
    span = f"about {low}" if low == high else f"{low} to {high}"
    return f"{span} here, by a second of it"


def _seconds_text(seconds: float) -> str:
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def _threads(job: Job) -> str:
    """Where it is done."""
    plan, cluster = job.plan, job.config.cluster
    if cluster.kind == "local":
        return str(plan.threads)
    if cluster.kind == "processes":
        return f"{plan.workers} processes with {plan.threads} each; memory is of one process"
    return f"{plan.threads} at most in each worker of {cluster.connect or cluster.class_name}; memory is of one worker"


def facts_of_plan(job: Job, estimate: Estimate | str | None = None) -> dict[str, Any]:
    """What a run would do, for machines; `seconds` is what it may take, least and most, or null."""
    seconds = [estimate.low_s, estimate.high_s] if isinstance(estimate, Estimate) else None
    return {"source": facts_of_source(job.facts), "output": job.spec.path, **_run_facts(job), "seconds": seconds}


def _run_facts(job: Job) -> dict[str, Any]:
    plan, spec = job.plan, job.spec
    return {
        "output_format": spec.format,
        "columns": list(spec.columns),
        "partitions": plan.count,
        "partition_rows": plan.partition_rows,
        "chunk_rows": plan.chunk_rows,
        "bytes_in": plan.bytes_in,
        "bytes_out": plan.bytes_out,
        "peak_bytes": plan.peak_bytes,
        "memory_limit_bytes": plan.memory_limit_bytes,
        "workers": plan.workers,
        "threads": plan.threads,
    }


def text_of_source(facts: SourceFacts, job: Job | None = None, refusal: str | None = None) -> str:
    """What `inspect` says of a source: what it holds, what `job` would do with it or why not, a better layout."""
    lines = source_lines(facts)
    if refusal is not None:
        lines.append(("score", f"would refuse it: {refusal}"))
    elif job is not None:
        lines += _default_lines(job)
    return table([*lines, *_advice_lines(facts)])


def facts_of_inspection(facts: SourceFacts, job: Job | None = None, refusal: str | None = None) -> dict[str, Any]:
    """What `inspect` says of a source, for machines."""
    return {
        **facts_of_source(facts),
        "chunk_rows": facts.chunk_rows,
        "has_checksum": facts.has_checksum,
        "row_kind": facts.row_kind,
        "score": None if job is None else _run_facts(job),
        "refusal": refusal,
        "advice": list(advice(facts)),
    }


def day_lines(config: Config) -> list[Line]:
    """The day that paths were filled in with."""
    return [] if config.date is None else [("date", config.date)]


def source_lines(facts: SourceFacts) -> list[Line]:
    """What a source holds."""
    names = "none" if facts.class_names is None else _shortened(facts.class_names)
    keys = [f"{column.name} ({type_text(column)})" for column in facts.carried if not column.is_id]
    return [
        ("source", f"{facts.path} ({facts.format}{', ' + facts.name if facts.name else ''})"),
        ("logits", f"{facts.rows:,} rows{_places(facts)} x {facts.classes:,} classes, {facts.dtype}"),
        ("stored", f"{size(facts.stored_bytes)}, {facts.layout}, {facts.codec}"),
        ("classes", names),
        ("ids", "none" if facts.id is None else facts.id.name),
        *([("keys", ", ".join(keys))] if keys else []),
        ("targets", facts.target_name or "none"),
    ]


def _places(facts: SourceFacts) -> str:
    """Of rows along several axes."""
    inner = facts.row_shape[1:]
    if not inner:
        return ""
    return f" ({' x '.join(f'{length:,}' for length in (facts.rows // prod(inner), *inner))})"


def _default_lines(job: Job) -> list[Line]:
    plan = job.plan
    return [
        ("score", f"{', '.join(job.spec.columns)}, by default"),
        ("partitions", f"{plan.count:,} of {plan.partition_rows:,} rows, on {plan.threads} threads"),
        ("output", f"{size(plan.bytes_out)} before compression"),
        ("memory", f"{size(plan.peak_bytes)} at most, limit {size(plan.memory_limit_bytes)}"),
    ]


def _advice_lines(facts: SourceFacts) -> list[Line]:
    unchanged = "nothing known against it" if facts.chunk_rows is None else "good as it is"
    return [("re-layout", text) for text in advice(facts) or (unchanged,)]


def output_text(spec: OutputSpec) -> str:
    """Where an output goes, and whether something is there."""
    known = ", is there already: goes on with it; --replace would swap it" if os.path.lexists(spec.path) else ""
    return f"{spec.path} ({spec.format}){known}"


def _new(facts: dict[str, Any]) -> str:
    return "" if facts["new_rows"] == facts["rows"] else f", {facts['new_rows']:,} of them new"


def _target_lines(facts: dict[str, Any]) -> list[Line]:
    if not facts["labelled_rows"]:
        return []
    accuracy = f"{_figure(facts['accuracy'])} of {facts['labelled_rows']:,} rows with a target"
    return [("accuracy", accuracy), ("nll", f"{_figure(facts['mean_nll'])} nat mean")]


def _tail_lines(facts: dict[str, Any], top_k: int) -> list[Line]:
    lines = []
    if facts["mean_tail_mass"] is not None:
        lines.append(("tail", f"{_figure(facts['mean_tail_mass'])} mean, the probability beyond the {top_k:,} largest"))
    if facts["mean_tail_divergence"] is not None:
        lines.append(("lost", f"{_figure(facts['mean_tail_divergence'])} nat mean, KL divergence of a tail made even"))
    return lines


def _times_smaller(result: RunResult) -> str:
    """How an output that stands for its source compares with it."""
    stored, written = result.job.facts.stored_bytes, result.bytes_written
    is_whole = result.new_rows == result.tally.rows
    if result.job.config.verb != "compact" or not is_whole or not written or not stored:
        return ""
    return f", {stored / written:.3g} times smaller than the source"


def _shift_lines(shift: Shift | None) -> list[Line]:
    if shift is None:
        return []
    figure = f"not compared: {shift.problem}" if shift.distance is None else f"{_figure(shift.distance)} of the rows"
    return [("label shift", figure if shift.previous is None else f"{figure}, from {shift.previous}")]


def _top_labels(facts: dict[str, Any]) -> str:
    return ", ".join(_share(top, facts["rows"]) for top in facts["top_labels"]) or "none"


def _share(top: dict[str, Any], rows: int) -> str:
    name = top["label"] if top["name"] is None else top["name"]
    return f"{name} {'' if top['is_exact'] else 'at least '}{100 * top['rows'] / rows:.3g}%"


def _time(facts: dict[str, Any]) -> str:
    scoring_s = facts["seconds"] - facts["compile_s"]
    rates = f"{facts['rows_per_s'] or 0:,.0f} rows/s, {facts['gb_per_s'] or 0:.2f} GB/s of logits"
    return f"{scoring_s:.2f} s, {rates} ({_where_the_time_went(facts)}), {facts['compile_s']:.1f} s to load the kernels"


def _where_the_time_went(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {facts[f'{name}_share'] or 0:.0%}" for name in ("read", "kernel", "write"))


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"


def _shortened(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f", ... ({len(names)})" if len(names) > 5 else "")


def size(count: float) -> str:
    """Bytes as people read them: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def table(lines: list[Line]) -> str:
    """Names in one column, texts in the next."""
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines)
