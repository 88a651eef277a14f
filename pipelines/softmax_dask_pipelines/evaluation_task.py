"""What a worker does with one partition of an evaluation: read a block, decide it, count it."""

from dataclasses import dataclass
from threading import Event, Lock
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_dask import COLUMNS, Metrics, MetricsCounter, decisions, float_dtype, metric_columns
from softmax_dask_pipelines.errors import InterruptedRunError
from softmax_dask_pipelines.plan import Plan
from softmax_dask_pipelines.sources import Source, SourceBlock


@dataclass(frozen=True, slots=True)
class EvaluationReceipt:
    """What a partition came to, but for its metrics."""

    rows: int
    read_s: float
    kernel_s: float


class Total:
    """Metrics of what is done, merged by the threads themselves: receipts that held them would pile up."""

    def __init__(self, classes: int) -> None:
        self.metrics = Metrics.none(classes)
        self._lock = Lock()

    def add(self, part: Metrics) -> None:
        """Merge a partition; the order does not matter."""
        with self._lock:
            self.metrics = Metrics.merged([self.metrics, part])


@dataclass(frozen=True, slots=True)
class EvaluationTask:
    """All that is needed to evaluate any partition."""

    source: Source
    plan: Plan
    temperature: float
    total: Total
    stop: Event
    """Set when the run is to end: partitions that have begun stop at the next chunk."""

    def __call__(self, number: int) -> EvaluationReceipt:
        """Evaluate partition `number`."""
        partition = self.plan.partition(number)
        counter = MetricsCounter(self.source.facts.classes)
        read_s, kernel_s, begin = 0.0, 0.0, perf_counter()
        for block in self.source.read(partition.start, partition.stop):
            read_s += perf_counter() - begin
            begin = perf_counter()
            self._count(block, counter)
            kernel_s += perf_counter() - begin
            begin = perf_counter()
        self.total.add(counter.metrics())
        return EvaluationReceipt(partition.stop - partition.start, read_s, kernel_s + perf_counter() - begin)

    def compile(self) -> None:
        """Compile, or load, once: threads that all come first would wait for one another."""
        facts = self.source.facts
        self.source.compile()
        targets = None if facts.target_name is None else np.zeros(1, np.int64)
        self._count(SourceBlock(np.zeros((1, facts.classes), facts.dtype), {}, targets), MetricsCounter(facts.classes))

    def _count(self, block: SourceBlock, counter: MetricsCounter) -> None:
        step = self.plan.chunk_rows
        columns = self._columns(min(step, len(block.logits)), block.targets is not None)
        for start in range(0, len(block.logits), step):
            if self.stop.is_set():
                raise InterruptedRunError("stopped between two chunks, because the run ends.")
            logits = block.logits[start : start + step]
            targets = None if block.targets is None else block.targets[start : start + step]
            out = {name: values[: len(logits)] for name, values in columns.items()}
            decisions(logits, tuple(out), targets=targets, temperature=self.temperature, out=out)
            counter.add(out, targets)

    def _columns(self, rows: int, with_targets: bool) -> dict[str, NDArray[Any]]:
        floats = float_dtype(self.source.facts.dtype)
        names = metric_columns(with_targets=with_targets)
        return {name: np.empty(rows, floats if COLUMNS[name].kind == "float" else np.int32) for name in names}
