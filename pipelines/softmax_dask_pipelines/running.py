"""A config, whatever its verb: checked, and run."""

from collections.abc import Callable, Sequence
from datetime import date
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from softmax_dask_pipelines import (
    evaluating,
    evaluation_job,
    fitting,
    jacobian_job,
    jacobians,
    job,
    scored_fitting,
    scoring,
)
from softmax_dask_pipelines.config import (
    CalibrateConfig,
    Config,
    ConformalConfig,
    EvaluateConfig,
    JacobianConfig,
    ScoreConfig,
    ThresholdConfig,
    read_config,
)
from softmax_dask_pipelines.errors import ConfigError, NothingToDoError, SourceAbsentError, SourceNotReadyError
from softmax_dask_pipelines.evaluating import Evaluation
from softmax_dask_pipelines.evaluation_job import EvaluationJob, KnownJob
from softmax_dask_pipelines.fitting import FitJob, FitResult
from softmax_dask_pipelines.jacobian_job import JacobianJob
from softmax_dask_pipelines.jacobians import JacobianResult
from softmax_dask_pipelines.job import Job
from softmax_dask_pipelines.result import RunResult
from softmax_dask_pipelines.retrying import attempted
from softmax_dask_pipelines.scored_fitting import ScoredJob, ScoredResult
from softmax_dask_pipelines.selection import OnSearch

if TYPE_CHECKING:
    from distributed import Client

Ready = Job | JacobianJob | EvaluationJob | KnownJob | FitJob | ScoredJob
Result = RunResult | JacobianResult | Evaluation | FitResult | ScoredResult

_PREPARE: dict[type[Any], Callable[[Any, OnSearch | None, bool], Ready]] = {
    ScoreConfig: lambda config, _, has_client: job.prepare(config, has_client=has_client),
    JacobianConfig: lambda config, on_search, _: jacobian_job.prepare(config, on_search),
    EvaluateConfig: lambda config, *_: evaluation_job.prepare(config),
    CalibrateConfig: lambda config, *_: fitting.prepare(config),
    ThresholdConfig: lambda config, *_: scored_fitting.prepare_scored(config) or fitting.prepare(config),
    ConformalConfig: lambda config, *_: fitting.prepare(config),
}
_EXECUTE: dict[type[Any], Callable[..., Result]] = {
    Job: scoring.execute,
    JacobianJob: jacobians.execute,
    EvaluationJob: evaluating.execute,
    KnownJob: evaluating.execute,
    FitJob: fitting.execute,
    ScoredJob: scored_fitting.execute,
}


def run(
    config: Config | str | PathLike[str],
    *,
    overrides: Sequence[str] = (),
    date: date | str | None = None,
    replace: bool = False,
    client: "Client | None" = None,
) -> Result | None:
    """Run a config: one of the `...Config` classes, or the path of a YAML file with `key=value` overrides.

    Parameters
    ----------
    date : the day of `{date:...}` in the paths of a file: a date, or a text such as "2026-11-26" or "yesterday"
    client : a distributed.Client to score with, whatever the config's `cluster:` says

    Returns
    -------
    RunResult, JacobianResult, Evaluation, FitResult, ScoredResult
        What it came to; None where there is no source yet and the config says `on_missing: nothing`.

    Raises
    ------
    UsageError, DataError, OutputExistsError, TemporaryError
        See `softmax_dask_pipelines.errors`; nothing is published, and an old output stays.
    """
    try:
        read = _read(config, overrides, None if date is None else str(date))
        ready = prepare(read, has_client=client is not None)
        return execute(ready, replace=replace, client=client)
    except NothingToDoError:
        return None


def prepare(config: Config, *, on_search: OnSearch | None = None, has_client: bool = False) -> Ready:
    """Check everything that can be checked before anything is written, and find the rows that are wanted.

    `has_client`: it will be executed with a client.

    Raises
    ------
    NothingToDoError, SourceNotReadyError, SourceAbsentError
        Nothing is at the source's path, and `on_missing` is nothing, retry or error.
    """
    try:
        return attempted(
            lambda: _PREPARE[type(config)](config, on_search, has_client),
            retries=config.retries,
            what=config.source.path,
        )
    except SourceAbsentError as error:
        if config.on_missing == "retry":
            raise SourceNotReadyError(
                f"{error} It may come: run the same command again (on_missing: retry)."
            ) from error
        if config.on_missing == "nothing":
            raise NothingToDoError(f"{error} There is nothing to do (on_missing: nothing).") from error
        raise


def _read(config: Config | str | PathLike[str], overrides: Sequence[str], day: str | None) -> Config:
    if not isinstance(config, Config):
        return read_config(fspath(config), overrides, date=day)
    if day is not None or overrides:
        raise ConfigError("date and overrides change a config file; expected neither of them with a config object.")
    return config


def execute(
    ready: Ready,
    *,
    replace: bool = False,
    client: "Client | None" = None,
    on_start: Callable[[int], None] | None = None,
    on_receipt: Callable[[Any], None] | None = None,
) -> Result:
    """Do it; the output is complete when this returns, and else as it was."""
    more: dict[str, Any] = {}
    if client is not None:
        if not isinstance(ready, Job):
            raise ConfigError(f"client is given; expected none with verb: {ready.config.verb}, which runs on threads.")
        more["client"] = client
    return _EXECUTE[type(ready)](ready, replace=replace, on_start=on_start, on_receipt=on_receipt, **more)
