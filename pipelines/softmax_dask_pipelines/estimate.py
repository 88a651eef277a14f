"""How long a run may take: a second of it is done, into a folder that goes again, and its rate is what the rest gets.

What the output's disk takes is seen with files that never have a name. Nothing is written that anybody could find.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock, local
from time import perf_counter
from typing import Any

from softmax_dask_pipelines.addresses import is_address
from softmax_dask_pipelines.errors import InterruptedRunError, PipelineError
from softmax_dask_pipelines.job import Job
from softmax_dask_pipelines.runner import Stop
from softmax_dask_pipelines.scoring import task_of
from softmax_dask_pipelines.sinks import open_sink
from softmax_dask_pipelines.sinks.background import UNDER_WAY
from softmax_dask_pipelines.sinks.places import Whole
from softmax_dask_pipelines.sources import SourceBlock
from softmax_dask_pipelines.task import ScoreTask, compile_kernels

_TRIAL_S = 1.2
_LONGEST_S = 3.0
"""Where a block takes long."""
_DISK_S = 0.5
_DISK_SWING = 6
"""Times: so much more, or less, than in that moment a disk may take over a whole run. Seen on one that takes 800 MB/s
for some seconds and 130 after them."""
_WORK_SWING = 1.5
"""Times: so much faster than in that moment a machine may compute that others use too."""
_TRIAL_BYTES = 1 << 30
"""Results that a trial may write at most."""
_SURE_BYTES = 10**9
"""Of an output up to here, the system's cache takes the writes; above, the disk may become slower."""
_PIECE = 8 << 20
_FIXED_S = 0.05
"""Plan, lock, journal, commit and manifest, with their syncs: measured on a local disk."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds that a run may take here and now, without loading the kernels."""

    low_s: float
    high_s: float
    """Equal where a single figure is worth saying; the run is within a factor of two of it."""


@dataclass(frozen=True, slots=True)
class _Trial:
    rows: int
    seconds: float
    written_rows: int
    """Also of the first blocks, which are not counted among `rows`."""
    stored_bytes: int
    objects: int


def estimated(job: Job) -> Estimate | str:
    """The estimate, or in words why there is none."""
    if job.config.cluster.kind in ("connect", "class"):
        return "not estimated: it depends on the workers"
    if is_address(job.facts.path) or is_address(job.spec.path):
        return "not estimated: it depends on the object store"
    try:
        trial = _tried(job)
    except PipelineError as error:
        return f"not estimated: {error}"
    if not trial.rows:
        return "not estimated: there are no rows, or none in a second"
    return _estimate(job, trial, job.plan.threads * job.plan.workers)


def _estimate(job: Job, trial: _Trial, threads: int) -> Estimate:
    work_s = job.total_rows * trial.seconds / trial.rows
    stored, size = _of_output(job, trial)
    writers = threads * UNDER_WAY
    sync_s = stored / _disk_rate(job.output, size, stored, writers) if job.config.durability == "fsync" else 0.0
    total_s = work_s + sync_s + _FIXED_S
    if stored <= _SURE_BYTES:
        return Estimate(total_s, total_s)
    # A disk that looks slower than what computes may have other work, or be at its end: that is what it sustains.
    tired_s = sync_s * _DISK_SWING if sync_s < work_s else sync_s
    return Estimate(max(work_s, sync_s / _DISK_SWING) / _WORK_SWING, max(2 * total_s, work_s + tired_s))


