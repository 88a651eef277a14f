"""From the first write of a plan to its publication: whole or not at all, kept for the next run, recorded.

plan document -> partitions, a journal line each -> seal -> commit document, which decides -> publish -> clear
"""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from threading import current_thread, main_thread
from types import TracebackType
from typing import Any, Protocol

from softmax_dask_pipelines import storage
from softmax_dask_pipelines.errors import ExpectationError, InterruptedRunError, LockedError, PipelineError
from softmax_dask_pipelines.ledger.history import (
    Commit,
    History,
    PlanRecord,
    commit_numbers,
    commit_path,
    fields_of,
    leftovers,
    path_of_plan,
    put_commit,
    read_commit,
    stale_plans,
)
from softmax_dask_pipelines.ledger.journal import Journal, finished
from softmax_dask_pipelines.ledger.manifest import RunRecord
from softmax_dask_pipelines.ledger.records import record
from softmax_dask_pipelines.ledger.sidecars import Sidecars
from softmax_dask_pipelines.object_path import AnyPath
from softmax_dask_pipelines.receipts import Receipt
from softmax_dask_pipelines.sinks import Sink, StoredObject
from softmax_dask_pipelines.sinks.places import Place, require_absent

_KEPT = ("metrics", "metrics of before", "journal")
"""Of a plan, beside its commit."""


class Result(Protocol):
    """What a run came to."""

    def record(self) -> dict[str, Any]:
        """Its figures, for the commit and the manifest: JSON types only."""


def recovered(output: AnyPath) -> History:
    """What is known of an output, once all that is committed is visible, and all that nobody needs is gone."""
    history = History.of(output)
    if history.latest is not None:
        if history.path("plan", history.latest.plan).exists():
            _publish(history, history.latest)
        else:  # a worker or a run that was thought dead may have woken up, and written there
            history.place(history.latest.plan).clear()
    for plan in stale_plans(history):
        _drop(history, plan)
    for path in leftovers(history.folder):
        storage.remove(path)
    return History.of(output)


