"""Which partitions of a plan are done: a line each, `crc32 {json}`, added by the one process that runs the plan.

A line counts when its checksum is right and every object that it names is there with its size: then all of its
bytes are on the disk, for an object gets its name only after that.
"""

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import fields
from time import monotonic
from typing import Any

from softmax_dask_pipelines import storage
from softmax_dask_pipelines.ledger.records import parse_record, record
from softmax_dask_pipelines.marks import Marks
from softmax_dask_pipelines.object_path import AnyPath
from softmax_dask_pipelines.receipts import Receipt
from softmax_dask_pipelines.sinks import StoredObject
from softmax_dask_pipelines.tally import Tally

SYNC_EVERY_S = 1.0
"""So much work a power cut may cost, beside the partitions in flight."""

_TALLY = tuple(field.name for field in fields(Tally))
IsCounted = Callable[[Receipt], bool]
"""Whether what a partition has counted is there."""

Find = Callable[[int, str], AnyPath]
"""From a partition's number and an object's key to where the object is."""


class Journal:
    """The open journal of one plan."""

    def __init__(self, path: AnyPath, plan: str, *, durable: bool) -> None:
        has_head = _has_head(path)
        self._log, self._durable = storage.open_log(path), durable
        self._synced, self._is_synced = monotonic(), True
        # A line that a crash has cut short must not run into the next one.
        self._append(b"\n" if has_head else b"\n" + _line(record("journal", {"plan": plan})))

    def add(self, receipt: Receipt) -> None:
        """Note that a partition is done."""
        self._append(_line(json.dumps(_json_of(receipt)).encode()))
        if monotonic() - self._synced >= SYNC_EVERY_S:
            self.sync()

    def sync(self) -> None:
        """Make what was noted durable."""
        if self._durable and not self._is_synced:
            self._log.sync()
        self._synced, self._is_synced = monotonic(), True

    def close(self) -> None:
        """No more is noted."""
        self._log.close()

    def _append(self, line: bytes) -> None:
        self._log.append(line)
        self._is_synced = False


def read_journal(path: AnyPath) -> Iterator[Receipt]:
    """What was noted, the lines with a wrong checksum left out; nothing where there is no journal."""
    for line in storage.lines(path):
        body = _body(line)
        if body is None:
            continue
        found = json.loads(body)
        if "kind" in found:
            parse_record(body, "journal", path)
        else:
            yield _receipt(found)


def finished(path: AnyPath, find: Find, is_counted: IsCounted) -> Iterator[Receipt]:
    """The partitions that are done, each once."""
    seen = Marks()
    for receipt in read_journal(path):
        if receipt.partition in seen or not is_counted(receipt):
            continue
        if all(_is_there(find, receipt.partition, each) for each in receipt.objects):
            seen.add(receipt.partition)
            yield receipt


def _is_there(find: Find, number: int, stored: StoredObject) -> bool:
    try:
        return find(number, stored.key).stat().st_size == stored.size_bytes
    except OSError:
        return False


def _has_head(path: AnyPath) -> bool:
    """Whether some line says what this file is; a crash may have cut it short."""
    return any(_body(line) is not None for line in storage.lines(path))


def _line(body: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _body(line: bytes) -> bytes | None:
    """What a line says, if it is whole."""
    body = line[9:].rstrip(b"\n")
    return body if body and line[:9] == b"%08x " % zlib.crc32(body) else None


def _json_of(receipt: Receipt) -> dict[str, Any]:
    # Not `asdict`, which copies every label: it takes as long as all the rest of a line.
    tally = {name: getattr(receipt.tally, name) for name in _TALLY} | {
        "lower_bounds": sorted(receipt.tally.lower_bounds)
    }
    return {
        "partition": receipt.partition,
        "objects": [_json_of_object(stored) for stored in receipt.objects],
        "metrics": None if receipt.metrics is None else _json_of_object(receipt.metrics),
        "tally": tally,
        "seconds": [receipt.read_s, receipt.kernel_s, receipt.write_s],
    }


def _json_of_object(stored: StoredObject) -> list[Any]:
    return [stored.key, stored.size_bytes, stored.crc32c]


def _receipt(line: dict[str, Any]) -> Receipt:
    read_s, kernel_s, write_s = line["seconds"]
    metrics = line.get("metrics")  # journals of before have none
    return Receipt(
        partition=line["partition"],
        objects=tuple(StoredObject(*stored) for stored in line["objects"]),
        tally=tally_of_json(line["tally"]),
        notes=(),
        read_s=read_s,
        kernel_s=kernel_s,
        write_s=write_s,
        metrics=None if metrics is None else StoredObject(*metrics),
    )


def tally_of_json(found: dict[str, Any]) -> Tally:
    """From JSON, whose keys are texts."""
    labels = {int(label): count for label, count in found["labels"].items()}
    groups, low = tuple(found["label_groups"]), frozenset(found["lower_bounds"])
    return Tally(**(found | {"labels": labels, "label_groups": groups, "lower_bounds": low}))
