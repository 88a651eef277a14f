"""What a worker does with one partition: read a block, compute it into the sink's buffers, go on; then a receipt."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_dask import COLUMNS, MetricsCounter, decisions, metric_columns, metrics_to_bytes
from softmax_dask_pipelines import storage
from softmax_dask_pipelines.checksums import crc32c_of
from softmax_dask_pipelines.errors import InterruptedRunError, NonFiniteRowsError
from softmax_dask_pipelines.object_path import AnyPath
from softmax_dask_pipelines.plan import Partition, Plan
from softmax_dask_pipelines.receipts import Receipt
from softmax_dask_pipelines.rules import MADE, Rule
from softmax_dask_pipelines.sinks import OutputSpec, PartitionWriter, Sink, StoredObject
from softmax_dask_pipelines.sinks.background import Background
from softmax_dask_pipelines.sinks.buffers import column_dtype, computed_columns
from softmax_dask_pipelines.sources import Source, SourceBlock
from softmax_dask_pipelines.tally import sums_of_tails, tally_of

_ROWS_LOOKED_AT = 1000
_VALUES_LOOKED_AT = 1 << 17
"""A megabyte, once they are float64: the look takes no memory that a block does not."""


@dataclass(frozen=True, slots=True)
class CountsPlace:
    """Where partitions leave their metrics, a file each, until those of all of them are merged at the commit."""

    folder: AnyPath
    durable: bool
    """Whether what is written must survive a power cut."""

    def put(self, number: int, counted: bytes) -> StoredObject:
        """Write what partition `number` has counted; what was written."""
        path = self.path(number)
        storage.put(path, [counted], durable=self.durable)
        return StoredObject(path.name, len(counted), crc32c_of([counted]))

    def path(self, number: int) -> AnyPath:
        """Its file."""
        return self.folder / f"{number:05d}.bin"


@dataclass(frozen=True, slots=True)
class ScoreTask:
    """All that is needed to score any partition of a run."""

    source: Source
    sink: Sink
    plan: Plan
    rule: Rule
    float_dtype: np.dtype[Any]
    wide_dtype: np.dtype[Any]
    top_k: int
    refuse_nonfinite: bool
    stop: Event
    """Set when the run is to end: partitions that have begun stop at the next block."""
    compute: Callable[..., Any] | None = None
    """Fills columns in place of `decisions`, whose arguments it takes, where these are not computed here."""
    counts: CountsPlace | None = None
    """Where metrics are left; None: nobody wants them."""
    threads: Executor | None = None
    """Where partitions are computed; who calls the task waits, and stores what is left while others are computed.
    None: all in the thread that calls."""

    def __call__(self, number: int) -> Receipt:
        """Score partition `number` and store it. Nothing of it is visible yet."""
        if self.threads is None:
            return self._computed(number).finish()
        return self.threads.submit(self._computed, number).result().finish()

    def _computed(self, number: int) -> "_Scoring":
        scoring = _Scoring(self, self.plan.partition(number))
        scoring.compute()
        return scoring

    def decide(
        self, logits: NDArray[Any], targets: NDArray[np.int64] | None, out: dict[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        """Fill the arrays of `out`; they and, where they are not among them, the columns that the summary counts."""
        tallied = metric_columns(with_targets=targets is not None)
        kinds = {"float": self.float_dtype, "int32": np.dtype(np.int32)}
        missing = [name for name in tallied if name not in out]
        out = out | {name: np.empty(len(logits), kinds[COLUMNS[name].kind]) for name in missing}
        decided = {name: array for name, array in out.items() if name not in MADE}
        moved = self.rule.moved(logits)
        (self.compute or decisions)(
            moved,
            tuple(decided),
            targets=targets,
            temperature=self.rule.temperature,
            top_k=self.top_k,
            dtype=self.wide_dtype,
            out=decided,
        )
        self.rule.make(out, moved)
        return out


def compile_kernels(task: ScoreTask, spec: OutputSpec) -> None:
    """Compile, or load, once: threads that all come first would wait for one another."""
    out = {
        column.name: np.empty((1, *column.tail(spec.classes, spec.top_k, spec.members)), column_dtype(spec, column))
        for column in computed_columns(spec)
    }
    targets = np.zeros(1, np.int64) if spec.has_targets else None
    task.source.compile()
    columns = task.decide(np.zeros((1, spec.classes), task.source.facts.dtype), targets, out)
    MetricsCounter(spec.classes).add(columns, targets)


class _Scoring:
    """The state of one partition while it is scored: its writer, what was counted, where the time went."""

    def __init__(self, task: ScoreTask, partition: Partition) -> None:
        self._task = task
        self._partition = partition
        self._logits: NDArray[Any]
        """Of the block that is scored, until its last rows are stored."""
        self._writer: PartitionWriter = task.sink.writer(partition.number)
        self._counter = MetricsCounter(task.source.facts.classes)
        self._tails: dict[str, float] = {}
        self._row = partition.start
        self._notes: list[str] = []
        self._seconds = {"read": 0.0, "kernel": 0.0, "write": 0.0}

    def compute(self) -> None:
        """All rows; encoded, and not all of them stored."""
        with self._abandoned_on_error():
            self._score_all()
            begin = perf_counter()
            self._writer.drain()
            self._seconds["write"] += perf_counter() - begin
            counted = self._counter.metrics()
            self._tally, self._counted = tally_of(counted, self._tails), metrics_to_bytes(counted)
            del self._counter

    def finish(self) -> Receipt:
        """Store what is left; its objects are whole when this returns."""
        number, place = self._partition.number, self._task.counts
        counting: Background[StoredObject] = Background(1)
        with self._abandoned_on_error():
            if place is not None:
                counting.call(place.put, number, self._counted)
            try:
                objects = self._writer.close()
            finally:
                metrics = counting.finish()
        return Receipt(
            partition=number,
            notes=tuple(self._notes),
            tally=self._tally,
            objects=objects,
            read_s=self._seconds["read"],
            kernel_s=self._seconds["kernel"],
            write_s=self._seconds["write"],
            metrics=metrics[0] if metrics else None,
        )

    @contextmanager
    def _abandoned_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._writer.abandon()
            raise

    def _score_all(self) -> None:
        blocks = self._task.source.read(self._partition.start, self._partition.stop)
        while (block := self._next(blocks)) is not None:
            if self._row == 0:
                self._note_probabilities(block)
            self._logits, carried, targets = block.logits, block.carried, block.targets
            del block  # so that nothing but `_score` keeps its logits
            self._score(carried, targets)

    def _next(self, blocks: Iterator[SourceBlock]) -> SourceBlock | None:
        begin = perf_counter()
        block = next(blocks, None)
        self._seconds["read"] += perf_counter() - begin
        return block

    def _score(self, carried: Mapping[str, Any], targets: NDArray[np.int64] | None) -> None:
        """The rows of a block, beside which these stand."""
        done, rows = 0, len(self._logits)
        while done < rows:
            if self._task.stop.is_set():
                raise InterruptedRunError("stopped between two blocks, because the run ends.")
            out = self._writer.reserve(rows - done)
            piece = slice(done, done + len(next(iter(out.values()))))
            done = piece.stop
            truth = None if targets is None else targets[piece]
            self._compute(piece, truth, out)
            if done == rows:
                del self._logits  # what is encoded, and the next block, take the same memory, which is in the cache
            self._store({name: values[piece] for name, values in carried.items()}, truth, piece.stop - piece.start)

    def _note_probabilities(self, block: SourceBlock) -> None:
        rows = min(_ROWS_LOOKED_AT, max(1, _VALUES_LOOKED_AT // block.logits.shape[1]))
        if look_like_probabilities(block.logits[:rows]):
            facts = self._task.source.facts
            self._notes.append(
                f"{facts.path}: the first rows lie in [0, 1] and sum to 1: are they probabilities already? "
                "They are scored as logits. Write their logarithms to get the same probabilities back."
            )

    def _compute(self, rows: slice, targets: NDArray[np.int64] | None, out: dict[str, NDArray[Any]]) -> None:
        begin = perf_counter()
        out = self._task.decide(self._logits[rows], targets, out)
        self._count(out, targets)
        self._seconds["kernel"] += perf_counter() - begin

    def _count(self, out: dict[str, NDArray[Any]], targets: NDArray[np.int64] | None) -> None:
        if self._task.refuse_nonfinite and (out["label"] < 0).any():
            row = self._row + int((out["label"] < 0).argmax())
            path = self._task.source.facts.path
            raise NonFiniteRowsError(
                f"{path}: row {row} holds NaN, +inf or only -inf; expected none, because nonfinite is error. "
                "Mend the logits, or use nonfinite: propagate."
            )
        self._counter.add(out, targets)
        for name, total in sums_of_tails(out).items():
            self._tails[name] = self._tails.get(name, 0.0) + total

    def _store(self, carried: dict[str, Any], targets: NDArray[np.int64] | None, rows: int) -> None:
        begin = perf_counter()
        self._writer.advance(rows, carried, targets)
        self._row += rows
        self._seconds["write"] += perf_counter() - begin


def look_like_probabilities(logits: NDArray[Any]) -> bool:
    """Whether every row lies in [0, 1] and sums to 1, within the rounding of their dtype."""
    if logits.shape[0] == 0 or logits.shape[1] < 2 or logits.dtype.kind in "iu":
        return False
    rows = logits.astype(np.float64)
    tolerance = 1e-2 if logits.dtype.itemsize == 2 else 1e-4
    with np.errstate(invalid="ignore"):
        inside = bool(((rows >= 0) & (rows <= 1)).all())
    return inside and bool((np.abs(rows.sum(axis=1) - 1) <= tolerance).all())
