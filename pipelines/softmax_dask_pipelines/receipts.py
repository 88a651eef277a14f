"""What a partition came to, and the same as bytes: less than a kilobyte of it crosses from a worker to the client.

Pickled as it is, a receipt of forty objects takes nearly three: names of fields, and counts of nine bytes each.
"""

import pickle
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_dask import COLUMNS
from softmax_dask_pipelines.sinks import StoredObject
from softmax_dask_pipelines.tally import Tally

_SUMS = tuple(field.name for field in fields(Tally) if field.type in (int, float))
"""Of a tally, what is one number."""
_OF_OBJECT = tuple(field.name for field in fields(StoredObject))
_RAW = -15
_USUAL = " ".join(f"{name}/c/" for name in COLUMNS).encode()
"""What keys of objects most often hold: need not be sent, for both ends have the same version."""


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
    metrics: StoredObject | None = None
    """What was counted, where metrics are kept: a file of its own."""

    def __reduce__(self) -> tuple[Callable[[bytes], "Receipt"], tuple[bytes]]:
        """Small: see `packed`."""
        return unpacked, (packed(self),)

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


def packed(receipt: Receipt) -> bytes:
    """The receipt as bytes; of its seconds, microseconds."""
    tally = receipt.tally
    parts = (
        receipt.partition,
        [getattr(tally, name) for name in _SUMS],
        tally.labels_are_all,
        _small(tally.labels),
        # Of up to 256 classes the groups say it already.
        None if _are_groups(tally) else _small(tally.labels.values()),
        _small(tally.label_groups),
        _small(sorted(tally.lower_bounds)),
        # Those of one column are much alike: together they take a few bytes each.
        " ".join(stored.key for stored in receipt.objects),
        _small(stored.size_bytes for stored in receipt.objects),
        _small(stored.crc32c for stored in receipt.objects),
        None if receipt.metrics is None else tuple(getattr(receipt.metrics, name) for name in _OF_OBJECT),
        receipt.notes,
        _small(round(1e6 * seconds) for seconds in (receipt.read_s, receipt.kernel_s, receipt.write_s)),
    )
    squeeze = zlib.compressobj(9, wbits=_RAW, zdict=_USUAL)
    return squeeze.compress(pickle.dumps(parts, pickle.HIGHEST_PROTOCOL)) + squeeze.flush()


def unpacked(data: bytes) -> Receipt:
    """The receipt of these bytes."""
    parts = pickle.loads(zlib.decompressobj(_RAW, zdict=_USUAL).decompress(data))
    number, sums, are_all, names, counts, groups, low, keys, sizes, checksums, metrics, notes, microseconds = parts
    labels, label_groups = _numbers(names), _numbers(groups)
    found = [label_groups[label] for label in labels] if counts is None else _numbers(counts)
    tally = Tally(
        **dict(zip(_SUMS, sums, strict=True)),
        labels=dict(zip(labels, found, strict=True)),
        labels_are_all=are_all,
        lower_bounds=frozenset(_numbers(low)),
        label_groups=tuple(label_groups),
    )
    stored = zip(keys.split(" ") if keys else (), _numbers(sizes), _numbers(checksums), strict=True)
    read_s, kernel_s, write_s = (1e-6 * count for count in _numbers(microseconds))
    counted = None if metrics is None else StoredObject(*metrics)
    objects = tuple(StoredObject(*each) for each in stored)
    return Receipt(number, tally, objects, notes, read_s, kernel_s, write_s, counted)


def _are_groups(tally: Tally) -> bool:
    groups = tally.label_groups
    return all(label < len(groups) and groups[label] == count for label, count in tally.labels.items())


def _small(numbers: Iterable[int]) -> tuple[int, int, bytes]:
    """Their least, how many, and the bytes of what each has beyond that: the lowest of all first, then the next."""
    values = np.fromiter(numbers, np.int64)
    least = int(values.min()) if len(values) else 0
    planes: NDArray[np.uint8] = (values - least).astype("<u8").view(np.uint8).reshape(-1, 8).T
    used = max((i + 1 for i in range(8) if planes[i].any()), default=0)
    return least, len(values), planes[:used].tobytes()


def _numbers(small: tuple[int, int, bytes]) -> list[Any]:
    """The numbers of `_small`, as Python's own: JSON takes no others."""
    least, count, data = small
    planes = np.zeros((8, count), np.uint8)
    if data:
        found = np.frombuffer(data, np.uint8).reshape(-1, count)
        planes[: len(found)] = found
    values: NDArray[np.int64] = np.ascontiguousarray(planes.T).view("<u8").reshape(-1).astype(np.int64) + least
    plain: list[Any] = values.tolist()
    return plain
