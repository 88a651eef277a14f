"""Text for people about metrics: what an evaluation would read, what it came to. As `summary` for scoring."""

from typing import Any

from softmax_dask_pipelines.config import EvaluateConfig
from softmax_dask_pipelines.evaluating import Evaluation
from softmax_dask_pipelines.evaluation_job import EvaluationJob, KnownJob
from softmax_dask_pipelines.sources.record import facts_of_source
from softmax_dask_pipelines.summary import Line, day_lines, size, source_lines, table

_WORST_CLASSES = 3
_CONFUSIONS = 5


def text_of_run(result: Evaluation) -> str:
    """The table that ends an evaluation."""
    document = result.document
    rows, figures = document["rows"], document["figures"]
    lines = [
        *day_lines(result.job.config),
        ("rows", f"{rows['total']:,} of {document['classes']:,} classes"),
        ("undecidable", f"{rows['undecidable']:,} rows with NaN, +inf or only -inf"),
        ("confidence", f"{_figure(figures['mean_confidence'])} mean"),
        ("entropy", f"{_figure(figures['mean_entropy'])} nat mean"),
        ("labelled", _labelled(rows)),
        *(_lines_of_targets(document) if rows["labelled"] else []),
        *_time_lines(result),
    ]
    return table(lines)


def text_of_plan(job: EvaluationJob | KnownJob) -> str:
    """What an evaluation would do."""
    if isinstance(job, KnownJob):
        text = "as counted when it was scored: nothing is read"
        return table([*day_lines(job.config), ("rows", f"{job.total_rows:,}, {text}"), *_output_lines(job.config)])
    plan = job.plan
    return table(
        [
            *day_lines(job.config),
            *source_lines(job.facts),
            ("partitions", f"{plan.count:,} of {plan.partition_rows:,} rows, chunks of {plan.chunk_rows:,}"),
            ("bytes", f"{size(plan.bytes_in)} in"),
            ("memory", f"{size(plan.peak_bytes)} at most, limit {size(plan.memory_limit_bytes)}"),
            ("threads", str(plan.threads)),
            *_output_lines(job.config),
        ]
    )


def facts_of_plan(job: EvaluationJob | KnownJob) -> dict[str, Any]:
    """What an evaluation would do, for machines."""
    if isinstance(job, KnownJob):
        return {"source": job.config.source.path, "rows": job.total_rows, "bytes_in": 0}
    plan = job.plan
    return {
        "source": facts_of_source(job.facts),
        "rows": plan.rows,
        "partitions": plan.count,
        "partition_rows": plan.partition_rows,
        "chunk_rows": plan.chunk_rows,
        "bytes_in": plan.bytes_in,
        "peak_bytes": plan.peak_bytes,
        "memory_limit_bytes": plan.memory_limit_bytes,
        "threads": plan.threads,
    }


def _labelled(rows: dict[str, int]) -> str:
    parts = [f"{rows['labelled']:,} rows"]
    parts += [f"{rows['unlabelled']:,} have no target"] if rows["unlabelled"] else []
    more = rows["labelled_undecidable"]
    parts += [f"{more:,} with one are undecidable, and left out"] if more else []
    return ", ".join(parts)


def _lines_of_targets(document: dict[str, Any]) -> list[Line]:
    figures = document["figures"]
    top = ", ".join(f"{_figure(value)} top {k}" for k, value in figures["top_k_accuracy"].items() if k != "1")
    return [
        ("accuracy", f"{_figure(figures['accuracy'])}{', ' if top else ''}{top}"),
        ("nll", _nll(document)),
        ("brier", _figure(figures["brier"])),
        ("ece", f"{_figure(figures['ece'])}, mce {_figure(figures['mce'])}, of 15 bins"),
        ("aurc", f"{_figure(figures['aurc'])}, {_figure(figures['aurc_low'])} to {_figure(figures['aurc_high'])}"),
        ("lowest recall", _worst(document)),
        ("confusions", _confusions(document)),
    ]


def _nll(document: dict[str, Any]) -> str:
    figures, infinite = document["figures"], document["rows"]["infinite_nll"]
    if not infinite:
        return f"{_figure(figures['nll'])} nat mean"
    rest = f"{_figure(figures['finite_nll'])} nat mean of the others"
    return f"infinite: {infinite:,} rows have a target of probability 0; {rest}"


def _worst(document: dict[str, Any]) -> str:
    by_class = document["by_class"]
    known = [
        (recall, k, rows)
        for recall, k, rows in zip(by_class["recall"], by_class["class"], by_class["support"], strict=True)
        if rows
    ]
    worst = sorted(known)[:_WORST_CLASSES]
    return ", ".join(f"{_name(document, k)} {_figure(recall)} of {rows:,}" for recall, k, rows in worst)


def _confusions(document: dict[str, Any]) -> str:
    found = document["confusions"]
    most = found["most_frequent"]
    pairs = list(zip(most["target"], most["label"], most["rows"], strict=True))[:_CONFUSIONS]
    bound = "" if found["is_exact"] else "at most "
    return ", ".join(f"{_name(document, t)} as {_name(document, k)} {bound}{n:,}" for t, k, n in pairs) or "none"


def _name(document: dict[str, Any], label: int) -> str:
    names = document["class_names"]
    return str(label) if names is None else str(names[label])


def _time_lines(result: Evaluation) -> list[Line]:
    lines = _output_lines(result.job.config)
    if not result.bytes_in:
        return lines
    seconds = max(1e-9, result.seconds - result.compile_s)
    busy = max(1e-9, result.read_s + result.kernel_s)
    shares = f"read {result.read_s / busy:.0%}, kernel {result.kernel_s / busy:.0%}"
    rate = f"{result.bytes_in / seconds / 1e9:.2f} GB/s of logits ({shares})"
    return [("time", f"{seconds:.2f} s, {rate}, {result.compile_s:.1f} s to load the kernels"), *lines]


def _output_lines(config: EvaluateConfig) -> list[Line]:
    return [] if config.output is None else [("output", config.output.path)]


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"
