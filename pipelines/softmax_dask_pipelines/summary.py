"""Text for people: what a source is, what a plan would do, what a run came to."""

import os
from typing import Any

from softmax_dask_pipelines.job import Job
from softmax_dask_pipelines.scoring import RunResult
from softmax_dask_pipelines.sources import SourceFacts

Line = tuple[str, str]


def text_of_run(result: RunResult) -> str:
    """The summary that ends a run."""
    facts = result.facts()
    lines = [
        ("rows", f"{facts['rows']:,} of {facts['classes']:,} classes"),
        ("undecidable", f"{facts['undecidable_rows']:,} rows with NaN, +inf or only -inf"),
        ("confidence", f"{_figure(facts['mean_confidence'])} mean"),
        ("entropy", f"{_figure(facts['mean_entropy'])} nat mean"),
        *_target_lines(facts),
        ("top labels", _top_labels(facts)),
        ("time", _time(facts)),
        ("output", f"{facts['output']} ({size(facts['bytes_written'])} written)"),
    ]
    return _table(lines)


def text_of_plan(job: Job) -> str:
    """What a run would do."""
    plan, spec = job.plan, job.spec
    lines = [
        *_source_lines(job.facts),
        ("output", f"{spec.path} ({spec.format}){_already_there(spec.path)}"),
        ("columns", ", ".join(spec.columns)),
        ("partitions", f"{plan.count:,} of {plan.partition_rows:,} rows, chunks of {plan.chunk_rows:,}"),
        ("bytes", f"{size(plan.bytes_in)} in, {size(plan.bytes_out)} out before compression"),
        ("memory", f"{size(plan.peak_bytes)} at most, limit {size(plan.memory_limit_bytes)}"),
        ("threads", str(plan.threads)),
    ]
    return _table(lines)


def facts_of_plan(job: Job) -> dict[str, Any]:
    """What a run would do, for machines."""
    plan, spec = job.plan, job.spec
    return {
        "source": facts_of_source(job.facts),
        "output": spec.path,
        "output_format": spec.format,
        "columns": list(spec.columns),
        "partitions": plan.count,
        "partition_rows": plan.partition_rows,
        "chunk_rows": plan.chunk_rows,
        "bytes_in": plan.bytes_in,
        "bytes_out": plan.bytes_out,
        "peak_bytes": plan.peak_bytes,
        "memory_limit_bytes": plan.memory_limit_bytes,
        "threads": plan.threads,
    }


def text_of_source(facts: SourceFacts) -> str:
    """What `inspect` says of a source."""
    return _table(_source_lines(facts))


def facts_of_source(facts: SourceFacts) -> dict[str, Any]:
    """What is known of a source, for machines."""
    return {
        "path": facts.path,
        "format": facts.format,
        "logits": facts.name,
        "rows": facts.rows,
        "classes": facts.classes,
        "dtype": str(facts.dtype),
        "stored_bytes": facts.stored_bytes,
        "layout": facts.layout,
        "codec": facts.codec,
        "class_names": None if facts.class_names is None else list(facts.class_names),
        "id": facts.id_name,
        "target": facts.target_name,
    }


def _source_lines(facts: SourceFacts) -> list[Line]:
    names = "none" if facts.class_names is None else _shortened(facts.class_names)
    return [
        ("source", f"{facts.path} ({facts.format}{', ' + facts.name if facts.name else ''})"),
        ("logits", f"{facts.rows:,} rows x {facts.classes:,} classes, {facts.dtype}"),
        ("stored", f"{size(facts.stored_bytes)}, {facts.layout}, {facts.codec}"),
        ("classes", names),
        ("ids", facts.id_name or "none"),
        ("targets", facts.target_name or "none"),
    ]


def _already_there(path: str) -> str:
    return ", is there already: --replace would swap it" if os.path.lexists(path) else ""


def _target_lines(facts: dict[str, Any]) -> list[Line]:
    if not facts["labelled_rows"]:
        return []
    accuracy = f"{_figure(facts['accuracy'])} of {facts['labelled_rows']:,} rows with a target"
    return [("accuracy", accuracy), ("nll", f"{_figure(facts['mean_nll'])} nat mean")]


def _top_labels(facts: dict[str, Any]) -> str:
    return ", ".join(_share(top, facts["rows"]) for top in facts["top_labels"]) or "none"


def _share(top: dict[str, Any], rows: int) -> str:
    name = top["label"] if top["name"] is None else top["name"]
    return f"{name} {'' if top['is_exact'] else 'at least '}{100 * top['rows'] / rows:.3g}%"


def _time(facts: dict[str, Any]) -> str:
    scoring_s = facts["seconds"] - facts["compile_s"]
    rate = facts["bytes_in"] / scoring_s / 1e9
    rest = f"{rate:.2f} GB/s of logits ({_where_the_time_went(facts)}), {facts['compile_s']:.1f} s to load the kernels"
    return f"{scoring_s:.2f} s, {rest}"


def _where_the_time_went(facts: dict[str, Any]) -> str:
    parts = {"read": facts["read_s"], "kernel": facts["kernel_s"], "write": facts["write_s"]}
    total = sum(parts.values()) or 1.0
    return ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in parts.items())


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


def _table(lines: list[Line]) -> str:
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines)
