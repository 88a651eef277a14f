"""How far a run, or a search, has come: a bar on a terminal, else a line every 30 seconds. On stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_LOG_EVERY_S = 30.0

Advance = Callable[[int, int], None]
"""Called with the rows that were just done, and all that there are to do."""


@dataclass(frozen=True, slots=True)
class Doing:
    """What is done to rows, in words."""

    bar: str
    line: str


RUNNING = Doing("rows", "done")
SEARCHING = Doing("search", "searched")


@contextmanager
def progress(doing: Doing, *, quiet: bool) -> Iterator[Advance | None]:
    """What to call as rows are done; nothing is shown before the first call."""
    if quiet:
        yield None
    elif _can_draw():
        bar = _Bar(doing)
        try:
            yield bar
        finally:
            bar.stop()
    else:
        yield _LogLines(doing)


def _can_draw() -> bool:
    """Whether stderr is a terminal that can move its cursor; it is None where it was closed."""
    return sys.stderr is not None and sys.stderr.isatty() and not Console(stderr=True).is_dumb_terminal


class _Bar:
    def __init__(self, doing: Doing) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
        rate = TextColumn("{task.fields[rate]}")
        self._progress = Progress(*columns, rate, TimeRemainingColumn(), console=Console(stderr=True))
        self._doing, self._begin, self._task = doing, monotonic(), TaskID(0)

    def __call__(self, rows: int, total: int) -> None:
        if not self._progress.tasks:
            self._progress.start()
            self._task = self._progress.add_task(self._doing.bar, total=max(1, total), rate="")
        rate = _rate(self._progress.tasks[0].completed, self._begin)
        self._progress.update(self._task, advance=rows, rate=rate)

    def stop(self) -> None:
        if self._progress.tasks:
            self._progress.stop()


class _LogLines:
    def __init__(self, doing: Doing) -> None:
        self._doing, self._done, self._begin = doing, 0, monotonic()
        self._last = self._begin

    def __call__(self, rows: int, total: int) -> None:
        self._done += rows
        if monotonic() - self._last >= _LOG_EVERY_S:
            self._last = monotonic()
            line = f"{self._doing.line} {self._done:,} of {total:,} rows, {_rate(self._done, self._begin)}"
            with suppress(OSError):  # nobody listens: no reason to end a run
                click.echo(line, err=True)


def _rate(rows: float, begin: float) -> str:
    return f"{rows / max(1e-9, monotonic() - begin):,.0f} rows/s"
