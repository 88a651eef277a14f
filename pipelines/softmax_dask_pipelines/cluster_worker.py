"""What stands on each Dask worker during a run: the task itself, loaded once, so that what is sent is a few numbers.

A worker that joins later gets the same before its first task. Knows no softmax.
"""

import asyncio
import pickle
import platform
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from threading import BoundedSemaphore, Event, Lock
from time import monotonic
from typing import TYPE_CHECKING, Any

import numcodecs.blosc
import pyarrow as pa
from distributed import Worker, WorkerPlugin, get_worker

from softmax_dask import kernel_name
from softmax_dask_pipelines.backend import REMEDY, trouble_with_gpu
from softmax_dask_pipelines.errors import InterruptedRunError, MemoryBudgetError, WorkerMismatchError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKAGES = ("softmax-dask", "dask", "distributed", "numpy", "numba", "zarr", "numcodecs", "pyarrow")
"""What takes part in the bytes of an output, or in sending the task."""
_LOOK_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker must have for a run."""

    task: Callable[[int], Any]
    prepare: Callable[[], object]
    """Called once a worker before its first task, such as to compile kernels."""
    stop: Event
    """The one that `task` looks at; a `Stop`, so that each worker has its own."""
    threads: int
    """Tasks that may run at once in a process, where its memory is enough."""
    process_bytes: int
    """Memory of a process before its first task."""
    task_bytes: int
    """Memory that a task takes on top."""
    backend: str = "cpu"
    """Whose kernels must be the same everywhere."""


def versions(backend: str) -> dict[str, str]:
    """What must be the same in every process of a run: else results might not be."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, **{name: _version(name) for name in _PACKAGES}, "kernels": kernel_name(backend)}


def perform(run: str, numbers: Sequence[int]) -> list[Any]:
    """The results of the task of a run for these numbers; called on a worker."""
    plugin = get_worker().plugins.get(run)
    if plugin is None:
        raise InterruptedRunError("the run has ended.")
    results: list[Any] = plugin.perform(numbers)
    return results


class WorkerHands(WorkerPlugin):  # type: ignore[misc]
    """Holds the task of one run on a worker, and lets no more of it run at once than its memory allows."""

    def __init__(self, work: Work, *, grace_s: float) -> None:
        self._backend, self._versions = work.backend, versions(work.backend)
        # Unpickled only where the versions agree: others may fail in any way.
        self._pickled = pickle.dumps(work)
        self._grace_s = grace_s
        self._failure: Exception | None = None

    async def setup(self, worker: Worker) -> None:
        """Get ready, before the first task."""
        try:
            # In a thread: compiling takes seconds, and a worker that is silent is given up.
            await asyncio.to_thread(self._begin, worker)
        except Exception as error:
            self._failure = error  # Dask lets a worker that joins later start all the same
            raise

    async def teardown(self, worker: Worker) -> None:
        """End what runs, at its next block."""
        if self._failure is not None:
            return
        self._work.stop.set()
        last = monotonic() + self._grace_s
        while self._running and monotonic() < last:
            await asyncio.sleep(_LOOK_EVERY_S / 4)
        self._threads.give_back()

    def perform(self, numbers: Sequence[int]) -> list[Any]:
        """The results for these numbers."""
        if self._failure is not None:
            raise self._failure
        with self._place():
            return [self._work.task(number) for number in numbers]

    def _begin(self, worker: Worker) -> None:
        _require_same(self._versions, versions(self._backend), worker.address)
        self._work: Work = pickle.loads(self._pickled)
        self._running, self._lock = 0, Lock()
        _require_gpu(self._backend, worker.address)
        self._places = BoundedSemaphore(_places(self._work, worker))
        self._threads = _ThreadCounts()
        self._work.prepare()

    @contextmanager
    def _place(self) -> "Iterator[None]":
        while not self._places.acquire(timeout=_LOOK_EVERY_S):
            self._require_going_on()
        try:
            self._require_going_on()
            with self._lock:
                self._running += 1
            try:
                yield
            finally:
                with self._lock:
                    self._running -= 1
        finally:
            self._places.release()

    def _require_going_on(self) -> None:
        if self._work.stop.is_set():
            raise InterruptedRunError("stopped before a partition, because the run ends.")


class _ThreadCounts:
    """Libraries with threads of their own use one each: Dask's threads are as many as there are cores for them."""

    def __init__(self) -> None:
        self._before = pa.cpu_count(), numcodecs.blosc.use_threads
        pa.set_cpu_count(1)
        numcodecs.blosc.use_threads = False

    def give_back(self) -> None:
        """The worker may serve others."""
        count, numcodecs.blosc.use_threads = self._before
        pa.set_cpu_count(count)


def _places(work: Work, worker: Worker) -> int:
    """Tasks that this worker may run at once."""
    limit = worker.memory_manager.memory_limit
    fitting = work.threads if not limit else (limit - work.process_bytes) // max(1, work.task_bytes)
    if fitting < 1:
        raise MemoryBudgetError(
            f"{worker.address}: this worker may take {limit:,} bytes; expected at least "
            f"{work.process_bytes + work.task_bytes:,}. Give workers more memory, or set memory_limit to what they "
            "have, so that partitions are cut smaller."
        )
    return int(min(fitting, work.threads, worker.state.nthreads))


def _require_same(client: dict[str, str], found: dict[str, str], address: str) -> None:
    """Refuse a worker whose results may differ."""
    different = [f"{name} {found[name]} (here {wanted})" for name, wanted in client.items() if found[name] != wanted]
    if different:
        raise WorkerMismatchError(
            f"{address}: the worker has {', '.join(different)}; expected what is here, or results could differ. "
            "Give all workers the same environment and the same kind of processor."
        )


def _require_gpu(backend: str, address: str) -> None:
    """Refuse a worker without the GPU that the run needs; the process with the plan may have none."""
    trouble = None if backend == "cpu" else trouble_with_gpu()
    if trouble is not None:
        raise WorkerMismatchError(
            f"{address}: backend is {backend}, but on this worker {trouble}; expected a GPU that works. {REMEDY}; or "
            "take backend cpu."
        )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
