"""Metrics as one JSON document: figures for people and reports, and the integers they come from.

docs/metrics.md describes every key. Lists of one length under one key are the columns of a table.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_dask.confusions import DEPTH, WIDTH, Confusions
from softmax_dask.errors import MetricsError
from softmax_dask.kernels.counts import EDGES, FINE_BINS, RANKS, fine_edges
from softmax_dask.metrics import Metrics

FORMAT = 1
"""Of the document; raised when a key changes its meaning or goes away. New keys do not raise it."""

_TOP_K = (1, 2, 3, 5, 10)
_SUMS = ("confidence_sum", "entropy_sum", "nll_sum", "brier_sum")
_BY_CLASS = {"rows": "labels", "predicted": "predicted", "support": "support", "correct": "hits"}
_BY_BIN = {"rows": "histogram", "labelled": "labelled_histogram", "correct": "correct_histogram"}

Counters = NDArray[np.int64]


def metrics_document(
    metrics: Metrics, *, class_names: Sequence[str] | None = None, about: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """All of it as JSON types: `json.dumps(document, allow_nan=False)`; a figure that there is not is None.

    Parameters
    ----------
    class_names : of all classes
    about : what the rows are, JSON types; kept as it is
    """
    return {
        "program": "softmax-dask",
        "kind": "metrics",
        "format": FORMAT,
        "about": dict(about or {}),
        "classes": metrics.classes,
        "class_names": None if class_names is None else list(class_names),
        "rows": _rows(metrics),
        "figures": _figures(metrics),
        "calibration": _calibration(metrics),
        "risk_coverage": _risk_coverage(metrics),
        "confidence": _confidence(metrics),
        "by_class": _by_class(metrics),
        "confusions": _confusions(metrics),
        "ranks": np.trim_zeros(metrics.ranks, "b").tolist(),
        "sums": {**{name: getattr(metrics, name) for name in _SUMS}, "bin_confidence": list(metrics.bin_confidence)},
    }


def metrics_from_document(document: Mapping[str, Any]) -> Metrics:
    """What `metrics_document` was given.

    Raises
    ------
    MetricsError
        It is no such document, or one of another format.
    """
    found = document.get("format") if isinstance(document, Mapping) and document.get("kind") == "metrics" else None
    if found != FORMAT:
        raise MetricsError(
            f"a document is {'no metrics' if found is None else f'of metrics in format {found}'}; expected format "
            f"{FORMAT}. Use the version of softmax-dask that wrote it, or evaluate again."
        )
    rows, by_class, by_bin = document["rows"], document["by_class"], document["confidence"]
    classes, calibration, sums = document["classes"], document["calibration"], document["sums"]
    fields: dict[str, Any] = {"classes": classes, "rows": rows["total"]}
    fields |= {name: rows[name] for name in ("undecidable", "labelled", "labelled_undecidable", "infinite_nll")}
    fields |= {name: sums[name] for name in _SUMS}
    fields |= {name: _dense(by_class["class"], by_class[key], classes) for key, name in _BY_CLASS.items()}
    fields |= {name: _dense(by_bin["bin"], by_bin[key], FINE_BINS) for key, name in _BY_BIN.items()}
    return Metrics(
        **fields,
        ranks=_dense(range(len(document["ranks"])), document["ranks"], RANKS + 1),
        bin_rows=np.array(calibration["rows"], np.int64),
        bin_correct=np.array(calibration["correct"], np.int64),
        bin_confidence=tuple(sums["bin_confidence"]),
        confusions=_confusions_of(document["confusions"]),
    )


def _rows(metrics: Metrics) -> dict[str, int]:
    return {
        "total": metrics.rows,
        "undecidable": metrics.undecidable,
        "labelled": metrics.labelled,
        "unlabelled": metrics.unlabelled,
        "labelled_undecidable": metrics.labelled_undecidable,
        "correct": metrics.correct,
        "infinite_nll": metrics.infinite_nll,
    }


def _figures(metrics: Metrics) -> dict[str, Any]:
    area = metrics.aurc
    return {
        "accuracy": metrics.accuracy,
        "top_k_accuracy": {str(k): metrics.top_k_accuracy(k) for k in _TOP_K if k <= metrics.classes},
        "nll": metrics.nll if metrics.nll is not None and math.isfinite(metrics.nll) else None,
        "nll_is_infinite": metrics.infinite_nll > 0,
        "finite_nll": metrics.finite_nll,
        "brier": metrics.brier,
        "ece": metrics.ece,
        "mce": metrics.mce,
        "aurc": None if area is None else area.value,
        "aurc_low": None if area is None else area.low,
        "aurc_high": None if area is None else area.high,
        "mean_confidence": metrics.mean_confidence,
        "mean_entropy": metrics.mean_entropy,
    }


def _calibration(metrics: Metrics) -> dict[str, Any]:
    rows, correct = metrics.bin_rows.tolist(), metrics.bin_correct.tolist()
    return {
        "edges": EDGES.tolist(),
        "closed": "right",
        "rows": rows,
        "correct": correct,
        "accuracy": [_share(part, of) for part, of in zip(correct, rows, strict=True)],
        "mean_confidence": [_share(part, of << 32) for part, of in zip(metrics.bin_confidence, rows, strict=True)],
    }


def _risk_coverage(metrics: Metrics) -> dict[str, Any]:
    curve = metrics.risk_coverage
    return {name: getattr(curve, name).tolist() for name in ("confidence", "coverage", "risk")}


def _confidence(metrics: Metrics) -> dict[str, Any]:
    filled = np.flatnonzero(metrics.histogram)
    return {
        "bins": FINE_BINS,
        "closed": "right",
        "bin": filled.tolist(),
        "to": fine_edges()[filled + 1].tolist(),
        **{key: getattr(metrics, name)[filled].tolist() for key, name in _BY_BIN.items()},
    }


def _by_class(metrics: Metrics) -> dict[str, Any]:
    met = np.flatnonzero(metrics.labels + metrics.support)
    counts = {key: getattr(metrics, name)[met].tolist() for key, name in _BY_CLASS.items()}
    correct = counts["correct"]
    return {
        "class": met.tolist(),
        **counts,
        "share": [_share(rows, metrics.decidable) for rows in counts["rows"]],
        "precision": [_share(part, of) for part, of in zip(correct, counts["predicted"], strict=True)],
        "recall": [_share(part, of) for part, of in zip(correct, counts["support"], strict=True)],
    }


def _confusions(metrics: Metrics) -> dict[str, Any]:
    confusions = metrics.confusions
    most = metrics.frequent_confusions()
    found: dict[str, Any] = {
        "is_exact": confusions.is_exact,
        "distinct": len(confusions.pairs) if confusions.is_exact else None,
        "most_frequent": {name: [getattr(each, name) for each in most] for name in ("target", "label", "rows")},
    }
    if confusions.sketch is not None:
        flat = confusions.sketch.reshape(-1)
        filled = np.flatnonzero(flat)
        return found | {"sketch": {"place": filled.tolist(), "rows": flat[filled].tolist()}}
    return found | {"pairs": confusions.pairs.tolist(), "rows": confusions.rows.tolist()}


def _confusions_of(found: Mapping[str, Any]) -> Confusions:
    if found["is_exact"]:
        return Confusions(np.array(found["pairs"], np.int64), np.array(found["rows"], np.int64))
    sketch = found["sketch"]
    return Confusions(sketch=_dense(sketch["place"], sketch["rows"], DEPTH * WIDTH).reshape(DEPTH, WIDTH))


def _dense(places: Sequence[int], values: Sequence[int], length: int) -> Counters:
    counters = np.zeros(length, np.int64)
    counters[np.array(places, np.int64)] = values
    return counters


def _share(part: int, of: int) -> float | None:
    return part / of if of else None
