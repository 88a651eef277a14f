"""Adds up what partitions have counted while others are scored: the end of a run does not wait for all of them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from softmax_dask import Metrics, MetricsSum


class Summing:
    """A sum of metrics that grows in threads of its own."""

    def __init__(self, total: Metrics, add: Callable[[int, Callable[[bytes], None]], None], *, at_a_time: int) -> None:
        """
        Parameters
        ----------
        total : what the others are added to
        add : reads what a partition has counted, and hands it to what it is given
        at_a_time : partitions that are read at the same time
        """
        self._sum, self._add, self._turn = MetricsSum(total), add, Lock()
        self._pool = ThreadPoolExecutor(at_a_time, thread_name_prefix="softmax-dask-sum")
        self._error: Exception | None = None

    def add(self, number: int) -> None:
        """Begin to add a partition, each once; an error is raised at the end."""
        self._pool.submit(self._take, number)

    def finish(self) -> Metrics:
        """The sum of all; the first error, if there was one."""
        self._pool.shutdown(wait=True)
        if self._error is not None:
            raise self._error
        return self._sum.metrics()

    def abandon(self) -> None:
        """Nobody wants the sum: no more is read."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _take(self, number: int) -> None:
        if self._error is not None:
            return
        try:
            self._add(number, self._in_turn)
        except Exception as error:  # nobody asks the pool for what came of it
            self._error = error

    def _in_turn(self, data: bytes) -> None:
        with self._turn:
            self._sum.add(data)
