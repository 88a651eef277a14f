"""A config, whatever its verb: checked, and run."""

from collections.abc import Callable, Sequence
from datetime import date
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from softmax_dask_pipelines import evaluating, evaluation_job, jacobian_job, jacobians, job, scoring
from softmax_dask_pipelines.config import Config, EvaluateConfig, JacobianConfig, ScoreConfig, read_config
from softmax_dask_pipelines.errors import ConfigError, NothingToDoError, SourceAbsentError, SourceNotReadyError
from softmax_dask_pipelines.evaluating import Evaluation
from softmax_dask_pipelines.evaluation_job import EvaluationJob, KnownJob
from softmax_dask_pipelines.jacobian_job import JacobianJob
from softmax_dask_pipelines.jacobians import JacobianResult
from softmax_dask_pipelines.job import Job
from softmax_dask_pipelines.result import RunResult
from softmax_dask_pipelines.retrying import attempted
from softmax_dask_pipelines.selection import OnSearch

if TYPE_CHECKING:
    from distributed import Client

AnyJob = Job | JacobianJob | EvaluationJob | KnownJob
AnyResult = RunResult | JacobianResult | Evaluation

_PREPARE: dict[type[Any], Callable[[Any, OnSearch | None, bool], AnyJob]] = {
    ScoreConfig: lambda config, _, has_client: job.prepare(config, has_client=has_client),
    JacobianConfig: lambda config, on_search, _: jacobian_job.prepare(config, on_search),
    EvaluateConfig: lambda config, *_: evaluation_job.prepare(config),
}
_EXECUTE: dict[type[Any], Callable[..., AnyResult]] = {
    Job: scoring.execute,
    JacobianJob: jacobians.execute,
    EvaluationJob: evaluating.execute,
    KnownJob: evaluating.execute,
}


def run(
    config: Config | str | PathLike[str],
    *,
    overrides: Sequence[str] = (),
    date: date | str | None = None,
    replace: bool = False,
    client: "Client | None" = None,
) -> AnyResult | None:
    """Run a config: one of the `...Config` classes, or the path of a YAML file with `key=value` overrides.

    Parameters
    ----------
    date : the day of `{date:...}` in the paths of a file: a date, or a text such as "2026-11-26" or "yesterday"
    client : a distributed.Client to score with, whatever the config's `cluster:` says

    Returns
    -------
    RunResult, JacobianResult, Evaluation
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


def prepare(config: Config, *, on_search: OnSearch | None = None, has_client: bool = False) -> AnyJob:
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
    ready: AnyJob,
    *,
    replace: bool = False,
    client: "Client | None" = None,
    on_start: Callable[[int], None] | None = None,
    on_receipt: Callable[[Any], None] | None = None,
) -> AnyResult:
    """Do it; the output is complete when this returns, and else as it was."""
    more: dict[str, Any] = {}
    if client is not None:
        if not isinstance(ready, Job):
            verb = ready.config.verb
            raise ConfigError(f"client is given; expected none with verb: {verb}, which runs on threads.")
        more["client"] = client
    return _EXECUTE[type(ready)](ready, replace=replace, on_start=on_start, on_receipt=on_receipt, **more)
