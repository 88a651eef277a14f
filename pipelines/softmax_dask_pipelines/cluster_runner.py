"""Tasks in, receipts out, on the workers of a Dask cluster; as `run_on_threads`, for whoever has a client.

A sliding window of batches: each result is taken and released at once, because results on a worker die with it.
A task whose worker dies is tried on others by Dask; when it has ended several, it is suspected, and so are those that
ran beside it: they are tried again at the end, one at a time and alone, which shows who it was.
"""

from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Thread
from time import monotonic
from typing import Any
from uuid import uuid4

from distributed import CancelledError, Client, Future, KilledWorker, as_completed
from distributed.comm import CommClosedError

from softmax_dask_pipelines.cluster_worker import Work, WorkerHands, perform
from softmax_dask_pipelines.errors import ClusterUnavailableError, PoisonPartitionError

GRACE_S = 20.0
"""So long tasks that run have to end when the run does: less than the 30 s that schedulers give before they kill."""
_WINDOW = 64
"""Batches that are submitted at once, at least; more where there are more threads."""
_BATCHES_PER_THREAD = 4
_BATCH_S = 0.3
"""So long a batch takes at least, where tasks are short: submitting one takes some 3 ms."""
_LARGEST_BATCH = 64
_LOOK_EVERY_S = 1.0
_ATTEMPTS = 3
_MOST_WAITING = 4096
"""Results that wait to be taken, before no more is begun."""
_END = object()


