"""What `conformal` finds in a dump: from which probability on a class is in a row's set."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_dask import (
    CalibrationError,
    ConformalCounts,
    ConformalLevel,
    ConformalRead,
    ConformalSearch,
    conformal_counts,
    exact_probabilities,
)
from softmax_dask_pipelines.config import ConformalConfig
from softmax_dask_pipelines.errors import NoFitError
from softmax_dask_pipelines.held_out import only_held_out, warn_of_all
from softmax_dask_pipelines.row_keys import Keys
from softmax_dask_pipelines.rules import Rule, rule_of
from softmax_dask_pipelines.sweep import Added, Sweep


def find(config: ConformalConfig, sweep: Sweep) -> str:
    """The document, as text.

    Raises
    ------
    NoFitError
        No row can be used.
    """
    facts = sweep.source.facts
    rule, search = rule_of(config, facts), ConformalSearch(config.alpha)
    warn_of_all(rule, config.calibration)
    exact_probabilities(rule.moved(np.zeros((1, facts.classes), facts.dtype)), rule.temperature)  # compiles it, once
    while search.read is not None:
        found = _read(sweep, rule, search.read)
        try:
            search.take(found)
        except CalibrationError as error:
            raise NoFitError(f"{facts.path}: {error}") from error
    measured = _read(sweep, rule, ConformalRead(None, search.least_probability))
    report = {
        "source": facts.path,
        "logits": facts.name,
        "held_out_half": rule.fitted_on == "half",
        "level": {"rows": search.rows},
        "measured": _facts(measured),
    }
    level = ConformalLevel(search.least_probability, config.alpha, rule.temperature, rule.shift_digest, report)
    return level.to_json()


def _read(sweep: Sweep, rule: Rule, what: ConformalRead) -> ConformalCounts:
    def look(logits: NDArray[Any], targets: NDArray[np.int64], keys: Keys) -> ConformalCounts:
        logits, targets, keys = only_held_out(rule.fitted_on, keys, logits, targets)
        return conformal_counts(rule.moved(logits), targets, keys, rule.temperature, what)

    found: ConformalCounts | None = sweep.over(lambda: Added(look))
    return ConformalCounts(np.zeros(1, np.int64)) if found is None else found


def _facts(found: ConformalCounts) -> dict[str, int | float | None]:
    rows = found.rows
    return {
        "rows": rows,
        "coverage": found.covered / rows if rows else None,
        "mean_classes": found.classes / rows if rows else None,
        "empty_sets": found.empty,
        "single_sets": found.single,
        "left_out_rows": found.left_out,
    }
