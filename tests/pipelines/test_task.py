"""One partition, from a source that counts what is read to a writer that keeps what it is given."""

import pickle
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier, Event, current_thread
from typing import Any
from weakref import ref

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from softmax_dask import COLUMNS, decisions
from softmax_dask_pipelines import task as task_module
from softmax_dask_pipelines.errors import InterruptedRunError, NonFiniteRowsError
from softmax_dask_pipelines.plan import Plan
from softmax_dask_pipelines.receipts import Receipt
from softmax_dask_pipelines.rules import Rule
from softmax_dask_pipelines.sinks import StoredObject
from softmax_dask_pipelines.sources import Carried, SourceBlock, SourceFacts
from softmax_dask_pipelines.task import ScoreTask, look_like_probabilities
from tests.pipelines import dumps

FLOAT32 = np.dtype(np.float32)
NARROW = ("label", "confidence", "margin", "entropy", "logsumexp", "max_logit")
WITH_TARGETS = (*NARROW, "nll", "target_probability", "target_rank", "correct")
EVERYTHING = (*WITH_TARGETS, "probabilities", "log_probabilities")


class CountingSource:
    """An array as a source that yields blocks of `read_rows` rows, and writes down which rows it read."""

    def __init__(self, data: NDArray[Any], *, read_rows: int, targets: NDArray[np.int64] | None = None) -> None:
        self._data, self._targets, self._ids = data, targets, pa.array(dumps.ids(len(data)))
        self.read_ranges: list[range] = []
        self.facts = SourceFacts(
            path="/dumps/counted",
            format="zarr",
            name="logits",
            rows=data.shape[0],
            classes=data.shape[1],
            dtype=data.dtype,
            read_rows=read_rows,
            read_overhead_bytes=0,
            stored_bytes=data.nbytes,
            codec="",
            layout="",
            class_names=None,
            carried=(Carried("id", pa.string(), is_id=True),),
            target_name=None if targets is None else "target",
        )

    def read(self, start: int, stop: int) -> Iterator[SourceBlock]:
        while start < stop:
            end = min(stop, (start // self.facts.read_rows + 1) * self.facts.read_rows)
            self.read_ranges.append(range(start, end))
            targets = None if self._targets is None else self._targets[start:end]
            yield SourceBlock(self._data[start:end], {"id": self._ids[start:end]}, targets)
            start = end


class KeepingWriter:
    """Room for a whole partition, handed out `chunk_rows` rows at a time at most."""

    def __init__(self, columns: tuple[str, ...], rows: int, classes: int, chunk_rows: int) -> None:
        self.columns = {
            name: np.zeros(
                (rows, *COLUMNS[name].tail(classes, 3)),
                FLOAT32 if COLUMNS[name].kind in ("float", "wide") else COLUMNS[name].kind,
            )
            for name in columns
        }
        self.ids: list[str] = []
        self.targets: list[int] = []
        self.closed = self.abandoned = self.drained = False
        self._chunk_rows, self._filled = chunk_rows, 0

    def reserve(self, rows: int) -> dict[str, NDArray[Any]]:
        stop = min(self._filled + rows, (self._filled // self._chunk_rows + 1) * self._chunk_rows)
        return {name: values[self._filled : stop] for name, values in self.columns.items()}

    def advance(self, rows: int, carried: Mapping[str, Any], targets: NDArray[np.int64] | None) -> None:
        self._filled += rows
        self.ids += carried["id"].to_pylist()
        self.targets += [] if targets is None else targets.tolist()

    def abandon(self) -> None:
        self.abandoned = True

    def drain(self) -> None:
        self.drained = True

    def close(self) -> tuple[StoredObject, ...]:
        assert self.drained, "closed with columns that wait"
        self.closed = True
        return StoredObject("a", 30, 0), StoredObject("b", 12, 0)


class KeepingSink:
    def __init__(self, columns: tuple[str, ...], plan: Plan, classes: int) -> None:
        self._columns, self._plan, self._classes = columns, plan, classes
        self.writers: dict[int, KeepingWriter] = {}

    def writer(self, number: int) -> KeepingWriter:
        part = self._plan.partition(number)
        writer = KeepingWriter(self._columns, part.stop - part.start, self._classes, self._plan.chunk_rows)
        self.writers[number] = writer
        return writer

    def column(self, name: str) -> NDArray[Any]:
        return np.concatenate([self.writers[number].columns[name] for number in sorted(self.writers)])


def plan_of(rows: int, *, partition_rows: int, chunk_rows: int) -> Plan:
    return Plan(rows, partition_rows, chunk_rows, 1, 0, 0, 0, 0)


def make_task(
    data: NDArray[Any],
    *,
    columns: tuple[str, ...] = NARROW,
    targets: NDArray[np.int64] | None = None,
    partition_rows: int = 40,
    chunk_rows: int = 10,
    read_rows: int = 16,
    refuse_nonfinite: bool = False,
) -> ScoreTask:
    plan = plan_of(len(data), partition_rows=partition_rows, chunk_rows=chunk_rows)
    return ScoreTask(
        source=CountingSource(data, read_rows=read_rows, targets=targets),
        sink=KeepingSink(columns, plan, data.shape[1]),
        plan=plan,
        rule=Rule(1.5),
        float_dtype=FLOAT32,
        wide_dtype=FLOAT32,
        top_k=3,
        refuse_nonfinite=refuse_nonfinite,
        stop=Event(),
    )


def run_all(task: ScoreTask) -> list[Receipt]:
    return [task(number) for number in range(task.plan.count)]


@pytest.mark.parametrize("columns", [("label",), ("probabilities",), NARROW, EVERYTHING])
def test_every_row_is_read_once_however_many_columns_there_are(columns):
    task = make_task(dumps.logits(), columns=columns, targets=dumps.targets())

    run_all(task)

    assert [row for rows in task.source.read_ranges for row in rows] == list(range(103))


@pytest.mark.parametrize("partition_rows", [10, 30, 110])
@pytest.mark.parametrize("chunk_rows", [1, 5, 10])
@pytest.mark.parametrize("read_rows", [1, 7, 16, 103])
def test_blocks_chunks_and_partitions_change_no_bit(partition_rows, chunk_rows, read_rows):
    data, targets = dumps.logits(), dumps.targets()
    sizes = {"partition_rows": partition_rows, "chunk_rows": chunk_rows, "read_rows": read_rows}
    task = make_task(data, columns=EVERYTHING, targets=targets, **sizes)

    run_all(task)

    expected = decisions(data, EVERYTHING, targets=targets, temperature=1.5)
    assert [task.sink.column(name).tobytes() for name in EVERYTHING] == [expected[n].tobytes() for n in EVERYTHING]


def test_a_block_is_given_back_before_its_last_rows_are_stored(monkeypatch):
    task, kept, lives = make_task(dumps.logits(), read_rows=16, chunk_rows=10), [], []
    read, advance = CountingSource.read, KeepingWriter.advance

    def copied(block):
        logits = block.logits.copy()
        kept[:] = [ref(logits)]
        return replace(block, logits=logits)

    def note(writer, rows, carried, targets):
        lives.append(kept[0]() is not None)
        advance(writer, rows, carried, targets)

    monkeypatch.setattr(CountingSource, "read", lambda *given: map(copied, read(*given)))
    monkeypatch.setattr(KeepingWriter, "advance", note)

    task(0)

    # Reads of 16 rows in chunks of 10: 10 and 6, 4, 10 and 2, ...: the last piece of each read has no block.
    assert lives == [True, False, True, True, False, False]


def test_ids_and_targets_go_with_their_rows():
    task = make_task(dumps.logits(), targets=dumps.targets())

    run_all(task)

    writers = [task.sink.writers[number] for number in range(task.plan.count)]
    assert [text for writer in writers for text in writer.ids] == dumps.ids()
    assert [target for writer in writers for target in writer.targets] == dumps.targets().tolist()


def test_kernels_fill_the_buffers_of_the_writer(monkeypatch):
    filled = []

    def spy(logits, columns, **options):
        filled.append(options["out"])
        return decisions(logits, columns, **options)

    monkeypatch.setattr(task_module, "decisions", spy)
    task = make_task(dumps.logits(), columns=("label", "probabilities"))

    task(0)

    buffers = task.sink.writers[0].columns
    assert all(np.shares_memory(out[name], buffers[name]) for out in filled for name in buffers)


@pytest.mark.parametrize("columns", [("margin",), ("probabilities",), EVERYTHING])
def test_the_figures_do_not_depend_on_the_columns_that_are_written(columns):
    data, targets = dumps.logits(), dumps.targets()
    expected = decisions(data, ("confidence", "entropy"), targets=targets, temperature=1.5)

    receipt = make_task(data, columns=columns, targets=targets, partition_rows=110)(0)

    # Each row is rounded to a multiple of 2^-32.
    assert receipt.tally.confidence_sum == pytest.approx(expected["confidence"].sum(dtype="f8"), abs=103 * 2.0**-33)
    assert receipt.tally.entropy_sum == pytest.approx(expected["entropy"].sum(dtype="f8"), abs=103 * 2.0**-33)
    assert receipt.tally.labelled == np.count_nonzero(targets >= 0)


def test_a_receipt_counts_rows_labels_and_bytes():
    data = dumps.logits()
    labels, counts = np.unique(data.argmax(axis=1), return_counts=True)

    receipt = make_task(data, partition_rows=110)(0)

    assert (receipt.partition, receipt.tally.rows, receipt.bytes_written) == (0, 103, 42)
    assert receipt.tally.labels == dict(zip(labels.tolist(), counts.tolist(), strict=True))


def test_the_last_partition_has_the_rows_that_are_left():
    task = make_task(dumps.logits())

    rows = [receipt.tally.rows for receipt in run_all(task)]

    assert rows == [40, 40, 23]


def test_no_rows_give_an_empty_receipt():
    task = make_task(dumps.logits(rows=0))

    receipt = task(0)

    assert receipt.tally.rows == 0
    assert task.sink.writers[0].closed


def test_a_partition_is_computed_while_the_last_objects_of_another_are_stored(monkeypatch):
    with ThreadPoolExecutor(1) as computing, ThreadPoolExecutor(2) as calling:
        task = replace(make_task(dumps.logits()), threads=computing)
        all_stored = Barrier(2)

        def store(writer):
            all_stored.wait(timeout=20)  # never met, if the only thread that computes stored too
            return ()

        monkeypatch.setattr(KeepingWriter, "close", store)

        receipts = list(calling.map(task, range(2)))

    assert [receipt.partition for receipt in receipts] == [0, 1]


def test_partitions_are_computed_in_the_threads_that_are_given(monkeypatch):
    names = set()

    def spy(logits, columns, **options):
        names.add(current_thread().name)
        return decisions(logits, columns, **options)

    monkeypatch.setattr(task_module, "decisions", spy)

    with ThreadPoolExecutor(1, "computing") as computing, ThreadPoolExecutor(4) as calling:
        task = replace(make_task(dumps.logits(), partition_rows=10), threads=computing)
        list(calling.map(task, range(task.plan.count)))

    assert names == {"computing_0"}


def test_a_task_that_is_told_to_stop_writes_nothing():
    task = make_task(dumps.logits())
    task.stop.set()

    with pytest.raises(InterruptedRunError):
        task(0)

    assert not task.sink.writers[0].closed
    assert task.sink.writers[0].abandoned


def test_a_task_stops_at_the_next_block(monkeypatch):
    task = make_task(dumps.logits(), partition_rows=110)

    def spy(logits, columns, **options):
        task.stop.set()
        return decisions(logits, columns, **options)

    monkeypatch.setattr(task_module, "decisions", spy)

    with pytest.raises(InterruptedRunError):
        task(0)

    assert len(task.source.read_ranges) == 1


@pytest.mark.parametrize("row", [0, 39, 40, 77, 102])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nonfinite_error_names_the_first_such_row(row, value):
    data = dumps.logits()
    data[row:, 2] = value

    with pytest.raises(NonFiniteRowsError, match=rf"^/dumps/counted: row {row} holds NaN"):
        run_all(make_task(data, refuse_nonfinite=True))


def test_nonfinite_rows_are_counted_where_they_are_allowed():
    data = dumps.logits()
    data[[3, 50], 1] = np.nan

    receipts = run_all(make_task(data))

    assert [receipt.tally.undecidable for receipt in receipts] == [1, 1, 0]


def test_a_masked_class_is_no_reason_to_refuse():
    data = dumps.logits()
    data[:, 1] = -np.inf

    receipts = run_all(make_task(data, refuse_nonfinite=True))

    assert sum(receipt.tally.undecidable for receipt in receipts) == 0


def test_read_only_logits_are_scored():
    data = dumps.logits()
    data.flags.writeable = False

    receipts = run_all(make_task(data))

    assert sum(receipt.tally.rows for receipt in receipts) == 103


def test_a_receipt_of_many_classes_is_smaller_than_two_kibibytes():
    data = np.zeros((40, 250_000), np.float32)
    data[np.arange(40), 6000 * np.arange(40)] = 1  # a label of its own for each row
    targets = np.zeros(40, np.int64)

    receipt = make_task(data, targets=targets, read_rows=40, chunk_rows=40)(0)

    assert len(receipt.tally.labels) == 32
    assert len(pickle.dumps(receipt)) < 2048


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_probabilities_are_told_from_logits(dtype):
    logits = np.random.default_rng(0).normal(size=(200, 7))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    assert look_like_probabilities(probs.astype(dtype))
    assert not look_like_probabilities(logits.astype(dtype))


@pytest.mark.parametrize(
    "logits",
    [
        np.zeros((0, 3)),
        np.ones((4, 1)),
        np.full((4, 2), 0.4),
        np.array([[0.5, 0.5], [0.5, np.nan]]),
        np.array([[1, 0], [0, 1]], np.int8),
        np.array([[1.5, -0.5]]),
    ],
)
def test_what_could_be_logits_is_not_taken_for_probabilities(logits):
    assert not look_like_probabilities(logits)
