"""A calibration: the temperature of the least NLL, and with priors a shift of each class; found, written and read.

It is found in a few reads of the logits, each of which comes to sums: whoever can read the rows (an array, a Dask
array, a dump of any size) can calibrate. Half of the rows are for the fit, the others for the report, by their keys.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_dask import documents
from softmax_dask.calibration_sums import CalibrationRead, CalibrationSums, FitOn
from softmax_dask.errors import CalibrationError
from softmax_dask.metrics import Metrics
from softmax_dask.options import TEMPERATURES
from softmax_dask.temperature_search import TemperatureSearch

_KIND = "calibration"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Calibration:
    """What turns logits z into calibrated probabilities: softmax(z / temperature + shift)."""

    temperature: float
    classes: int
    shift: tuple[float, ...] | None = None
    """Of each class, log(target prior / train prior); -inf for a class that cannot be."""
    report: Mapping[str, Any] = field(default_factory=dict)
    """How it was found, and what it changes: JSON types only."""

    def logits(self, x: Any) -> Any:
        """What `softmax(..., temperature=self.temperature)` calibrates: `x` with its classes last, or moved copies."""
        if self.shift is None:
            return x
        if x.shape[-1] != self.classes:
            raise CalibrationError(
                f"logits have {x.shape[-1]} classes along the last axis; expected the {self.classes} of the "
                "calibration. Move the class axis to the end first."
            )
        scaled: NDArray[np.float64] = np.asarray(self.shift, np.float64) * self.temperature
        return x + scaled.astype(np.float64 if x.dtype == np.float64 else np.float32)

    def with_report(self, **facts: Any) -> "Calibration":
        """The same, and more said of it."""
        return replace(self, report={**facts, **self.report})

    @property
    def ece_got_worse(self) -> bool:
        """Whether the ECE of the rows of the report is larger after than before, though the NLL is not."""
        before, after = (self.report.get(when, {}).get("ece") for when in ("before", "after"))
        return before is not None and after is not None and after > before

    def to_json(self) -> str:
        """The document that `from_json` reads."""
        shift = None if self.shift is None else [None if math.isinf(each) else each for each in self.shift]
        facts = {"temperature": self.temperature, "classes": self.classes, "shift": shift, **self.report}
        return documents.json_of(_KIND, _VERSION, facts)

    @staticmethod
    def from_json(text: str) -> "Calibration":
        """What `to_json` has written.

        Raises
        ------
        CalibrationError
            It is none, or of a version that is not known.
        """
        given = documents.facts_of(text, _KIND, _VERSION)
        temperature = documents.number(given, "temperature", *TEMPERATURES)
        classes = _classes(given.pop("classes", None))
        return Calibration(temperature, classes, _shift(given.pop("shift", None), classes), given)


def find_calibration(
    read: Callable[[CalibrationRead], CalibrationSums],
    *,
    rows: int,
    classes: int,
    fit_on: FitOn = "half",
    shift: Sequence[float] | None = None,
) -> Calibration:
    """The calibration of rows that `read` can go through, again and again: most often twice, after a small sample.

    Raises
    ------
    CalibrationError
        No row can be used, or no temperature has the least NLL.
    """
    moved = None if shift is None else np.asarray(shift, np.float64)
    search, before = TemperatureSearch(rows), None
    while not search.is_done:
        report_at = 1.0 if search.rows is None and before is None else None
        found = read(CalibrationRead(search.rows, fit_on, search.betas, report_at, moved, None))
        before = before or found.metrics
        search.take(found.sums)
    fit = found.sums
    after = read(CalibrationRead(None, fit_on, (), search.temperature, None, moved)).metrics
    report = {
        "fit_on": fit_on,
        "fit": {
            "rows": fit.rows,
            "infinite_rows": fit.infinite,
            "undecidable_rows": fit.undecidable,
            "unlabelled_rows": fit.unlabelled,
            "reads": search.reads + 1,
        },
        "before": _facts(before),
        "after": _facts(after),
    }
    return Calibration(search.temperature, classes, None if shift is None else tuple(map(float, shift)), report)


def class_shift(train_priors: Any, target_priors: Any) -> tuple[float, ...]:
    """log(target prior / train prior) of each class.

    Parameters
    ----------
    train_priors, target_priors : a number a class, not negative; counts or shares
        How frequent the classes were where the model learned, and are where it is used.

    Raises
    ------
    CalibrationError
        They differ in length, or a prior is negative, not finite or, of the training, 0.

    References
    ----------
    Saerens et al. 2002, "Adjusting the Outputs of a Classifier to New a Priori Probabilities", Neural Computation 14.
    """
    train, target = (_shares(name, given) for name, given in (("train", train_priors), ("target", target_priors)))
    if len(train) != len(target):
        raise CalibrationError(f"train priors are of {len(train)} classes, target priors of {len(target)}.")
    if (train == 0).any():
        raise CalibrationError(
            f"train priors have 0 for class {int(train.argmin())}; expected above 0: the model cannot know a class "
            "that it has never seen."
        )
    with np.errstate(divide="ignore"):
        return tuple(np.log(target / train).tolist())


def _shares(name: str, given: Any) -> NDArray[np.float64]:
    numbers = np.asarray(given, np.float64)
    if numbers.ndim != 1 or not (np.isfinite(numbers) & (numbers >= 0)).all() or numbers.sum() <= 0:
        raise CalibrationError(f"{name} priors are no shares; expected a number a class, none negative, not all 0.")
    shares: NDArray[np.float64] = numbers / numbers.sum()
    return shares


def _facts(metrics: Metrics | None) -> dict[str, Any]:
    """JSON types only; an infinite NLL is None, and the rows that make it so are counted."""
    assert metrics is not None, "a read with a report has metrics"
    bins = zip(metrics.bin_rows.tolist(), metrics.bin_correct.tolist(), metrics.bin_confidence, strict=True)
    return {
        "rows": metrics.labelled,
        "accuracy": metrics.accuracy,
        "nll": metrics.finite_nll if metrics.infinite_nll == 0 else None,
        "finite_nll": metrics.finite_nll,
        "infinite_rows": metrics.infinite_nll,
        "ece": metrics.ece,
        "bins": [
            {
                "rows": rows,
                "accuracy": correct / rows if rows else None,
                "confidence": confidence / rows / 2**32 if rows else None,
            }
            for rows, correct, confidence in bins
        ],
    }


def _classes(given: Any) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise CalibrationError(f"classes is {given!r}; expected a number of classes.")
    return given


def _shift(given: Any, classes: int) -> tuple[float, ...] | None:
    if given is None:
        return None
    if not isinstance(given, list) or len(given) != classes or not all(map(_is_shift, given)):
        raise CalibrationError(f"shift is not {classes} numbers; expected one a class, null for one that cannot be.")
    return tuple(-math.inf if each is None else float(each) for each in given)


def _is_shift(each: Any) -> bool:
    return each is None or (isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each))
