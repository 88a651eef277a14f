"""How anything is timed here: contenders take turns in one process, A B A B, and what counts is the ratio of a turn.

Another process that slows the machine slows the whole turn, so a ratio moves less than a time. The garbage
collector is off, each contender has run once before, and the spread is shown: quartiles, not the best of many.
"""

import gc
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Self

Seconds = Mapping[str, Sequence[float]]
"""Of each contender, turn by turn."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured."""

    name: str
    kernel_bytes: int
    """Of the logits that kernels read."""
    dump_bytes: int
    """Of the logits in a dump."""
    turns: int
    """At least so many of each contender."""
    seconds: float
    """More turns are taken until so much time has gone, at most four times as many."""
    classes: tuple[int, ...] = (2, 10, 16, 100, 1000, 32000)
    partitions: int = 1_000_000
    """Of a run that is planned."""


EFFORTS = {
    effort.name: effort
    for effort in (
        Effort("tiny", 1 << 14, 1 << 18, 2, 0.0, classes=(2, 100, 1000), partitions=1000),
        Effort("quick", 64 << 20, 24 << 20, 3, 0.2, partitions=100_000),
        Effort("full", 128 << 20, 1536 << 20, 7, 3.0),
    )
}


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and quartiles of what was measured."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Of one value or more."""
        if len(values) == 1:
            return cls.exactly(values[0])
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(low, middle, high)

    @classmethod
    def exactly(cls, value: float) -> Self:
        """Of a figure that is no measurement of time."""
        return cls(value, value, value)


def in_turns(
    contenders: Mapping[str, Callable[[], object]], effort: Effort, *, before: Callable[[], object] = lambda: None
) -> Seconds:
    """Seconds of each contender; `before` comes before each, and is not timed."""
    for run in contenders.values():
        before()
        run()
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    begin = perf_counter()
    with _no_garbage_collector():
        for turn in range(4 * effort.turns):
            if turn >= effort.turns and perf_counter() - begin > effort.seconds:
                break
            for name, run in contenders.items():
                before()
                taken[name].append(seconds_of(run))
    return taken


def ratio(seconds: Seconds, above: str, below: str) -> Spread:
    """Spread of the time of `above` over that of `below`, turn by turn."""
    return Spread.of([a / b for a, b in zip(seconds[above], seconds[below], strict=True)])


def seconds_of(run: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    begin = perf_counter()
    run()
    return perf_counter() - begin


@contextmanager
def _no_garbage_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
