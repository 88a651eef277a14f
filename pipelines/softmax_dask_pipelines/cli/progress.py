"""How far a run has come: a bar on a terminal, else a line every 30 seconds. On stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from softmax_dask_pipelines.jacobian_job import JacobianJob
from softmax_dask_pipelines.jacobian_task import JacobianReceipt
from softmax_dask_pipelines.job import Job
from softmax_dask_pipelines.task import Receipt

_LOG_EVERY_S = 30.0


@contextmanager
def progress(job: Job | JacobianJob, *, quiet: bool) -> Iterator[Callable[[Any], None] | None]:
    """What to call with each receipt."""
    if quiet:
        yield None
    elif _can_draw():
        with _bar() as bar:
            task = bar.add_task("rows", total=max(1, job.total_rows), rate="")
            begin = monotonic()
            yield lambda receipt: bar.update(task, advance=receipt.rows, rate=_rate(bar.tasks[0].completed, begin))
    else:
        yield _LogLines(job)


def _can_draw() -> bool:
    """Whether stderr is a terminal that can move its cursor; it is None where it was closed."""
    return sys.stderr is not None and sys.stderr.isatty() and not Console(stderr=True).is_dumb_terminal


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    return Progress(*columns, TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), console=Console(stderr=True))


def _rate(rows: float, begin: float) -> str:
    return f"{rows / max(1e-9, monotonic() - begin):,.0f} rows/s"


class _LogLines:
    def __init__(self, job: Job | JacobianJob) -> None:
        self._total, self._done, self._begin = job.total_rows, 0, monotonic()
        self._last = self._begin

    def __call__(self, receipt: Receipt | JacobianReceipt) -> None:
        self._done += receipt.rows
        if monotonic() - self._last >= _LOG_EVERY_S:
            self._last = monotonic()
            with suppress(OSError):  # nobody listens: no reason to end a run
                click.echo(f"done {self._done:,} of {self._total:,} rows, {_rate(self._done, self._begin)}", err=True)
