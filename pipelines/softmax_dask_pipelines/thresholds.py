"""What `threshold` finds in a dump, or in an output of `score`: from which confidence on decisions are accepted."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softmax_dask import CalibrationError, ConfidenceCounts, confidence_counts, decisions, find_threshold
from softmax_dask_pipelines.config import ThresholdConfig
from softmax_dask_pipelines.errors import NoFitError
from softmax_dask_pipelines.held_out import only_held_out, warn_of_all
from softmax_dask_pipelines.row_keys import Keys
from softmax_dask_pipelines.rules import rule_of
from softmax_dask_pipelines.scored import ScoredRows
from softmax_dask_pipelines.sweep import Added, Sweep

_COLUMNS = ("confidence", "correct")


class Told(NamedTuple):
    """Of which probabilities a threshold is."""

    temperature: float
    shift: str | None


def find(config: ThresholdConfig, sweep: Sweep) -> str:
    """The document, as text, from logits.

    Raises
    ------
    NoFitError
        No threshold has that precision.
    """
    facts = sweep.source.facts
    rule = rule_of(config, facts)
    warn_of_all(rule, config.calibration)

    def look(logits: NDArray[Any], targets: NDArray[np.int64], keys: Keys) -> ConfidenceCounts:
        logits, targets, keys = only_held_out(rule.fitted_on, keys, logits, targets)
        found = decisions(rule.moved(logits), _COLUMNS, targets=targets, temperature=rule.temperature)
        return confidence_counts(found["confidence"], found["correct"], keys)

    look(np.zeros((1, facts.classes), facts.dtype), np.zeros(1, np.int64), np.full(1, ~np.uint64(0)))  # compiles it
    counts = sweep.over(lambda: Added(look))
    said = {"source": facts.path, "logits": facts.name, "held_out_half": rule.fitted_on == "half"}
    return _document(config, counts, facts.path, Told(rule.temperature, rule.shift_digest), said)


def find_in_scored(config: ThresholdConfig, scored: ScoredRows) -> str:
    """The same from columns that are written already; temperature and priors are those of the output."""
    counts: ConfidenceCounts | None = None
    for confidence, correct, keys in scored.blocks():
        confidence, correct, keys = only_held_out(scored.fitted_on, keys, confidence, correct)
        found = confidence_counts(confidence, correct, keys)
        counts = found if counts is None else counts + found
    told = Told(scored.temperature, scored.shift)
    return _document(
        config, counts, scored.path, told, {"source": scored.path, "held_out_half": scored.fitted_on == "half"}
    )


def _document(
    config: ThresholdConfig, counts: ConfidenceCounts | None, path: str, told: Told, said: dict[str, Any]
) -> str:
    nothing = np.zeros(0)
    counts = counts or confidence_counts(nothing, nothing.astype(np.int8), nothing.astype(np.uint64))
    try:
        found = find_threshold(
            counts,
            precision=config.precision,
            delta=config.delta,
            temperature=told.temperature,
            shift=told.shift,
        )
    except CalibrationError as error:
        raise NoFitError(f"{path}: {error}") from error
    return found.with_report(**said).to_json()
