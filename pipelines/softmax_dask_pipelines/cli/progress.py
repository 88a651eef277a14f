"""How far a run has come: a bar on a terminal, else a line every 30 seconds. On stderr."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from softmax_dask_pipelines.job import Job
from softmax_dask_pipelines.scoring import OnReceipt
from softmax_dask_pipelines.task import Receipt

_LOG_EVERY_S = 30.0


@contextmanager
def progress(job: Job, *, quiet: bool) -> Iterator[OnReceipt | None]:
    """What to call with each receipt."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task("scoring", total=max(1, job.plan.rows), rate="")
            begin = monotonic()
            yield lambda receipt: bar.update(
                task, advance=receipt.tally.rows, rate=_rate(bar.tasks[0].completed, begin)
            )
    else:
        yield _LogLines(job)


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    return Progress(*columns, TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), console=Console(stderr=True))


def _rate(rows: float, begin: float) -> str:
    return f"{rows / max(1e-9, monotonic() - begin):,.0f} rows/s"


class _LogLines:
    def __init__(self, job: Job) -> None:
        self._total, self._done, self._begin = job.plan.rows, 0, monotonic()
        self._last = self._begin

    def __call__(self, receipt: Receipt) -> None:
        self._done += receipt.tally.rows
        if monotonic() - self._last >= _LOG_EVERY_S:
            self._last = monotonic()
            click.echo(f"scored {self._done:,} of {self._total:,} rows, {_rate(self._done, self._begin)}", err=True)
