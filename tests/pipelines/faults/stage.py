"""Where faults are injected: histories whose states are saved, runs that end in the middle, and what must hold then."""

import os
import random
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from tests.pipelines.faults import mutants
from tests.pipelines.faults.children import Checker, Ended, forked
from tests.pipelines.faults.histories import LOGITS, STEPS, History, left_in, small_pieces, tree_of
from tests.pipelines.faults.injection import Injector
from tests.pipelines.faults.looking import READERS

KINDS = (("zarr", "zarr"), ("parquet", "parquet"))
_CLEAN = {"commit", "journal", "metrics", "runs"}


@dataclass
class Figures:
    """Of one section."""

    tried: int = 0
    violations: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)

    def require(self, fine: bool, what: str) -> bool:
        """Note what is not fine."""
        if not fine:
            self.violations.append(what)
        return fine


class Stage:
    """The histories, each state of them saved, and what they come to when nothing happens."""

    def __init__(self, root: Path, checker: Checker) -> None:
        self.root, self._checker, self._numbers = root, checker, count()
        self.logits = root / "logits.npy"
        np.save(self.logits, LOGITS)

    def history(self, kind: tuple[str, str], root: Path | None = None) -> History:
        """A new one."""
        source, output = kind
        place = (root or self.root) / f"{source}-{output}-{next(self._numbers)}"
        place.mkdir()
        return History(place, source, output)

    def state(self, history: History, states: list[tuple[int, float]], *, by_all: bool = False) -> Any:
        """What the first reader finds, or all of them."""
        reader = None if by_all else next(iter(READERS[history.output.suffix]))
        return self._checker.state(history.output, self.logits, states, reader)

    def steps(self, kind: tuple[str, str], root: Path | None = None) -> Iterator["At"]:
        """Each step, when its input is there and it has not run; afterwards it is run."""
        history = self.history(kind, root)
        for number in range(len(STEPS)):
            history.grow(number)
            saved = self.root / f"saved-{history.root.name}-{number}"
            history.save(saved)
            operations = operations_of(history, number)
            at = At(self, history, number, saved, operations, tree_of(history.output))
            yield at
            at.restore()
            run(history, number)


@dataclass(frozen=True)
class At:
    """One step of a history."""

    stage: Stage
    history: History
    number: int
    saved: Path
    operations: int
    expected: dict[str, bytes]
    """The output's files, when nothing happens."""

    def restore(self) -> None:
        self.history.restore(self.saved)

    def __str__(self) -> str:
        return f"{self.history.source_format} to {self.history.output_format}, step {self.number}"

    def require_old_or_new(self, figures: Figures, where: str, *, by_all: bool = False) -> bool:
        """A reader finds what was there, or what comes, and nothing else."""
        states = self.history.states(self.number)
        found = self.stage.state(self.history, states, by_all=by_all)
        return figures.require(isinstance(found, int) or (found is None and self.number == 0), f"{where}: {found}")

    def require_new(self, figures: Figures, where: str) -> bool:
        """A reader finds what comes."""
        states = self.history.states(self.number)
        found = self.stage.state(self.history, states)
        return figures.require(found == len(states) - 1, f"{where}: {found}")

    def require_rerun(self, figures: Figures, where: str, mutate: mutants.Mutate | None = None) -> bool:
        """The same command again completes it, to the byte, and clears up."""
        ended = forked(lambda: plain(self.history, self.number, mutate))
        if not figures.require(ended.code == 0, f"{where}: again: {ended}"):
            return False
        fine = self.require_new(figures, f"{where}: again")
        fine &= figures.require(tree_of(self.history.output) == self.expected, f"{where}: again: other bytes")
        return fine & figures.require(left_in(self.history.job) <= _CLEAN, f"{where}: left {left_in(self.history.job)}")


@contextmanager
def staged() -> Iterator[Stage]:
    """In memory where that is possible: a kill loses nothing that fsync would keep."""
    memory = Path("/dev/shm")
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None))
        checker = Checker()
        stack.callback(checker.close)
        small_pieces()
        stage = Stage(Path(folder), checker)
        warm = stage.history(("zarr", "parquet"))
        warm.grow(0)
        warm.run(0)
        shutil.rmtree(warm.root)
        yield stage


def crashed(
    at: At, point: int, act: Callable[[], None], *, persists: bool = False, mutate: mutants.Mutate | None = None
) -> Ended:
    """A run of that step in which `act` happens at a point."""

    def call() -> Any:
        Injector(point, act, persists=persists).install()
        if mutate is not None:
            mutate()
        return at.history.run(at.number)

    return forked(call)


def plain(history: History, number: int, mutate: mutants.Mutate | None) -> Any:
    """A run of that step, in this process."""
    if mutate is not None:
        Injector().install()
        mutate()
    return history.run(number)


def run(history: History, number: int) -> None:
    """A run of that step, in a child."""
    ended = forked(lambda: history.run(number))
    assert ended.code == 0, ended


def operations_of(history: History, number: int) -> int:
    """How many the step has; it is run for that."""

    def call() -> int:
        injector = Injector()
        injector.install()
        history.run(number)
        return injector.count

    ended = forked(call)
    assert ended.code == 0, ended
    return int(ended.value)


def points(operations: int, stride: int) -> range:
    """Of so many operations each, or every so many."""
    return range(1 + random.randrange(stride), operations + 1, stride)


def die() -> None:
    """As kill -9."""
    os.kill(os.getpid(), signal.SIGKILL)
