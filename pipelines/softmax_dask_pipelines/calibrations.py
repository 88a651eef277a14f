"""What `calibrate` finds in a dump, and what `score` takes from the document."""

from typing import Any

import numpy as np

from softmax_dask import (
    CalibrationCounter,
    CalibrationError,
    CalibrationRead,
    CalibrationSums,
    SoftmaxDaskError,
    class_shift,
    decisions,
    find_calibration,
    sampled_rows,
)
from softmax_dask_pipelines.config import CalibrateConfig
from softmax_dask_pipelines.documents import numbers_of
from softmax_dask_pipelines.errors import ConfigError, NoFitError
from softmax_dask_pipelines.sources import SourceFacts
from softmax_dask_pipelines.sweep import Sweep


def find(config: CalibrateConfig, sweep: Sweep) -> str:
    """The document, as text.

    Raises
    ------
    NoFitError
        No row can be used, or no temperature has the least NLL.
    """
    facts = sweep.source.facts
    shift = _shift(config, facts)
    warm = np.zeros((1, facts.classes), facts.dtype)  # threads that all come first would wait for one compiler
    decisions(warm if shift is None else warm.astype(np.float32), ("nll",), targets=np.zeros(1, np.int64))

    def read(what: CalibrationRead) -> CalibrationSums:
        found = sweep.over(lambda: CalibrationCounter(what, facts.classes), what.rows)
        return CalibrationSums() if found is None else found

    try:
        found = find_calibration(read, rows=facts.rows, classes=facts.classes, fit_on=config.fit_on, shift=shift)
    except CalibrationError as error:
        raise NoFitError(f"{facts.path}: {error}") from error
    return found.with_report(source=facts.path, logits=facts.name, split_by=_split_by(facts)).to_json()


def rows_read(rows: int) -> int:
    """How many rows of a dump of so many are read, most often: a sample, or all, and then all of them twice."""
    sample = sampled_rows(rows)
    return 2 * rows + (rows if sample is None else sum(map(len, sample)))


def _split_by(facts: SourceFacts) -> str:
    return "row number" if facts.id is None else facts.id.name


def _shift(config: CalibrateConfig, facts: SourceFacts) -> tuple[float, ...] | None:
    if config.train_priors is None or config.target_priors is None:
        return None
    priors: dict[str, Any] = {}
    for key in ("train_priors", "target_priors"):
        path = getattr(config, key)
        priors[key] = numbers_of(path)
        if len(priors[key]) != facts.classes:
            raise ConfigError(
                f"{path}: has {len(priors[key]):,} numbers; expected {facts.classes:,}, one a class of {facts.path}."
            )
    try:
        return class_shift(**priors)
    except SoftmaxDaskError as error:
        raise ConfigError(f"train_priors, target_priors: {error}") from error
