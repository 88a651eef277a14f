"""Writes on threads of their own: a disk is waited for while others compute. Knows no files."""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from typing import Any, Generic, TypeVar

T = TypeVar("T")

UNDER_WAY = 2
"""Writes of one partition at a time: a disk that syncs two files at once syncs more bytes a second than with one."""

_MOST_THREADS = 1000
"""No limit: who writes has one. Threads are started when none is idle."""


class Background(Generic[T]):
    """Calls that are made in order, a few at a time; what each returns is kept."""

    def __init__(self, threads: int = UNDER_WAY) -> None:
        self._threads = threads
        self._under_way: deque[Future[T]] = deque()
        self._all: list[Future[T]] = []

    def call(self, function: Callable[..., T], *arguments: Any) -> None:
        """Begin to call `function`, once fewer than all threads are busy; the first error of earlier calls is raised.

        So what waits here holds the memory of `threads` calls at most.
        """
        while len(self._under_way) >= self._threads:
            self._under_way.popleft().result()
        future = _pool_of(os.getpid()).submit(function, *arguments)
        self._under_way.append(future)
        self._all.append(future)

    def drain(self) -> None:
        """Wait until none is under way; the first error is raised."""
        while self._under_way:
            self._under_way.popleft().result()

    def finish(self) -> tuple[T, ...]:
        """What the calls returned, in the order in which they were made; the first error, once none is under way."""
        wait(self._under_way)
        return tuple(future.result() for future in self._all)

    def abandon(self) -> None:
        """Wait for the calls that have begun; the others are not made."""
        wait([future for future in self._under_way if not future.cancel()])


@cache
def _pool_of(process: int) -> ThreadPoolExecutor:
    """One for all partitions of a process: to start a thread takes as long as to write a small file.

    A process that was forked has the pool of the one before, without its threads.
    """
    return ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="softmax-dask-write")