@dataclass(frozen=True, slots=True)
class _Failure:
    """What ended the window."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class ClusterRun:
    """A run for which workers are ready."""

    client: Client
    name: str


@contextmanager
def on_workers(client: Client, work: Work) -> Iterator[ClusterRun]:
    """Have all workers ready for a run, also those that are still to come.

    When the block ends, tasks that have begun end at their next block, or `GRACE_S` later. What a worker that does not
    answer still writes then is what it would have written before.

    Raises
    ------
    ClusterUnavailableError
        The scheduler is gone.
    """
    name = f"softmax-dask-{uuid4().hex[:12]}"
    with _lost_means_try_again():
        _register(client, WorkerHands(work, grace_s=GRACE_S), name)
        try:
            yield ClusterRun(client, name)
        finally:
            if client.status == "running":  # else the scheduler is gone
                # It waits for workers, and one of them may not answer.
                with suppress(OSError, TimeoutError, ValueError):
                    client.sync(client._unregister_worker_plugin, name=name, callback_timeout=GRACE_S + 2)


def run_on_cluster(run: ClusterRun, numbers: Sequence[int], *, take: Callable[[Any], None], wait_s: float) -> None:
    """Call the task of each number on the workers, and `take` of each result in the caller's thread.

    The first error of a task, or of `take`, ends the run: what has not begun is cancelled.

    Raises
    ------
    PoisonPartitionError
        Partitions ended every worker that had them, also alone. All others are done.
    ClusterUnavailableError
        There was no worker for `wait_s` seconds.
    """
    results: SimpleQueue[Any] = SimpleQueue()
    window = _Window(run.client, run.name, results, wait_s)
    # In a thread of its own: a signal raises KeyboardInterrupt in this one, and where it does so inside of Dask's
    # client, as while a future is forgotten, it is lost, or leaves the client broken.
    thread = Thread(target=_pump, args=(window, numbers, results), name="softmax-dask-window", daemon=True)
    thread.start()
    try:
        while (result := results.get()) is not _END:
            if isinstance(result, _Failure):
                raise result.error
            take(result)
    finally:
        window.stop.set()
        thread.join()


def _pump(window: "_Window", numbers: Sequence[int], results: "SimpleQueue[Any]") -> None:
    try:
        window.work_through(numbers)
    except BaseException as error:  # raised again in the caller's thread
        results.put(_Failure(error))
    else:
        results.put(_END)


def _register(client: Client, hands: WorkerHands, run: str) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            client.register_plugin(hands, name=run)
        except OSError:  # a worker went while it was asked
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return


class _Window:
    """Batches in flight."""

    def __init__(self, client: Client, run: str, results: "SimpleQueue[Any]", wait_s: float) -> None:
        self.stop = Event()
        self._client, self._run, self._results, self._wait_s = client, run, results, wait_s
        self._finished = as_completed(with_results=True, raise_errors=False, loop=client.loop)
        self._running: dict[Future, Sequence[int]] = {}
        self._submitted = 0
        self._suspects: list[int] = []
        self._done, self._begin = 0, monotonic()
        self._threads, self._looked = 0, -_LOOK_EVERY_S
        self._last_seen = monotonic()

    def work_through(self, numbers: Sequence[int]) -> None:
        """Have all done, or `stop`."""
        try:
            # Cut batch by batch: of a list or an array each cut would copy all that is left.
            whole = numbers if isinstance(numbers, range) else memoryview(array("q", numbers))
            self._slide(deque([whole]) if len(whole) else deque())
            self._try_suspects_alone()
        finally:
            if self._running:
                self._client.cancel(list(self._running), force=True)

    def _slide(self, waiting: deque[Sequence[int]]) -> None:
        """Keep the window full until all is done or suspected."""
        while (waiting or self._running) and not self.stop.is_set():
            self._look()
            while waiting and self._has_room():
                self._submit(waiting, self._batch())
            self._collect()

    def _has_room(self) -> bool:
        wanted = max(_WINDOW, _BATCHES_PER_THREAD * self._threads)
        return len(self._running) < wanted and self._results.qsize() < _MOST_WAITING

    def _try_suspects_alone(self) -> None:
        suspects, self._suspects = sorted(self._suspects), []
        for number in suspects:
            self._slide(deque([[number]]))
        if self._suspects:
            raise PoisonPartitionError(
                f"{_listed(self._suspects)}: every worker that scored it was ended, also when nothing else ran; "
                "expected workers that live. Did it take more memory than the workers' limit? All other partitions "
                "are done, and kept: once it is mended, the same command goes on."
            )

    def _submit(self, waiting: deque[Sequence[int]], size: int) -> None:
        numbers = waiting.popleft()
        batch, rest = numbers[:size], numbers[size:]
        if len(rest):
            waiting.appendleft(rest)
        future = self._client.submit(
            perform, self._run, tuple(batch), key=f"{self._run}-{self._submitted}", pure=False, retries=0
        )
        self._submitted += 1
        self._running[future] = batch
        self._finished.add(future)

    def _batch(self) -> int:
        """Partitions of a batch: more where they are short."""
        if not self._done:
            return 1
        each_s = (monotonic() - self._begin) * max(1, self._threads) / self._done
        return max(1, min(_LARGEST_BATCH, int(_BATCH_S / max(each_s, 1e-6))))

    def _collect(self) -> None:
        """Take what has finished; wait for it, but not for long."""
        if not self._finished.has_ready():
            with self._finished.thread_condition:
                self._finished.thread_condition.wait(timeout=0.1)
        for future, result in self._finished.next_batch(block=False):
            numbers = self._running.pop(future)
            status = future.status
            future.release()
            if status == "finished":
                self._take_all(result)
            else:
                self._failed(numbers, result)

    def _take_all(self, results: Sequence[Any]) -> None:
        for result in results:
            self._results.put(result)
        self._done += len(results)

    def _failed(self, numbers: Sequence[int], result: Any) -> None:
        error = result[1] if isinstance(result, tuple) else result
        if not isinstance(error, KilledWorker):
            raise error
        self._suspects.extend(numbers)

    def _look(self) -> None:
        """See how many threads there are, now and then; without any for long, give up."""
        now = monotonic()
        if now - self._looked < _LOOK_EVERY_S:
            return
        self._looked, self._threads = now, sum(self._client.nthreads().values())
        if self._threads:
            self._last_seen = now
        elif now - self._last_seen > self._wait_s:
            raise ClusterUnavailableError(
                f"the Dask cluster at {self._client.scheduler.address} has no workers, for {self._wait_s:g} s now "
                "(cluster.wait_s); expected some. Start them, and run the same command again."
            )


@contextmanager
def _lost_means_try_again() -> Iterator[None]:
    try:
        yield
    except (CancelledError, CommClosedError) as error:
        raise ClusterUnavailableError(
            f"the Dask cluster was lost: {error or type(error).__name__}; expected a scheduler that stays. "
            "Run the same command again: it goes on with what is done."
        ) from error


def _listed(numbers: Sequence[int]) -> str:
    names = ", ".join(str(number) for number in sorted(numbers)[:10])
    return f"partition{'s' if len(numbers) > 1 else ''} {names}{', ...' if len(numbers) > 10 else ''}"
