"""Documents of metrics and of calibrations as docs/metrics.md and `calibrate` have them, in float64 by definitions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

_BINS = 15


def metrics_of(logits: NDArray[Any], targets: NDArray[np.int64], names: Sequence[str] | None) -> dict[str, Any]:
    """What a report reads of a document of metrics."""
    rows = _Rows(logits, targets)
    classes = logits.shape[1]
    return {
        "program": "softmax-dask",
        "kind": "metrics",
        "format": 1,
        "about": {},
        "classes": classes,
        "class_names": None if names is None else list(names),
        "rows": {
            "total": len(logits),
            "undecidable": int((~rows.known).sum()),
            "labelled": len(rows.right),
            "unlabelled": int((targets < 0).sum()),
            "correct": int(rows.right.sum()),
            "infinite_nll": 0,
        },
        "figures": rows.figures(),
        "calibration": rows.bins(),
        "risk_coverage": rows.curve(),
        "confidence": rows.histogram(),
        "by_class": rows.by_class(classes),
        "confusions": rows.confusions(classes),
    }


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
        counts = np.bincount(self.places, minlength=_BINS)
        gaps = np.abs(np.bincount(self.places, self.right - self.confidence, _BINS))
        curve = self.curve()
        return {
            "accuracy": float(self.right.mean()),
            "top_k_accuracy": {"1": float(self.right.mean())},
            "nll": float(-np.log(own).mean()),
            "nll_is_infinite": False,
            "finite_nll": float(-np.log(own).mean()),
            "brier": float(((self.probabilities**2).sum(axis=1) - 2 * own + 1).mean()),
            "ece": float(gaps.sum() / len(self.right)),
            "mce": float((gaps[counts > 0] / counts[counts > 0]).max()),
            "aurc": float(np.mean(curve["risk"])),
            "mean_confidence": float(self.all.max(axis=1).mean()),
            "mean_entropy": float(-(self.all * np.log(self.all)).sum(axis=1).mean()),
        }

    def bins(self) -> dict[str, Any]:
        rows = np.bincount(self.places, minlength=_BINS)
        sums = [np.bincount(self.places, values, _BINS) for values in (self.right, self.confidence)]
        means = [[float(total) / n if n else None for total, n in zip(each, rows, strict=True)] for each in sums]
        return {"rows": rows.tolist(), "accuracy": means[0], "mean_confidence": means[1]}

    def curve(self) -> dict[str, list[float]]:
        order = np.argsort(-self.confidence)
        accepted = np.arange(1, len(order) + 1)
        risk = np.cumsum(~self.right[order]) / accepted
        return {
            "confidence": self.confidence[order].tolist(),
            "coverage": (accepted / len(order)).tolist(),
            "risk": risk.tolist(),
        }

    def histogram(self) -> dict[str, Any]:
        confidence = self.all.max(axis=1)
        place = np.ceil(confidence * 65536).astype(int)
        filled = np.unique(place)
        right = np.zeros(len(place), bool)
        right[np.flatnonzero(self.labelled)] = self.right
        return {
            "to": (filled / 65536).tolist(),
            "rows": [int((place == bin).sum()) for bin in filled],
            "labelled": [int(((place == bin) & self.labelled).sum()) for bin in filled],
            "correct": [int(((place == bin) & right).sum()) for bin in filled],
        }

    def by_class(self, classes: int) -> dict[str, Any]:
        rows = np.bincount(self.all.argmax(axis=1), minlength=classes)
        predicted = np.bincount(self.labels, minlength=classes)
        support = np.bincount(self.targets, minlength=classes)
        hits = np.bincount(self.targets[self.right], minlength=classes)
        return {
            "class": list(range(classes)),
            "rows": rows.tolist(),
            "share": (rows / rows.sum()).tolist(),
            "support": support.tolist(),
            "precision": (hits / predicted).tolist(),
            "recall": (hits / support).tolist(),
        }

    def confusions(self, classes: int) -> dict[str, Any]:
        wrong = ~self.right
        pairs, counts = np.unique(self.targets[wrong] * classes + self.labels[wrong], return_counts=True)
        most = np.argsort(-counts, kind="stable")[:50]
        return {
            "most_frequent": {
                "target": (pairs[most] // classes).tolist(),
                "label": (pairs[most] % classes).tolist(),
                "rows": counts[most].tolist(),
            }
        }
