"""Documents of metrics, and of calibrations as `calibrate` has them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from softmax_dask import Metrics, decisions, metric_columns, metrics_document

_BINS = 15


def metrics_of(logits: NDArray[Any], targets: NDArray[np.int64], names: Sequence[str] | None) -> dict[str, Any]:
    """Metrics of a dump, as `evaluate` writes them; what they are is the library's tests' concern."""
    columns = decisions(logits, metric_columns(with_targets=True), targets=targets)
    return metrics_document(Metrics.of(columns, targets, classes=logits.shape[1]), class_names=names)


def calibration_of(logits: NDArray[Any], targets: NDArray[np.int64], temperature: float = 1.7) -> dict[str, Any]:
    """What a report reads of a calibration."""
    found = {"format": "softmax-dask calibration", "version": 1, "temperature": temperature, "fit_on": "half"}
    return found | {
        name: _report(_Rows(logits / np.float32(t), targets)) for name, t in (("before", 1.0), ("after", temperature))
    }


def _report(rows: "_Rows") -> dict[str, Any]:
    bins, figures = rows.bins(), rows.figures()
    columns = zip(bins["rows"], bins["accuracy"], bins["mean_confidence"], strict=True)
    listed = [{"rows": n, "accuracy": a, "confidence": c} for n, a, c in columns]
    return {"rows": len(rows.right), "bins": listed, **{name: figures[name] for name in ("accuracy", "nll", "ece")}}


class _Rows:
    """Decidable rows, and those of them that have a target."""

    def __init__(self, logits: NDArray[Any], targets: NDArray[np.int64]) -> None:
        self.known = np.isfinite(logits).all(axis=1)
        self.all = softmax(logits[self.known].astype(np.float64), axis=1)
        truth = targets[self.known]
        self.labelled = truth >= 0
        self.targets = truth[self.labelled]
        self.probabilities = self.all[self.labelled]
        self.confidence, self.labels = self.probabilities.max(axis=1), self.probabilities.argmax(axis=1)
        self.right = self.labels == self.targets
        self.places = np.clip(np.ceil(self.confidence * _BINS).astype(int) - 1, 0, _BINS - 1)

    def figures(self) -> dict[str, Any]:
        own = self.probabilities[np.arange(len(self.right)), self.targets]
        gaps = np.abs(np.bincount(self.places, self.right - self.confidence, _BINS))
        return {
            "accuracy": float(self.right.mean()),
            "nll": float(-np.log(own).mean()),
            "ece": float(gaps.sum() / len(self.right)),
        }

    def bins(self) -> dict[str, Any]:
        rows = np.bincount(self.places, minlength=_BINS)
        sums = [np.bincount(self.places, values, _BINS) for values in (self.right, self.confidence)]
        means = [[float(total) / n if n else None for total, n in zip(each, rows, strict=True)] for each in sums]
        return {"rows": rows.tolist(), "accuracy": means[0], "mean_confidence": means[1]}