def _of_output(job: Job, trial: _Trial) -> tuple[int, int]:
    """Bytes that will be stored, and those of an object; as if nothing were compressed where no object was whole."""
    plan = job.plan
    if not trial.objects:
        return plan.bytes_out, max(1, plan.bytes_out // (len(plan.numbers) * max(1, len(job.spec.columns))))
    stored = trial.stored_bytes * job.total_rows // trial.written_rows
    return min(stored, 2 * plan.bytes_out), max(1, trial.stored_bytes // trial.objects)


def _tried(job: Job) -> _Trial:
    """Score for a moment, with the threads of the run."""
    counted = _Counted(job.source)
    with tempfile.TemporaryDirectory(prefix="softmax-dask-plan-") as folder:
        stage = Path(folder, "stage")
        place = Whole(Path(folder, "out"), stage, Path(folder, "scratch"), durable=False)
        sink = open_sink(replace(job.spec, path=str(place.output)), place)
        sink.prepare()
        task = task_of(replace(job, source=counted), sink, Stop())
        compile_kernels(task, job.spec)
        threads = job.plan.threads * job.plan.workers
        count = len(job.plan.numbers)
        is_whole = _until_stopped(task, counted, _numbers(job), threads) == count
        begin = perf_counter()
        if is_whole:  # so short that its beginning is most of it: again, now that all is warm
            is_whole = _until_stopped(task, counted, _numbers(job), threads) == count
        seconds = perf_counter() - begin
        sizes = [path.stat().st_size for path in stage.rglob("*") if path.is_file()]
    if is_whole:
        return _Trial(job.total_rows, seconds, job.total_rows, sum(sizes), len(sizes))
    return _Trial(counted.rows, counted.thread_s / threads, counted.written_rows, sum(sizes), len(sizes))


def _numbers(job: Job) -> range:
    plan = job.plan
    each = max(1, plan.bytes_out // len(plan.numbers))
    return plan.numbers[: max(1, _TRIAL_BYTES // each)]


def _until_stopped(task: ScoreTask, counted: "_Counted", numbers: range, threads: int) -> int:
    """How many of them were done: all, or as many as there was time for."""

    def attempt(number: int) -> bool:
        try:
            task(number)
        except InterruptedRunError:
            return False
        return True

    task.stop.clear()
    begin = perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        done = [pool.submit(attempt, number) for number in numbers[: 64 * threads]]
        while wait(done, timeout=0.02).not_done:
            elapsed_s = perf_counter() - begin
            if elapsed_s > _TRIAL_S and (counted.rows or elapsed_s > _LONGEST_S):
                task.stop.set()
        return sum(each.result() for each in done)


class _Counted:
    """A source that counts rows which were taken, computed and stored: those of a block when the next is asked for."""

    def __init__(self, source: Any) -> None:
        self._source, self._lock = source, Lock()
        self.facts = source.facts
        self.rows = self.written_rows = 0
        self.thread_s = 0.0
        """What they took, all threads together; a block that was begun and not ended is no part of it, nor the first
        of each thread, which may have to import and to allocate."""
        self._of_thread = local()

    def read(self, start: int, stop: int) -> Iterator[SourceBlock]:
        """As the source."""
        begin = perf_counter()
        for block in self._source.read(start, stop):
            yield block
            end = perf_counter()
            with self._lock:
                self.written_rows += len(block.logits)
                if hasattr(self._of_thread, "is_warm"):
                    self.rows += len(block.logits)
                    self.thread_s += end - begin
            self._of_thread.is_warm = True
            begin = end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


def _disk_rate(output: Any, size: int, stored: int, threads: int) -> float:
    """Bytes a second that the disk takes durably, in files of `size`; infinite where it cannot be tried."""
    folder = next(path for path in Path(output).absolute().parents if path.is_dir())
    most = max(1, stored // size // threads)
    piece = os.urandom(min(size, _PIECE))  # before the clock runs: it takes as long as to write it
    begin = perf_counter()
    try:
        with ThreadPoolExecutor(threads) as pool:
            written = sum(
                pool.map(lambda _: _written(folder, size, piece, most, lambda: perf_counter() - begin), range(threads))
            )
    except (OSError, AttributeError):  # no files without a name here, no room, or not ours to write to
        return float("inf")
    return written / (perf_counter() - begin)


def _written(folder: Path, size: int, piece: bytes, most: int, elapsed: Callable[[], float]) -> int:
    """Bytes of one file after another, synced, until time is over."""
    count = 0
    while count < most and (not count or elapsed() < _DISK_S):
        descriptor = os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600)
        try:
            for start in range(0, size, len(piece)):
                os.write(descriptor, piece[: size - start])
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        count += 1
    return count * size
