"""Readers that look all the time, while runs commit, are killed, go on, grow and replace."""

import json
import os
import random
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from tests.pipelines.faults.children import KILLED, Checker, end, forked, start
from tests.pipelines.faults.histories import STEPS, History
from tests.pipelines.faults.injection import Injector
from tests.pipelines.faults.looking import READERS
from tests.pipelines.faults.stage import KINDS, Figures, Stage, die, run

_LOOKERS = 2
_KILLS = 2
"""Of each step, at most."""
_MOST_OPERATIONS = 120


def readers(stage: Stage, *, seconds: float) -> Figures:
    """Two processes look, one library after the other, at outputs of both formats in turns, for so long."""
    figures = Figures(more={"looks": {}, "crossed a swap": 0, "runs": 0, "kills": 0})
    place = _Place(stage.root / "stop", stage.root / "current")
    histories = (stage.history(KINDS[turn % len(KINDS)]) for turn in count())
    place.show(history := next(histories))
    looking = [start(lambda: _look(stage.logits, place)) for _ in range(_LOOKERS)]
    while len(list(stage.root.glob("ready-*"))) < _LOOKERS:
        time.sleep(0.01)
    begin = time.monotonic()
    try:
        for turn in count(1):
            _grow(history, figures)
            if turn >= len(KINDS) and time.monotonic() - begin > seconds:
                break
            place.show(history := next(histories))
    finally:
        place.stop.touch()  # else they look for ever, whatever ended this
    for found in map(end, looking):
        assert found.code == 0, found
        _add(figures, found.value)
    return figures


@dataclass(frozen=True)
class _Place:
    """How lookers are told what to look at."""

    stop: Path
    current: Path

    def show(self, history: History) -> None:
        """From now on, look at this one."""
        written = self.current.with_suffix(".new")
        written.write_text(json.dumps([str(history.root), history.source_format, history.output_format]))
        written.rename(self.current)

    def history(self) -> History:
        """The one to look at."""
        root, source, output = json.loads(self.current.read_text())
        return History(Path(root), source, output)


def _grow(history: History, figures: Figures) -> None:
    """One history, from before its first run until after its last."""
    for number in range(len(STEPS)):
        history.grow(number)
        for _ in range(_KILLS):
            figures.more["kills"] += _is_killed(history, number)
        run(history, number)
        figures.more["runs"] += 1


def _add(figures: Figures, found: dict[str, Any]) -> None:
    figures.tried += sum(found["looks"].values())
    figures.more["crossed a swap"] += found["crossed"]
    figures.violations += found["torn"]
    for name, looks in found["looks"].items():
        figures.more["looks"][name] = figures.more["looks"].get(name, 0) + looks


def _is_killed(history: History, number: int) -> bool:
    """Whether a run of that step met its end in the middle."""
    point = random.randrange(1, _MOST_OPERATIONS)

    def call() -> Any:
        Injector(point, die).install()
        return history.run(number)

    ended = forked(call)
    assert ended.code in (0, KILLED), ended
    return ended.code == KILLED


def _look(logits: Path, place: _Place) -> dict[str, Any]:
    """Look until told to stop. Who reads while an output is swapped opens files of both: that does not count."""
    checker, torn, looks, crossed = Checker(), list[str](), dict[str, int](), 0
    states = [(step.rows, step.temperature) for step in STEPS]
    for turn in count(random.randrange(100)):
        if place.stop.exists():
            break
        output = place.history().output
        readers = list(READERS[output.suffix])
        name, before = readers[turn % len(readers)], _inode(output)
        found = checker.state(output, logits, states, name)
        place.current.with_name(f"ready-{os.getpid()}").touch()
        if found is None:
            continue
        if before in (None, _inode(output)):
            key = f"{name}, {output.suffix[1:]}"
            looks[key] = looks.get(key, 0) + 1
            torn += [f"{key}: {found}"] if isinstance(found, str) else []
        else:
            crossed += 1
    checker.close()
    return {"looks": looks, "crossed": crossed, "torn": torn[:5]}


def _inode(output: Path) -> int | None:
    try:
        return os.stat(output).st_ino
    except FileNotFoundError:
        return None
