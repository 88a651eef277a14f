"""`threshold` of an output of `score`: its columns tell all that is needed, and no logits are read."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from softmax_dask_pipelines.config import ThresholdConfig
from softmax_dask_pipelines.documents import require_free, write_document
from softmax_dask_pipelines.output_checks import checked_output
from softmax_dask_pipelines.scored import ScoredRows, require_no_temperature, scored_rows
from softmax_dask_pipelines.thresholds import find_in_scored


@dataclass(frozen=True, slots=True)
class ScoredJob:
    """A fit that is ready to begin."""

    config: ThresholdConfig
    scored: ScoredRows
    output: Path

    @property
    def total_rows(self) -> int:
        """Rows that are worked through."""
        return self.scored.rows


@dataclass(frozen=True, slots=True)
class ScoredResult:
    """What it came to; as `fitting.FitResult`."""

    job: ScoredJob
    document: dict[str, Any]
    seconds: float

    def facts(self) -> dict[str, Any]:
        """For machines: JSON types only."""
        return {"output": str(self.job.output), "rows": self.job.scored.rows, "seconds": self.seconds, **self.document}


def prepare_scored(config: ThresholdConfig) -> ScoredJob | None:
    """The fit, if the source is an output of `score`; None if it may be a dump.

    Raises
    ------
    ConfigError, ColumnNotFoundError, PathConflictError
        It is an output that cannot be used, or with flags that are not for one.
    """
    scored = scored_rows(config.source.path, config.source.id)
    if scored is None:
        return None
    require_no_temperature(scored.path, config.temperature, config.calibration)
    return ScoredJob(config, scored, checked_output(config.output.path, config.source.path, None))


def execute(
    job: ScoredJob,
    *,
    replace: bool = False,
    on_start: Callable[[int], None] | None = None,
    on_receipt: Callable[[Any], None] | None = None,
) -> ScoredResult:
    """Read the columns, and write the document."""
    require_free(job.output, replace=replace)
    begin = perf_counter()
    text = find_in_scored(job.config, job.scored)
    write_document(job.output, text, replace=replace)
    return ScoredResult(job, json.loads(text), perf_counter() - begin)
