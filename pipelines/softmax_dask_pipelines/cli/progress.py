"""How far a run, or a search, has come: a bar on a terminal, else a line every 30 seconds. On stderr."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from types import MappingProxyType
from typing import Protocol

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_LOG_EVERY_S = 30.0

_NOTHING: Mapping[str, float] = MappingProxyType({})


class Advance(Protocol):
    """Called as rows are done."""

    def __call__(self, rows: int, total: int, bytes_in: int = 0, seconds: Mapping[str, float] = _NOTHING, /) -> None:
        """Rows that were just done, and all that there are; logits in them, and what threads took them for, by name."""


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
        columns = (TextColumn("{task.description}"), BarColumn(12), TextColumn("{task.percentage:>3.0f}%"))
        rate = TextColumn("{task.fields[rate]}")
        self._progress = Progress(*columns, TimeRemainingColumn(), rate, console=Console(stderr=True))
        self._doing, self._pace, self._task = doing, _Pace(), TaskID(0)

    def __call__(self, rows: int, total: int, bytes_in: int = 0, seconds: Mapping[str, float] = _NOTHING, /) -> None:
        self._pace.add(rows, bytes_in, seconds)
        if not self._progress.tasks:
            self._progress.start()
            self._task = self._progress.add_task(self._doing.bar, total=max(1, total), rate="")
        self._progress.update(self._task, advance=rows, rate=self._pace.text())

    def stop(self) -> None:
        if self._progress.tasks:
            self._progress.stop()


class _LogLines:
    def __init__(self, doing: Doing) -> None:
        self._doing, self._pace, self._last = doing, _Pace(), monotonic()

    def __call__(self, rows: int, total: int, bytes_in: int = 0, seconds: Mapping[str, float] = _NOTHING, /) -> None:
        self._pace.add(rows, bytes_in, seconds)
        if monotonic() - self._last >= _LOG_EVERY_S:
            self._last = monotonic()
            line = f"{self._doing.line} {self._pace.rows:,} of {total:,} rows, {self._pace.text()}"
            with suppress(OSError):  # nobody listens: no reason to end a run
                click.echo(line, err=True)


class _Pace:
    """How fast it goes, and where the time goes."""

    def __init__(self) -> None:
        self.rows, self._bytes_in, self._begin = 0, 0, monotonic()
        self._seconds: dict[str, float] = {}

    def add(self, rows: int, bytes_in: int, seconds: Mapping[str, float]) -> None:
        self.rows += rows
        self._bytes_in += bytes_in
        for name, spent in seconds.items():
            self._seconds[name] = self._seconds.get(name, 0.0) + spent

    def text(self) -> str:
        """As much as is known: `80,000 rows/s, 0.32 GB/s, read 61% kernel 30% write 9%`."""
        elapsed = max(1e-9, monotonic() - self._begin)
        parts = [f"{self.rows / elapsed:,.0f} rows/s"]
        if self._bytes_in:
            parts.append(f"{self._bytes_in / elapsed / 1e9:.2f} GB/s")
        if total := sum(self._seconds.values()):
            parts.append(" ".join(f"{name} {spent / total:.0%}" for name, spent in self._seconds.items()))
        return ", ".join(parts)
