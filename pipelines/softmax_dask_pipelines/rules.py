"""How logits become decisions, beyond what kernels do: the temperature, a shift, which are accepted, sets of classes.

Documents say so, which `calibrate`, `threshold` and `conformal` have written. A threshold or a level holds for the
probabilities that it was found for: with another temperature or shift it is refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from softmax_dask import (
    Calibration,
    CalibrationError,
    ConfidenceThreshold,
    ConformalLevel,
    exact_probabilities,
    fill_sets,
    most_classes,
    shifted,
)
from softmax_dask_pipelines.config import ConformalConfig, ScoreConfig, ThresholdConfig
from softmax_dask_pipelines.documents import read_document
from softmax_dask_pipelines.errors import ConfigError
from softmax_dask_pipelines.sources import SourceFacts

T = TypeVar("T")
Ruled = ScoreConfig | ThresholdConfig | ConformalConfig

MADE = ("accept", "conformal_set")
"""Columns that are made of what the kernels give."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is said of a run, once its documents are read."""

    temperature: float = 1.0
    shift: NDArray[np.float64] | None = None
    """Of each class; added to the logits once divided."""
    accept: ConfidenceThreshold | None = None
    level: ConformalLevel | None = None
    fitted_on: str | None = None
    """half or all, of the rows of this very source; None: the temperature was fitted to others, or to none."""

    @property
    def shift_digest(self) -> str | None:
        """Tells shifts apart."""
        return None if self.shift is None else digest_of(self.shift)

    def said(self) -> dict[str, Any]:
        """What an output, and the settings of its plan, say of it: JSON types only; nothing where nothing is asked."""
        found: dict[str, Any] = {"temperature": self.temperature}
        if self.shift is not None:
            found["shift"] = self.shift_digest
        if self.accept is not None:
            found["accept"] = {name: getattr(self.accept, name) for name in ("threshold", "precision", "delta")}
        if self.level is not None:
            found["conformal"] = {name: getattr(self.level, name) for name in ("least_probability", "alpha")}
        return found

    def members(self, classes: int) -> int:
        """Classes that a set may have at most."""
        return 0 if self.level is None else most_classes(self.level.least_probability, classes)

    def scratch_bytes(self, classes: int, itemsize: int) -> int:
        """Of a row, what it takes beside the results while they are made."""
        moved = classes * itemsize if self.shift is not None else 0
        return moved + (classes * (2 * itemsize + 1) if self.level is not None else 0)

    def moved(self, logits: NDArray[Any]) -> NDArray[Any]:
        """The logits that kernels get."""
        return shifted(logits, self.shift, self.temperature)

    def make(self, out: Mapping[str, NDArray[Any]], logits: NDArray[Any]) -> None:
        """Fill those columns of `out` that kernels do not, from the others and from what the kernels got."""
        if "accept" in out:
            assert self.accept is not None, "a column accept without a threshold"
            accepted = out["confidence"] >= self.accept.threshold
            out["accept"][...] = np.where(out["label"] < 0, -1, accepted)
        if "conformal_set" in out:
            assert self.level is not None, "a column conformal_set without a level"
            probabilities = exact_probabilities(logits, self.temperature)
            fill_sets(probabilities, self.level.least_probability, out["conformal_set"])


def rule_of(config: Ruled, facts: SourceFacts) -> Rule:
    """What a config and its documents say of such a source.

    Raises
    ------
    ConfigError
        A document is none, or is of another model or of other probabilities.
    """
    rule = _calibrated(config, facts)
    if not isinstance(config, ScoreConfig):
        return rule
    accept = _told(config.accept, "a threshold", ConfidenceThreshold.from_json)
    level = _told(config.conformal, "a conformal level", ConformalLevel.from_json)
    for path, document in ((config.accept, accept), (config.conformal, level)):
        if document is not None and (document.temperature, document.shift) != (rule.temperature, rule.shift_digest):
            raise ConfigError(
                f"{path}: was found at {_words(document.temperature, document.shift)}, and this run has "
                f"{_words(rule.temperature, rule.shift_digest)}; expected the same. Give the same calibration, or "
                "find it anew."
            )
    return replace(rule, accept=accept, level=level)


def digest_of(shift: NDArray[np.float64]) -> str:
    """Tells shifts apart."""
    return blake2b(shift.astype("<f8").tobytes(), digest_size=8).hexdigest()


def _calibrated(config: Ruled, facts: SourceFacts) -> Rule:
    if config.calibration is None:
        return Rule(config.temperature)
    if config.temperature != 1.0:
        raise ConfigError(
            f"temperature: is {config.temperature:g}, and the calibration {config.calibration} says one too; expected "
            "one of the two."
        )
    found = _told(config.calibration, "a calibration", Calibration.from_json)
    assert found is not None, "a path gives a document"
    if found.classes != facts.classes:
        raise ConfigError(
            f"{config.calibration}: is of {found.classes:,} classes, and {facts.path} has {facts.classes:,}; expected "
            "the calibration of this model. Calibrate again."
        )
    shift = None if found.shift is None else np.array(found.shift)
    is_own = found.report.get("source") == facts.path
    return Rule(found.temperature, shift, fitted_on=found.report.get("fit_on") if is_own else None)


def _told(path: str | None, expected: str, read: Callable[[str], T]) -> T | None:
    if path is None:
        return None
    try:
        return read(read_document(path, expected=expected))
    except CalibrationError as error:
        raise ConfigError(f"{path}: {error}") from error


def _words(temperature: float, shift: str | None) -> str:
    return f"temperature {temperature:g}" + ("" if shift is None else f" with priors ({shift})")
