"""What a worker does with one partition: read a block, compute it into the sink's buffers, go on; then a receipt."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Event
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_dask import COLUMNS, decisions
from softmax_dask_pipelines.errors import InterruptedRunError, NonFiniteRowsError
from softmax_dask_pipelines.plan import Partition, Plan
from softmax_dask_pipelines.sinks import OutputSpec, PartitionWriter, Sink, StoredObject
from softmax_dask_pipelines.sinks.buffers import column_dtype, computed_columns
from softmax_dask_pipelines.sources import Source, SourceBlock
from softmax_dask_pipelines.tally import Tally, tally_of

_ROWS_LOOKED_AT = 1000
_VALUES_LOOKED_AT = 1 << 17
"""A megabyte, once they are float64: the look takes no memory that a block does not."""

_TALLIED = ("label", "confidence", "entropy")
_TALLIED_WITH_TARGETS = (*_TALLIED, "nll", "target_rank")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a partition came to."""

    partition: int
    tally: Tally
    objects: tuple[StoredObject, ...]
    """What was stored."""
    notes: tuple[str, ...]
    """What the user should be told, though the run goes on."""
    read_s: float
    kernel_s: float
    write_s: float

    @property
    def rows(self) -> int:
        """Rows that are done."""
        return self.tally.rows

    @property
    def seconds(self) -> dict[str, float]:
        """Where the time of the thread went."""
        return {"read": self.read_s, "kernel": self.kernel_s, "write": self.write_s}

    @property
    def bytes_written(self) -> int:
        """Size of what was stored."""
        return sum(stored.size_bytes for stored in self.objects)


@dataclass(frozen=True, slots=True)
class ScoreTask:
    """All that is needed to score any partition of a run."""

    source: Source
    sink: Sink
    plan: Plan
    temperature: float
    float_dtype: np.dtype[Any]
    wide_dtype: np.dtype[Any]
    top_k: int
    refuse_nonfinite: bool
    stop: Event
    """Set when the run is to end: partitions that have begun stop at the next block."""
    compute: Callable[..., Any] | None = None
    """Fills columns in place of `decisions`, whose arguments it takes, where these are not computed here."""

    def __call__(self, number: int) -> Receipt:
        """Score partition `number` and store it. Nothing of it is visible yet."""
        return _Scoring(self, self.plan.partition(number)).run()

    def decide(
        self, logits: NDArray[Any], targets: NDArray[np.int64] | None, out: dict[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        """Fill the arrays of `out`; they and, where they are not among them, the columns that the summary counts."""
        tallied = _TALLIED if targets is None else _TALLIED_WITH_TARGETS
        kinds = {"float": self.float_dtype, "int32": np.dtype(np.int32)}
        missing = [name for name in tallied if name not in out]
        out = out | {name: np.empty(len(logits), kinds[COLUMNS[name].kind]) for name in missing}
        (self.compute or decisions)(
            logits,
            tuple(out),
            targets=targets,
            temperature=self.temperature,
            top_k=self.top_k,
            dtype=self.wide_dtype,
            out=out,
        )
        return out


def compile_kernels(task: ScoreTask, spec: OutputSpec) -> None:
    """Compile, or load, once: threads that all come first would wait for one another."""
    out = {
        column.name: np.empty((1, *column.tail(spec.classes, spec.top_k)), column_dtype(spec, column))
        for column in computed_columns(spec)
    }
    targets = np.zeros(1, np.int64) if spec.has_targets else None
    task.decide(np.zeros((1, spec.classes), task.source.facts.dtype), targets, out)


class _Scoring:
    """The state of one partition while it is scored: its writer, what was counted, where the time went."""

    def __init__(self, task: ScoreTask, partition: Partition) -> None:
        self._task = task
        self._partition = partition
        self._writer: PartitionWriter = task.sink.writer(partition.number)
        self._labels = np.empty(partition.stop - partition.start, np.int32)
        self._tallies: list[Tally] = []
        self._row = partition.start
        self._notes: list[str] = []
        self._seconds = {"read": 0.0, "kernel": 0.0, "write": 0.0}

    def run(self) -> Receipt:
        try:
            self._score_all()
            objects = self._closed()
        except BaseException:
            self._writer.abandon()
            raise
        return Receipt(
            partition=self._partition.number,
            notes=tuple(self._notes),
            tally=Tally.merged(self._tallies).with_labels(self._labels, self._task.source.facts.classes),
            objects=objects,
            read_s=self._seconds["read"],
            kernel_s=self._seconds["kernel"],
            write_s=self._seconds["write"],
        )

    def _score_all(self) -> None:
        blocks = self._task.source.read(self._partition.start, self._partition.stop)
        while (block := self._next(blocks)) is not None:
            if self._row == 0:
                self._note_probabilities(block)
            self._score(block)
            del block  # before the next one is read: that takes the same memory, which is in the cache

    def _next(self, blocks: Iterator[SourceBlock]) -> SourceBlock | None:
        begin = perf_counter()
        block = next(blocks, None)
        self._seconds["read"] += perf_counter() - begin
        return block

    def _closed(self) -> tuple[StoredObject, ...]:
        begin = perf_counter()
        objects = self._writer.close()
        self._seconds["write"] += perf_counter() - begin
        return objects

    def _score(self, block: SourceBlock) -> None:
        done, rows = 0, len(block.logits)
        while done < rows:
            if self._task.stop.is_set():
                raise InterruptedRunError("stopped between two blocks, because the run ends.")
            out = self._writer.reserve(rows - done)
            count = len(next(iter(out.values())))
            self._compute(block, slice(done, done + count), out)
            self._store(block, slice(done, done + count))
            done += count

    def _note_probabilities(self, block: SourceBlock) -> None:
        rows = min(_ROWS_LOOKED_AT, max(1, _VALUES_LOOKED_AT // block.logits.shape[1]))
        if look_like_probabilities(block.logits[:rows]):
            facts = self._task.source.facts
            self._notes.append(
                f"{facts.path}: the first rows lie in [0, 1] and sum to 1: are they probabilities already? "
                "They are scored as logits. Write their logarithms to get the same probabilities back."
            )

    def _compute(self, block: SourceBlock, rows: slice, out: dict[str, NDArray[Any]]) -> None:
        begin = perf_counter()
        logits = block.logits[rows]
        targets = None if block.targets is None else block.targets[rows]
        out = self._task.decide(logits, targets, out)
        self._count(out, targets)
        self._seconds["kernel"] += perf_counter() - begin

    def _count(self, out: dict[str, NDArray[Any]], targets: NDArray[np.int64] | None) -> None:
        label = out["label"]
        at = self._row - self._partition.start
        self._labels[at : at + len(label)] = label
        tally = tally_of(out, targets)
        if tally.undecidable and self._task.refuse_nonfinite:
            row = self._row + int((label < 0).argmax())
            path = self._task.source.facts.path
            raise NonFiniteRowsError(
                f"{path}: row {row} holds NaN, +inf or only -inf; expected none, because nonfinite is error. "
                "Mend the logits, or use nonfinite: propagate."
            )
        self._tallies.append(tally)

    def _store(self, block: SourceBlock, rows: slice) -> None:
        begin = perf_counter()
        carried = {name: values[rows] for name, values in block.carried.items()}
        targets = None if block.targets is None else block.targets[rows]
        self._writer.advance(rows.stop - rows.start, carried, targets)
        self._row += rows.stop - rows.start
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
