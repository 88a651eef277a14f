"""The figures of a report of a calibration, from sums that merge in any order. Stands in for the metrics to come."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

METRIC_COLUMNS = ("confidence",)
METRIC_COLUMNS_OF_TARGETS = ("nll", "target_rank")
_BINS = 15
_UNIT = 2.0**-32


@dataclass(frozen=True, slots=True, eq=False)
class Metrics:
    """Sums over labelled, decidable rows."""

    labelled: int
    infinite_nll: int
    nll_sum: int
    bin_rows: NDArray[np.int64]
    bin_correct: NDArray[np.int64]
    bin_confidence: tuple[int, ...]

    @staticmethod
    def none(classes: int) -> "Metrics":
        """Of no rows."""
        return Metrics(0, 0, 0, np.zeros(_BINS, np.int64), np.zeros(_BINS, np.int64), (0,) * _BINS)

    @staticmethod
    def of(columns: Mapping[str, Any], targets: Any, *, classes: int) -> "Metrics":
        """Of these rows."""
        known = columns["target_rank"] >= 0
        confidence = columns["confidence"][known].astype(np.float64)
        nll = columns["nll"][known].astype(np.float64)
        places = np.clip(np.ceil(confidence * _BINS) - 1, 0, _BINS - 1).astype(np.int64)
        units = np.rint(confidence / _UNIT).astype(np.int64)
        return Metrics(
            len(nll),
            int(np.isinf(nll).sum()),
            int(np.rint(nll[np.isfinite(nll)] / _UNIT).astype(np.int64).sum()),
            np.bincount(places, minlength=_BINS),
            np.bincount(places[columns["target_rank"][known] == 0], minlength=_BINS),
            tuple(int(units[places == i].sum()) for i in range(_BINS)),
        )

    @staticmethod
    def merged(parts: Iterable["Metrics"]) -> "Metrics":
        """Of all their rows."""
        given = list(parts)
        return Metrics(
            sum(part.labelled for part in given),
            sum(part.infinite_nll for part in given),
            sum(part.nll_sum for part in given),
            np.sum([part.bin_rows for part in given], axis=0),
            np.sum([part.bin_correct for part in given], axis=0),
            tuple(map(sum, zip(*(part.bin_confidence for part in given), strict=True))),
        )

    @property
    def accuracy(self) -> float | None:
        """Share of correct rows."""
        return int(self.bin_correct.sum()) / self.labelled if self.labelled else None

    @property
    def finite_nll(self) -> float | None:
        """Mean, nats, of rows whose NLL is finite."""
        rows = self.labelled - self.infinite_nll
        return self.nll_sum / rows * _UNIT if rows else None

    @property
    def ece(self) -> float | None:
        """Of 15 bins of equal width, closed on the right."""
        pairs = zip(self.bin_correct.tolist(), self.bin_confidence, strict=True)
        gaps = sum(abs(correct * 2**32 - confidence) for correct, confidence in pairs)
        return gaps * _UNIT / self.labelled if self.labelled else None
