"""An evaluation that is ready to begin: a dump that is cut, or a scored output whose metrics are there already."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from softmax_dask import float_dtype
from softmax_dask_pipelines import machine
from softmax_dask_pipelines.addresses import is_address
from softmax_dask_pipelines.backend import Backend
from softmax_dask_pipelines.config import EvaluateConfig
from softmax_dask_pipelines.errors import ConfigError, PathConflictError
from softmax_dask_pipelines.job import carried_bytes, counting_bytes, source_request, warn_of_one_class
from softmax_dask_pipelines.ledger.history import History
from softmax_dask_pipelines.ledger.sidecars import metrics_of_commit
from softmax_dask_pipelines.object_path import AnyPath, ObjectPath
from softmax_dask_pipelines.plan import Plan, Sizes, make_plan
from softmax_dask_pipelines.sinks import job_folder
from softmax_dask_pipelines.sources import Source, SourceFacts, open_source

_COLUMNS = 6
"""That are decided of each row."""


@dataclass(frozen=True, slots=True)
class EvaluationJob:
    """An evaluation of a dump: everything is checked, nothing is read."""

    config: EvaluateConfig
    source: Source
    plan: Plan
    backend: Backend = "cpu"
    """Where it computes."""

    @property
    def facts(self) -> SourceFacts:
        """What is known of the source."""
        return self.source.facts

    @property
    def total_rows(self) -> int:
        """Rows that are read."""
        return self.plan.rows_to_score


@dataclass(frozen=True, slots=True)
class KnownJob:
    """An evaluation of a scored output: what its runs have counted."""

    config: EvaluateConfig
    document: dict[str, Any]
    """Metrics of all of its rows."""
    total_rows: int


def prepare(config: EvaluateConfig) -> EvaluationJob | KnownJob:
    """Check everything that can be checked before logits are read.

    Raises
    ------
    UsageError, DataError, TemporaryError
        See `softmax_dask_pipelines.errors`.
    """
    known = None if config.source.array or config.source.column else _known(config)
    if known is not None:
        return known
    source = open_source(source_request(config.source))
    facts = source.facts
    _require_apart(config, facts)
    warn_of_one_class(facts)
    limit = config.memory_limit or machine.free_memory_bytes() // 2
    plan = make_plan(_sizes(facts), threads=config.threads or machine.cores(), memory_limit_bytes=limit)
    return EvaluationJob(config, source, replace(plan, bytes_out=0))


def _sizes(facts: SourceFacts) -> Sizes:
    return Sizes(
        rows=facts.rows,
        classes=facts.classes,
        read_rows=facts.read_rows,
        boundary_rows=facts.boundary_rows,
        read_overhead_bytes=facts.read_overhead_bytes,
        row_bytes=facts.classes * facts.dtype.itemsize,
        wide_bytes=0,
        widest_bytes=0,
        narrow_bytes=_COLUMNS * float_dtype(facts.dtype).itemsize + carried_bytes(facts),
        counting_bytes=counting_bytes(facts.classes),
    )


def _require_apart(config: EvaluateConfig, facts: SourceFacts) -> None:
    output = None if config.output is None else config.output.path
    if output is not None and not is_address(facts.path):
        written, read = Path(output).resolve(), Path(facts.path).resolve()
        if written == read or read in written.parents:
            raise PathConflictError(f"{output}: is or lies inside the source {facts.path}; expected a path apart.")


def _known(config: EvaluateConfig) -> KnownJob | None:
    """What is known of it, where the source is what `score` has written."""
    path = _path_of(config)
    if not job_folder(path).exists():
        return None
    history = History.of(path)
    if history.latest is None or history.latest.plan.settings.get("verb") not in ("score", "compact"):
        return None
    settings = history.latest.plan.settings
    told = {"temperature": config.temperature, "target": config.source.target}
    was = {"temperature": settings.get("temperature"), "target": settings.get("source.target")}
    left_out = {"temperature": 1.0, "target": None}
    other = next((name for name in told if told[name] not in (was[name], left_out[name])), None)
    if other is not None:
        raise ConfigError(
            f"{other}: is {told[other]}, and {path} was scored with {was[other]}; expected the same, for its logits "
            f"are not read. Leave it out, or evaluate the source, {settings.get('source.path')}."
        )
    found = metrics_of_commit(history, history.latest)
    if found is None:
        raise ConfigError(
            f"{path}: was scored by a version that kept no metrics; expected them in {history.folder}. "
            f"Evaluate its source, {settings.get('source.path')}, or score it again with --replace."
        )
    document = replace(found, about={**found.about, "output": str(path)}).document()
    return KnownJob(config, document, found.metrics.rows)


def _path_of(config: EvaluateConfig) -> AnyPath:
    given = config.source
    if is_address(given.path):
        return ObjectPath.at(given.path, given.storage_options)
    return Path(given.path.removeprefix("file://").rstrip("/") or "/")
