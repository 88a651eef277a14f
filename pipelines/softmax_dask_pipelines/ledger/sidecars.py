"""Metrics beside each commit, `OUTPUT.job/metrics-PLAN.bin`: of all rows of the output, without its logits.

A line of JSON, which says what the rows are and how long the two parts behind it are: metrics of all rows, and where
the last partition is not full, of all others, because the next commit writes that one anew. Before there was this
format, they were JSON, `metrics-PLAN.json`; those are read too.

Partitions leave what they have counted in `counts-PLAN/`, a file each. As partitions end these are merged, with what
the commit before has; sums of integers, so that runs that were stopped, or came one after the other, count as one.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from softmax_dask import (
    Metrics,
    MetricsError,
    MetricsSum,
    metrics_document,
    metrics_from_bytes,
    metrics_from_document,
    metrics_to_bytes,
)
from softmax_dask_pipelines import storage
from softmax_dask_pipelines.errors import OutputExistsError, StorageFailedError
from softmax_dask_pipelines.job import Job
from softmax_dask_pipelines.ledger.history import Commit, History, PlanRecord
from softmax_dask_pipelines.ledger.summing import Summing
from softmax_dask_pipelines.metrics_about import about
from softmax_dask_pipelines.object_path import AnyPath, ObjectPath
from softmax_dask_pipelines.receipts import Receipt
from softmax_dask_pipelines.task import CountsPlace

_READ_AT_ONCE = 16
_HEAD = {"program": "softmax-dask", "kind": "metrics sidecar", "format": 2}
"""What the line of JSON begins with."""
_WHOLE = "whole_partitions"
"""In the JSON of before: metrics of all partitions but a last one that is not full."""


class Sidecars:
    """Those of one plan."""

    def __init__(self, history: History, plan: PlanRecord, job: Job) -> None:
        self._history, self._plan, self._job = history, plan, job
        self._summing: Summing | None = None
        """None: there will be no sidecar, for the commit before has none."""
        self.place = CountsPlace(history.path("counts", plan), job.config.durability == "fsync")

    def prepare(self) -> None:
        """Make the folder; what an earlier attempt at the same plan left there stays."""
        storage.make_folder(self.place.folder)
        before = Metrics.none(self._job.facts.classes) if self._plan.is_whole else self._before()
        if before is not None:
            at_a_time = _READ_AT_ONCE if isinstance(self.place.folder, ObjectPath) else 1
            self._summing = Summing(before, self._add, at_a_time=at_a_time)

    def are_there(self, receipt: Receipt) -> bool:
        """Whether what a partition has counted is there; of programs of before it is not."""
        stored = receipt.metrics
        try:
            return stored is not None and self.place.path(receipt.partition).stat().st_size == stored.size_bytes
        except OSError:
            return False

    def add(self, number: int) -> None:
        """A partition is done, and what it has counted is there."""
        if self._summing is not None and number != self._cut:
            self._summing.add(number)

    def seal(self) -> None:
        """All partitions are done: write the metrics of the commit. None, where the commit before has none."""
        if self._summing is None:
            return
        whole = self._summing.finish()
        total = whole if self._cut is None else self._with(whole, self._cut)
        path = self._history.path("metrics", self._plan)
        storage.put(path, _parts(self._told(), total, None if self._cut is None else whole))
        storage.sync_folder(path.parent)

    def abandon(self) -> None:
        """The run ends before all partitions are done."""
        if self._summing is not None:
            self._summing.abandon()

    @property
    def _cut(self) -> int | None:
        """Number of a last partition that is not full, which the next commit writes anew; Parquet begins another."""
        plan = self._job.plan
        is_cut = self._job.spec.format == "zarr" and plan.count * plan.partition_rows != plan.rows
        return plan.count - 1 if is_cut and len(plan.numbers) else None

    def _told(self) -> dict[str, Any]:
        return {
            "about": {**about(self._job), "commit": self._plan.commit},
            "class_names": self._job.facts.class_names,
        }

    def _before(self) -> Metrics | None:
        """Of the partitions that this plan does not write again."""
        latest = self._history.latest
        found = None if latest is None else metrics_of_commit(self._history, latest)
        if found is None:
            return None
        return found.metrics if found.whole is None else found.whole

    def _with(self, total: Metrics, number: int) -> Metrics:
        summed = MetricsSum(total)
        self._add(number, summed.add)
        return summed.metrics()

    def _add(self, number: int, take: Callable[[bytes], None]) -> None:
        path = self.place.path(number)
        with storage.plain_errors(path):
            data = path.read_bytes()
        try:
            take(data)
        except MetricsError as error:
            raise self._damaged(number) from error

    def _damaged(self, number: int) -> StorageFailedError:
        path = self.place.path(number)
        storage.remove(path)  # so that its partition counts as not done
        return StorageFailedError(
            f"{path}: is damaged; expected what partition {number} has counted. It is removed: run the same "
            "command again, which scores that partition again."
        )


@dataclass(frozen=True, slots=True)
class CommitMetrics:
    """What a commit has beside it."""

    metrics: Metrics
    """Of all rows of the output."""
    whole: Metrics | None
    """Of those of full partitions, if the last one is not."""
    about: dict[str, Any]
    class_names: Sequence[str] | None

    def document(self) -> dict[str, Any]:
        """That of `softmax_dask.metrics_document`."""
        return metrics_document(self.metrics, class_names=self.class_names, about=self.about)


def metrics_of_commit(history: History, commit: Commit) -> CommitMetrics | None:
    """What that commit has beside it; None where it has nothing.

    Raises
    ------
    OutputExistsError
        What is there is damaged, or of another version.
    """
    for kind, parse in (("metrics", _of_bytes), ("metrics of before", _of_json)):
        path = history.path(kind, commit.plan)
        if path.exists():
            with storage.plain_errors(path):
                data = path.read_bytes()
            return _parsed(data, parse, path)
    return None


def _parsed(data: bytes, parse: Callable[[bytes], CommitMetrics], path: AnyPath) -> CommitMetrics:
    try:
        return parse(data)
    except (MetricsError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputExistsError(
            f"{path}: holds no metrics that this program reads ({error}). Remove it, and start over with --replace, or "
            "use the version that wrote it."
        ) from error


def _parts(told: Mapping[str, Any], total: Metrics, whole: Metrics | None) -> list[bytes]:
    """The sidecar; each part has a checksum of its own."""
    parts = [metrics_to_bytes(each) for each in (total, whole) if each is not None]
    head = {**_HEAD, **told, "lengths": [len(part) for part in parts]}
    return [json.dumps(head).encode(), b"\n", *parts]


def _of_bytes(data: bytes) -> CommitMetrics:
    head, _, body = data.partition(b"\n")
    told = json.loads(head)
    if {name: told.get(name) for name in _HEAD} != _HEAD:
        raise MetricsError(f"they are of format {told.get('format')}; expected {_HEAD['format']}")
    ends = list(accumulate(told["lengths"]))
    total, *whole = (metrics_from_bytes(body[end - n : end]) for n, end in zip(told["lengths"], ends, strict=True))
    return CommitMetrics(total, whole[0] if whole else None, told["about"], told["class_names"])


def _of_json(data: bytes) -> CommitMetrics:
    document = json.loads(data)
    whole = document.get(_WHOLE)
    return CommitMetrics(
        metrics_from_document(document),
        None if whole is None else metrics_from_document(whole),
        document["about"],
        document["class_names"],
    )
