"""A config, whatever its verb: checked, and run."""

from collections.abc import Callable, Sequence
from os import PathLike, fspath
from typing import Any

from softmax_dask_pipelines import jacobian_job, jacobians, job, scoring
from softmax_dask_pipelines.config import Config, JacobianConfig, ScoreConfig, read_config
from softmax_dask_pipelines.jacobian_job import JacobianJob
from softmax_dask_pipelines.jacobians import JacobianResult
from softmax_dask_pipelines.job import Job
from softmax_dask_pipelines.scoring import RunResult
from softmax_dask_pipelines.selection import OnSearch

_PREPARE: dict[type[Any], Callable[[Any, OnSearch | None], Job | JacobianJob]] = {
    ScoreConfig: lambda config, _: job.prepare(config),
    JacobianConfig: jacobian_job.prepare,
}
_EXECUTE: dict[type[Any], Callable[..., RunResult | JacobianResult]] = {
    Job: scoring.execute,
    JacobianJob: jacobians.execute,
}


def run(
    config: Config | str | PathLike[str], *, overrides: Sequence[str] = (), replace: bool = False
) -> RunResult | JacobianResult:
    """Run a config: a `ScoreConfig`, a `JacobianConfig`, or the path of a YAML file with `key=value` overrides.

    Raises
    ------
    UsageError, DataError, OutputExistsError, TemporaryError
        See `softmax_dask_pipelines.errors`; nothing is published, and an old output stays.
    """
    ready = config if isinstance(config, Config) else read_config(fspath(config), overrides)
    return execute(prepare(ready), replace=replace)


def prepare(config: Config, *, on_search: OnSearch | None = None) -> Job | JacobianJob:
    """Check everything that can be checked before anything is written, and find the rows that are wanted."""
    return _PREPARE[type(config)](config, on_search)


def execute(
    ready: Job | JacobianJob,
    *,
    replace: bool = False,
    on_start: Callable[[int], None] | None = None,
    on_receipt: Callable[[Any], None] | None = None,
) -> RunResult | JacobianResult:
    """Do it; the output is complete when this returns, and else as it was."""
    return _EXECUTE[type(ready)](ready, replace=replace, on_start=on_start, on_receipt=on_receipt)
