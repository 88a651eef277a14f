"""Tasks in, receipts out, on Dask's threads. Knows no softmax; `cluster_runner` does the same on workers.

A wave of tasks at a time: one graph over 10^5 partitions takes a hundred megabytes, and none of
it is needed. Receipts are handed over as tasks finish, in the thread that called.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import dask.threaded
from dask.callbacks import Callback

_WAVE = 1000


class Stop(Event):
    """Set when a run is to end. Pickled, it is another one in another process, and not set."""

    def __reduce__(self) -> tuple[type["Stop"], tuple[()]]:
        return Stop, ()


def run_on_threads(
    function: Callable[[int], Any],
    numbers: Sequence[int],
    *,
    threads: int,
    take: Callable[[Any], None],
    stop: Event,
) -> None:
    """Call `function` of each number on `threads` threads, and `take` of each result in the caller's thread.

    The first error of a task, or of `take`, ends the run: `stop` is set, which tasks look at, and the error is raised
    when every task that had begun has ended. Then nothing writes any more.
    """
    with _pool(threads, stop) as pool:
        for start in range(0, len(numbers), _WAVE):
            _run_wave(function, numbers[start : start + _WAVE], pool, take)


def _run_wave(
    function: Callable[[int], Any], numbers: Sequence[int], pool: ThreadPoolExecutor, take: Callable[[Any], None]
) -> None:
    # A graph as it is: `map_blocks` of as many blocks takes milliseconds before the first task begins.
    name = f"wave-{numbers[0]}"
    wave = {(name, number): (_held, function, number) for number in numbers}
    with _Receipts(name, take):
        # The string "threads" would import distributed.
        dask.threaded.get(wave, list(wave), pool=pool)


def _held(function: Callable[[int], Any], number: int) -> list[Any]:
    """In a list, out of which it is taken: Dask keeps what tasks return until the last of the wave has ended."""
    return [function(number)]


class _Receipts(Callback):  # type: ignore[misc]
    """Hands over the result of each task of a wave as it finishes."""

    def __init__(self, name: str, take: Callable[[Any], None]) -> None:
        self._name, self._take = name, take
        super().__init__()

    def _posttask(self, key: Any, value: Any, dsk: Any, state: Any, worker: Any) -> None:
        if isinstance(key, tuple) and key[0] == self._name:
            self._take(value.pop())


@contextmanager
def _pool(threads: int, stop: Event) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(threads, thread_name_prefix="softmax-dask")
    try:
        yield pool
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
