"""What verbs that run something share: a config becomes a run, a plan on paper, or a file."""

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from softmax_dask_pipelines.cli.output import say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from softmax_dask_pipelines.cli.progress import Advance
    from softmax_dask_pipelines.config import Config
    from softmax_dask_pipelines.running import Ready


def write_config_file(config: "Config", path: str) -> None:
    """Write the config as YAML, where nothing is yet."""
    import os
    from pathlib import Path

    from softmax_dask_pipelines.config_text import text_of_config
    from softmax_dask_pipelines.errors import OutputExistsError
    from softmax_dask_pipelines.storage import make_folder, put

    if os.path.lexists(path):
        raise OutputExistsError(f"{path}: is there already; expected a path where nothing is yet. Choose another one.")
    make_folder(Path(path).absolute().parent)
    put(Path(path), [text_of_config(config).encode()])
    click.echo(f"{path}: written; nothing else is done. Run it: softmax-dask run {path}", err=True)


def carry_out(config: "Config", *, replace: bool, dry_run: bool, as_json: bool, quiet: bool) -> None:
    """Do what the config says, and say what it came to."""
    if dry_run:
        print_plan(config, as_json=as_json, quiet=quiet)
        return
    from softmax_dask_pipelines.cli.progress import RUNNING, progress
    from softmax_dask_pipelines.running import execute

    with _nothing_is_fine(as_json=as_json, quiet=quiet):
        job = _prepared(config, quiet=quiet or as_json)
        with progress(RUNNING, quiet=quiet or as_json) as advance:
            following = _Following(advance, job)
            result = execute(job, replace=replace, on_start=following.start, on_receipt=following.take)
        if as_json:
            say(json.dumps({"date": config.date, **result.facts()}, indent=2))
        elif not quiet:
            say(_texts(config).text_of_run(result))


def print_plan(config: "Config", *, as_json: bool, quiet: bool) -> None:
    """Say what would be done."""
    with _nothing_is_fine(as_json=as_json, quiet=quiet):
        job = _prepared(config, quiet=quiet or as_json)
        if as_json:
            say(json.dumps({"date": config.date, **_texts(config).facts_of_plan(job, *_estimates(job))}, indent=2))
        elif not quiet:
            say(_texts(config).text_of_plan(job, *_estimates(job)))


def _estimates(job: "Ready") -> tuple[Any, ...]:
    """How long scoring may take; nothing is known of how long other verbs do."""
    from softmax_dask_pipelines.estimate import estimated
    from softmax_dask_pipelines.job import Job

    return (estimated(job),) if isinstance(job, Job) else ()


@contextmanager
def _nothing_is_fine(*, as_json: bool, quiet: bool) -> "Iterator[None]":
    """Where there is no source, and the config says that this is fine, say so and end well."""
    from softmax_dask_pipelines.errors import NothingToDoError

    try:
        yield
    except NothingToDoError as error:
        if as_json:
            say(json.dumps({"nothing_to_do": str(error)}, indent=2))
        elif not quiet:
            say(str(error))


def _prepared(config: "Config", *, quiet: bool) -> "Ready":
    """The run, ready to begin; a search for its rows is shown."""
    from softmax_dask_pipelines.cli.progress import SEARCHING, progress
    from softmax_dask_pipelines.running import prepare

    with progress(SEARCHING, quiet=quiet) as on_search:
        return prepare(config, on_search=on_search)


class _Following:
    """Tells the progress of a run how many rows are done, of how many; of scoring also where the time goes."""

    def __init__(self, advance: "Advance | None", job: "Ready") -> None:
        from softmax_dask_pipelines.job import Job

        self._advance, self._total = advance, 0
        self._row_bytes = job.facts.classes * job.facts.dtype.itemsize if isinstance(job, Job) else 0

    def start(self, total: int) -> None:
        """So many rows there are to do."""
        self._total = total
        if self._advance is not None:
            self._advance(0, total)

    def take(self, receipt: Any) -> None:
        """A part of them is done."""
        if self._advance is not None:
            seconds = receipt.seconds if self._row_bytes else {}
            self._advance(receipt.rows, self._total, receipt.rows * self._row_bytes, seconds)


def _texts(config: "Config") -> Any:
    """The module that words what a config of this verb is about."""
    from softmax_dask_pipelines import summary, summary_fit, summary_jacobian, summary_metrics

    of_verbs = {"score": summary, "compact": summary, "jacobian": summary_jacobian, "evaluate": summary_metrics}
    return of_verbs.get(config.verb, summary_fit)
