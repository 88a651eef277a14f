"""Text for people about fits: what a plan would do, what a fit came to. As `summary` for scoring."""

from typing import Any

from softmax_dask_pipelines.fitting import FitJob, FitResult
from softmax_dask_pipelines.scored_fitting import ScoredJob, ScoredResult
from softmax_dask_pipelines.sources.record import facts_of_source
from softmax_dask_pipelines.summary import Line, day_lines, size, source_lines, table


def text_of_run(result: FitResult | ScoredResult) -> str:
    """The summary that ends a fit."""
    of_verb = {"calibrate": _calibration_lines, "threshold": _threshold_lines, "conformal": _conformal_lines}
    return table(
        [
            *day_lines(result.job.config),
            *of_verb[result.job.config.verb](result.document),
            ("time", f"{result.seconds:.2f} s"),
            ("output", str(result.job.output)),
        ]
    )


def text_of_plan(job: FitJob | ScoredJob) -> str:
    """What a fit would do."""
    if isinstance(job, ScoredJob):
        rows = ("source", f"{job.scored.path}: {job.scored.rows:,} rows, scored")
        return table([*day_lines(job.config), rows, ("output", f"{job.output}, a document")])
    plan = job.plan
    return table(
        [
            *day_lines(job.config),
            *source_lines(job.facts),
            ("output", f"{job.output}, a document"),
            ("partitions", f"{plan.count:,} of {plan.partition_rows:,} rows, chunks of {plan.chunk_rows:,}"),
            ("bytes", f"{size(plan.bytes_in)} in each read"),
            ("memory", f"{size(plan.peak_bytes)} at most, limit {size(plan.memory_limit_bytes)}"),
            ("threads", str(plan.threads)),
        ]
    )


def facts_of_plan(job: FitJob | ScoredJob) -> dict[str, Any]:
    """What a fit would do, for machines."""
    if isinstance(job, ScoredJob):
        return {"source": job.scored.path, "output": str(job.output), "rows": job.scored.rows}
    plan = job.plan
    return {
        "source": facts_of_source(job.facts),
        "output": str(job.output),
        "partitions": plan.count,
        "partition_rows": plan.partition_rows,
        "chunk_rows": plan.chunk_rows,
        "bytes_in": plan.bytes_in,
        "peak_bytes": plan.peak_bytes,
        "memory_limit_bytes": plan.memory_limit_bytes,
        "threads": plan.threads,
    }


def _calibration_lines(document: dict[str, Any]) -> list[Line]:
    fit, before, after = (document[name] for name in ("fit", "before", "after"))
    whose = "the same rows" if document["fit_on"] == "all" else "the other half"
    return [
        ("temperature", f"{document['temperature']:.6g}"),
        ("fit", f"{fit['rows']:,} rows{_left_out(fit)}; {fit['reads']} reads"),
        ("report", f"{after['rows']:,} rows, {whose}"),
        ("nll", f"{_nll(before)} -> {_nll(after)} nat"),
        ("ece", f"{_figure(before['ece'])} -> {_figure(after['ece'])}{_verdict(before, after)}"),
    ]


def _threshold_lines(document: dict[str, Any]) -> list[Line]:
    test = document["test"]
    return [
        ("threshold", f"{document['threshold']:.6g}, of confidence at temperature {document['temperature']:.6g}"),
        ("promise", f"precision of at least {document['precision']:g}, but with probability {document['delta']:g}"),
        ("test", f"{test['rows']:,} rows, and {document['order']['rows']:,} to begin with{_half(document)}"),
        ("accepted", f"{test['accepted']:,} rows, {test['coverage']:.2%}; precision {test['precision']:.6f}"),
    ]


def _conformal_lines(document: dict[str, Any]) -> list[Line]:
    measured, found = document["measured"], document["least_probability"]
    coverage = measured["coverage"]
    return [
        ("level", f"classes of at least {found:.6g} at temperature {document['temperature']:.6g}" if found else _ALL),
        ("promise", f"the true class is missing with probability {document['alpha']:g} at most"),
        ("found on", f"{document['level']['rows']:,} rows{_half(document)}"),
        ("measured on", f"{measured['rows']:,} other rows"),
        ("coverage", "none" if coverage is None else f"{coverage:.4f}"),
        ("classes", f"{_figure(measured['mean_classes'])} mean; {measured['empty_sets']:,} sets are empty"),
    ]


_ALL = "all classes: too few rows for this alpha"


def _half(document: dict[str, Any]) -> str:
    return " of the half that the temperature was not fitted to" if document.get("held_out_half") else ""


def _left_out(fit: dict[str, Any]) -> str:
    kinds = (("unlabelled", "without a target"), ("undecidable", "undecidable"), ("infinite", "with a masked target"))
    texts = [f"{fit[f'{name}_rows']:,} {words}" for name, words in kinds if fit[f"{name}_rows"]]
    return f", without {' and '.join(texts)}" if texts else ""


def _nll(report: dict[str, Any]) -> str:
    if not report["infinite_rows"]:
        return _figure(report["nll"])
    return f"infinite ({report['infinite_rows']:,} rows; {_figure(report['finite_nll'])} without them)"


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.6f}"


def _verdict(before: dict[str, Any], after: dict[str, Any]) -> str:
    known = before["ece"] is not None and after["ece"] is not None
    if not known or after["ece"] <= before["ece"]:
        return ""
    return ": worse, though the NLL is better" if after["finite_nll"] < before["finite_nll"] else ": worse"
