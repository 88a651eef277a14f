"""A dump with targets in, one small document out: the story of `calibrate`, `threshold` and `conformal`.

source -> plan -> reads of all partitions on Dask's threads, each of which comes to sums -> document, written at once
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from softmax_dask import float_dtype
from softmax_dask_pipelines import calibrations, conformal_levels, machine, thresholds
from softmax_dask_pipelines.config import CalibrateConfig, ConformalConfig, FitConfig, ThresholdConfig
from softmax_dask_pipelines.documents import require_free, write_document
from softmax_dask_pipelines.errors import ConfigError
from softmax_dask_pipelines.job import carried_bytes, source_request, warn_of_one_class
from softmax_dask_pipelines.output_checks import checked_output, require_apart_from_files
from softmax_dask_pipelines.plan import Plan, Sizes, make_plan
from softmax_dask_pipelines.rules import rule_of
from softmax_dask_pipelines.sources import Source, SourceFacts, open_source
from softmax_dask_pipelines.sweep import Glance, Sweep

_FIND: dict[type[Any], Callable[[Any, Sweep], str]] = {
    CalibrateConfig: calibrations.find,
    ThresholdConfig: thresholds.find,
    ConformalConfig: conformal_levels.find,
}
"""Config -> what makes its document, as text."""
_ROWS_READ: dict[type[Any], Callable[[int], int]] = {
    CalibrateConfig: calibrations.rows_read,
    ThresholdConfig: lambda rows: rows,
    ConformalConfig: lambda rows: 3 * rows,
}
"""Config -> how many rows of a dump of so many are read, in all reads together, most often."""
_COUNTED_BYTES = 8 << 20
"""Of what is counted of a chunk."""


@dataclass(frozen=True, slots=True)
class FitJob:
    """A fit that is ready to begin: everything is checked, nothing is written."""

    config: FitConfig
    source: Source
    plan: Plan
    output: Path

    @property
    def facts(self) -> SourceFacts:
        """What is known of the source."""
        return self.source.facts

    @property
    def total_rows(self) -> int:
        """Rows that are worked through, in all reads together."""
        return _ROWS_READ[type(self.config)](self.plan.rows)


@dataclass(frozen=True, slots=True)
class FitResult:
    """What a fit came to."""

    job: FitJob
    document: dict[str, Any]
    """As it was written."""
    seconds: float

    def facts(self) -> dict[str, Any]:
        """For machines: JSON types only."""
        return {"output": str(self.job.output), "rows": self.job.plan.rows, "seconds": self.seconds, **self.document}


def prepare(config: FitConfig, _: Any = None) -> FitJob:
    """Check everything that can be checked before anything is read.

    Raises
    ------
    UsageError, DataError, TemporaryError
        See `softmax_dask_pipelines.errors`.
    """
    output = checked_output(config.output.path, config.source.path, config.source.classes)
    source = open_source(source_request(config.source))
    facts = source.facts
    require_apart_from_files(facts, output)
    warn_of_one_class(facts)
    if not isinstance(config, CalibrateConfig):
        rule_of(config, facts)  # what is wrong with its documents is said before anything is read
    if facts.target_name is None:
        raise ConfigError(
            f"target: none is named, and {facts.path} has none of the usual name; expected true classes. "
            "Name them: --target NAME."
        )
    limit = config.memory_limit or machine.free_memory_bytes() // 2
    plan = make_plan(_sizes(facts), threads=config.threads or machine.cores(), memory_limit_bytes=limit)
    return FitJob(config, source, plan, output)


def execute(
    job: FitJob,
    *,
    replace: bool = False,
    on_start: Callable[[int], None] | None = None,
    on_receipt: Callable[[Glance], None] | None = None,
) -> FitResult:
    """Read the dump as often as it takes, and write the document."""
    require_free(job.output, replace=replace)
    begin = perf_counter()
    if on_start is not None:
        on_start(job.total_rows)
    sweep = Sweep(job.source, job.plan, job.config.retries, on_receipt)
    text = _FIND[type(job.config)](job.config, sweep)
    write_document(job.output, text, replace=replace)
    return FitResult(job, json.loads(text), perf_counter() - begin)


def _sizes(facts: SourceFacts) -> Sizes:
    """As `score` without a column: copies of some rows of a chunk take what its results would."""
    row_bytes = facts.classes * facts.dtype.itemsize
    wide = facts.classes * max(float_dtype(facts.dtype).itemsize, facts.dtype.itemsize)
    return Sizes(
        rows=facts.rows,
        classes=facts.classes,
        read_rows=facts.read_rows,
        boundary_rows=facts.boundary_rows,
        read_overhead_bytes=facts.read_overhead_bytes + _COUNTED_BYTES,
        row_bytes=row_bytes,
        wide_bytes=wide,
        widest_bytes=wide,
        narrow_bytes=carried_bytes(facts),
    )