class Building:
    """One plan while it is carried out. Ended by an error, it keeps the partitions that are done, if there are any."""

    def __init__(
        self,
        history: History,
        plan: PlanRecord,
        sink: Sink,
        place: Place,
        run: RunRecord,
        sidecars: Sidecars | None = None,
    ) -> None:
        self._history, self._plan, self._sink, self._place, self._run = history, plan, sink, place, run
        self._sidecars = sidecars
        self._partitions, self._done = 0, 0
        self._documents: tuple[StoredObject, ...] = ()
        self._journal: Journal | None = None

    def __enter__(self) -> "Building":
        """Write down the plan, if that is not done, and make its place."""
        open_plan, path = self._history.open, self._history.path("plan", self._plan)
        try:
            if open_plan is not None and open_plan.id != self._plan.id:
                _drop(self._history, open_plan)
            if self._plan != open_plan:
                storage.put(path, [record("plan", fields_of(self._plan))])
                storage.sync_folder(path.parent)
            self._sink.prepare()
            if self._sidecars is not None:
                self._sidecars.prepare()
            self._journal = Journal(self._journal_path, self._plan.id, durable=self._place.durable)
        except BaseException as error:
            self._end(error)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Keep what is done, or leave nothing."""
        if error is not None:
            self._end(error)

    def finished(self, partitions: int) -> Iterator[Receipt]:
        """Those of so many partitions that an earlier run has done."""
        self._partitions = partitions
        is_counted = self._sidecars.are_there if self._sidecars is not None else lambda receipt: True
        for receipt in finished(self._journal_path, self._sink.find, is_counted):
            self._count(receipt)
            yield receipt

    def note(self, receipt: Receipt) -> None:
        """Write down that a partition is done."""
        assert self._journal is not None, "a partition before the plan was begun"
        # Counted first: a signal between the two lines must not drop what the journal has.
        self._count(receipt)
        self._journal.add(receipt)

    def _count(self, receipt: Receipt) -> None:
        self._done += 1
        if self._sidecars is not None:
            self._sidecars.add(receipt.partition)

    def seal(self) -> None:
        """All partitions are done: make them durable."""
        assert self._done == self._partitions, f"{self._done} of {self._partitions} are done"
        self._close()
        # Side by side: both make little and wait for the disk.
        with ThreadPoolExecutor(1) as other:
            sealing = other.submit(self._sink.seal)
            if self._sidecars is not None:
                self._sidecars.seal()
            self._documents = sealing.result()

    def publish(self, result: Result) -> None:
        """Commit, and make visible; the figures go into the records.

        Raises
        ------
        LockedError
            Another run was faster.
        OutputExistsError
            Something else is at the output's path now.
        """
        if self._plan.is_whole and not self._plan.replaces:
            require_absent(self._history.output)
        with _uninterrupted():
            commit = Commit(
                plan=self._plan,
                made=self._place.made(),
                config=self._run.told.config,
                documents=self._documents,
                result=result.record(),
                at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
            if not put_commit(self._history.folder, commit):
                raise LockedError(
                    f"{self._history.output}: another run has written it meanwhile; expected one at a time. "
                    "Run the same command again to see whether anything is left to do."
                )
            _publish(self._history, commit)
            self._run.published(result.record())

    @property
    def _journal_path(self) -> AnyPath:
        return self._history.path("journal", self._plan)

    def _close(self) -> None:
        if self._journal is not None:
            journal, self._journal = self._journal, None
            try:
                journal.sync()
            finally:
                journal.close()

    def _end(self, error: BaseException) -> None:
        if self._sidecars is not None:
            self._sidecars.abandon()
        with suppress(PipelineError):  # of a full disk, say: what is not durable will be done again
            self._close()
        if isinstance(error, ExpectationError):
            with suppress(PipelineError):
                storage.put(self._history.path("refused", self._plan), [record("refused", {"why": str(error)})])
        if not self._done and not commit_path(self._history.folder, self._plan.commit).exists():
            with suppress(PipelineError):
                _drop(self._history, self._plan)
        if isinstance(error, KeyboardInterrupt):
            interrupted = InterruptedRunError(f"interrupted; {self._kept()}")
            self._run.failed(interrupted)
            raise interrupted from error
        if isinstance(error, Exception):
            self._run.failed(error)

    def _kept(self) -> str:
        if not self._done:
            return "no output was published. Run the same command again."
        return f"{self._done:,} of {self._partitions:,} partitions are done. Run the same command again to go on."


def _publish(history: History, commit: Commit) -> None:
    """Make visible what is committed, and remove what was needed for that; again changes nothing."""
    place = history.place(commit.plan)
    place.publish(commit.made)
    place.clear()
    storage.remove(history.path("counts", commit.plan))
    if commit.plan.is_whole:
        _forget_before(history.folder, commit.plan.first)
    _forget_plan(history, commit.plan)


def _forget_before(folder: AnyPath, number: int) -> None:
    """Remove the commits of an output that was replaced."""
    for old in commit_numbers(folder):
        if old < number:
            plan = read_commit(folder, old).plan
            for kind in _KEPT:
                storage.remove(path_of_plan(folder, kind, plan))
            storage.remove(commit_path(folder, old))


def _drop(history: History, plan: PlanRecord) -> None:
    """Remove all that was written for a plan that nobody goes on with; its document last, which tells whose it is."""
    history.place(plan).clear()
    for kind in ("counts", *_KEPT):
        storage.remove(history.path(kind, plan))
    _forget_plan(history, plan)


def _forget_plan(history: History, plan: PlanRecord) -> None:
    storage.remove(history.path("refused", plan))
    storage.remove(history.path("plan", plan))


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore SIGINT, SIGTERM and SIGHUP: too late to stop, and a few milliseconds from done."""
    if current_thread() is not main_thread():
        yield
        return
    stops = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(stop, signal.SIG_IGN) for stop in stops]
    try:
        yield
    finally:
        for stop, handler in zip(stops, before, strict=True):
            signal.signal(stop, handler)
