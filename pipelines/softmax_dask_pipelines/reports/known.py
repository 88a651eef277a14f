"""What is known of a scored output without reading its logits: one dict of JSON types, which every page shows."""

import glob
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from softmax_dask import __version__
from softmax_dask_pipelines.errors import SourceFormatError, SourceNotFoundError
from softmax_dask_pipelines.ledger.history import Commit
from softmax_dask_pipelines.ledger.manifest import published_manifests, read_manifest
from softmax_dask_pipelines.reports.extremes import Extremes
from softmax_dask_pipelines.storage import plain_errors

_STAGES = (("read", "read_s"), ("kernel", "kernel_s"), ("write", "write_s"))
_MOVED = 10
"""Labels whose share changed most."""
_RUNS = 10
_CLASSES = 20
"""Rows of the table of classes."""


def facts_of_report(
    output: str,
    commits: Sequence[Commit],
    manifest: Mapping[str, Any],
    *,
    metrics: Mapping[str, Any] | None,
    earlier: Mapping[str, Any] | None,
    calibration: Mapping[str, Any] | None,
    extremes: Extremes | None,
) -> dict[str, Any]:
    """All that a report says.

    Parameters
    ----------
    manifest : of the run that the report is about
    metrics : the document of docs/metrics.md, of all commits
    earlier : the manifest of the run that labels are compared with
    calibration : the report inside a document of `calibrate`, with `before` and `after`
    """
    result, config = manifest["result"], manifest["config"]
    return {
        "output": output,
        "version": __version__,
        "run": {name: manifest.get(name) for name in ("run", "started", "ended", "outcome", "error", "date")},
        "source": manifest.get("source") or {},
        "settings": {name: config.get(name) for name in ("verb", "temperature", "columns", "top_k", "nonfinite")},
        "versions": manifest.get("versions") or {},
        "rows": _rows(result, metrics),
        "figures": _figures(result, metrics),
        "top_labels": result.get("top_labels") or [],
        "classes": None if metrics is None else _classes(metrics),
        "classes_met": 0 if metrics is None else sum(rows > 0 for rows in metrics["by_class"]["rows"]),
        "confusions": None if metrics is None else _confusions(metrics),
        "shift": _shift(manifest, earlier, metrics),
        "calibration": None if calibration is None else dict(calibration),
        "stages": _stages(result),
        "commits": [_commit(commit) for commit in commits[-_RUNS:]],
        "extremes": None
        if extremes is None
        else {name: list(getattr(extremes, name)) for name in ("most", "least", "undecidable")},
    }


def manifest_of(output: str) -> Mapping[str, Any] | None:
    """The record of the last run that published an output."""
    return next(
        (each for each in published_manifests(glob.escape(output)) if isinstance(each.get("result"), dict)), None
    )


def manifest_in(path: Path) -> Mapping[str, Any]:
    """The record of one run.

    Raises
    ------
    SourceNotFoundError, SourceFormatError
        There is none, or it is not one that this program can read.
    """
    with plain_errors(path):
        if not path.is_file():
            raise SourceNotFoundError(f"{path}: is not there; expected the record of a run. Check the path.")
        found = read_manifest(path)
    if found is None or not isinstance(found.get("result"), dict):
        raise SourceFormatError(f"{path}: is no record of a run that this program can read.")
    return found


def manifest_before(output: str, manifest: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The record of the last published run of an output that began before another run did."""
    runs = list(published_manifests(glob.escape(output)))
    place = next((number for number, each in enumerate(runs) if each["run"] == manifest["run"]), None)
    earlier = [each for each in runs if each["run"] < manifest["run"]] if place is None else runs[place + 1 :]
    return next((each for each in earlier if _counts(each)), None)


def _counts(manifest: Mapping[str, Any]) -> list[int]:
    result = manifest.get("result")
    return (result.get("label_groups") if isinstance(result, dict) else None) or []


def _rows(result: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    if metrics is not None:
        return {**metrics["rows"], "classes": metrics["classes"]}
    return {
        "total": result.get("rows"),
        "undecidable": result.get("undecidable_rows"),
        "labelled": result.get("labelled_rows"),
        "classes": result.get("classes"),
    }


def _figures(result: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    if metrics is not None:
        found = dict(metrics["figures"])
    else:
        found = {name: result.get(name) for name in ("accuracy", "mean_confidence", "mean_entropy")}
        found["nll"] = result.get("mean_nll")
    return found | {name: result.get(name) for name in ("mean_tail_mass", "mean_tail_divergence")}


def _classes(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The most frequent labels."""
    table, names = metrics["by_class"], metrics["class_names"]
    columns = ("class", "rows", "share", "support", "precision", "recall")
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*(table[c] for c in columns), strict=True)]
    rows.sort(key=lambda row: (-row["rows"], row["class"]))
    return [{**row, "name": _name(names, row["class"])} for row in rows[:_CLASSES]]


def _confusions(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    found, names = metrics["confusions"]["most_frequent"], metrics["class_names"]
    pairs = zip(found["target"], found["label"], found["rows"], strict=True)
    return [
        {"target": _name(names, target), "label": _name(names, label), "rows": rows} for target, label, rows in pairs
    ][:10]


def _name(names: Sequence[str] | None, number: int) -> str:
    return str(number) if names is None else names[number]


def _shift(
    manifest: Mapping[str, Any], earlier: Mapping[str, Any] | None, metrics: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """How far the labels are from those of another run; by class where a group of the counts is one class."""
    if earlier is None:
        return None
    ours, theirs = _counts(manifest), _counts(earlier)
    known = {"run": earlier["run"], "date": earlier.get("date"), "output": earlier["result"].get("output")}
    classes, others = manifest["result"].get("classes"), earlier["result"].get("classes")
    if classes != others or not any(ours) or not any(theirs):
        problem = f"it has {others} classes, and this run {classes}" if classes != others else "no labels are counted"
        return {**known, "distance": None, "problem": problem, "moved": []}
    shares = [
        (group, a / sum(ours), b / sum(theirs)) for group, (a, b) in enumerate(zip_longest(ours, theirs, fillvalue=0))
    ]
    names = None if metrics is None else metrics["class_names"]
    moved = sorted(shares, key=lambda each: -abs(each[1] - each[2]))[:_MOVED] if classes <= 256 else []
    return {
        **known,
        "distance": sum(abs(a - b) for _, a, b in shares) / 2,
        "is_exact": classes <= 256,
        "problem": None,
        "moved": [{"name": _name(names, group), "before": b, "now": a} for group, a, b in moved if a != b],
    }


def _stages(result: Mapping[str, Any]) -> dict[str, Any]:
    seconds = {name: result.get(key) or 0.0 for name, key in _STAGES}
    total = sum(seconds.values())
    return {
        "stages": [{"name": name, "seconds": s, "share": s / total if total else 0.0} for name, s in seconds.items()],
        "wall_s": result.get("seconds"),
        "compile_s": result.get("compile_s"),
        "threads": result.get("threads"),
        "partitions": result.get("partitions"),
        "bytes_in": result.get("bytes_in"),
        "bytes_written": result.get("bytes_written"),
    }


def _commit(commit: Commit) -> dict[str, Any]:
    result = commit.result
    return {
        "number": commit.plan.commit,
        "at": commit.at,
        "rows": commit.plan.rows,
        "new_rows": commit.plan.rows - commit.plan.visible_rows,
        "seconds": result.get("seconds"),
        "bytes_written": result.get("bytes_written"),
    }
