"""Metrics as bytes, quick to write and to read: what a program keeps for itself. For others there is `metrics_json`.

A line that names the format, a line of JSON (numbers, and which arrays follow), the arrays one after the other, and a
checksum of all that.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_dask.confusions import DEPTH, WIDTH, Confusions
from softmax_dask.errors import MetricsError
from softmax_dask.metrics import Metrics

_HEAD = b"softmax-dask metrics 2\n"
"""Its number is raised with any change; .npz files, of which there was no number, were the first."""

_PLACE = np.dtype("<u4")
_LEAST = np.dtype("u1")
_NOTHING: NDArray[np.uint8] = np.empty(0, _LEAST)

_MERGED_AT_ONCE = 16
"""Confusions of so many parts: a merge sorts them all."""


def metrics_to_bytes(metrics: Metrics) -> bytes:
    """All of it; of an array that is mostly zero only the other items, each number in as few bytes as the largest."""
    arrays: dict[str, Any] = {name: getattr(metrics, name) for name in _ARRAYS}
    confusions = metrics.confusions
    if confusions.sketch is None:
        arrays |= {"pairs": confusions.pairs, "pair_rows": confusions.rows}
    else:
        arrays["sketch"] = confusions.sketch.reshape(-1)
    numbers = {name: getattr(metrics, name) for name in _NUMBERS}
    kinds, bodies = zip(*map(_packed, arrays.values()), strict=True)
    head = json.dumps({"numbers": numbers, "arrays": dict(zip(arrays, kinds, strict=True))}).encode()
    data = b"".join([_HEAD, head, b"\n", *(part for body in bodies for part in body)])
    return data + _checksum(data)


def metrics_from_bytes(data: bytes) -> Metrics:
    """What `metrics_to_bytes` was given.

    Raises
    ------
    MetricsError
        The bytes are not all those that it gave, or those of another version.
    """
    found, kept = _read(data)
    arrays: dict[str, Any] = {name: items.whole() for name, items in kept.items()}
    return Metrics(**found, **{name: arrays[name] for name in _ARRAYS}, confusions=_confusions(arrays))


class MetricsSum:
    """Metrics that were kept as bytes, added up.

    Of an array that is mostly zero only the other items are touched: of a part that is small, a hundredth of what
    `Metrics.merged` moves.
    """

    def __init__(self, total: Metrics) -> None:
        """`total` is what they are added to; it stays as it is."""
        self._classes = total.classes
        self._numbers: dict[str, Any] = {name: getattr(total, name) for name in _NUMBERS}
        self._arrays: dict[str, Any] = {name: getattr(total, name) for name in _ARRAYS}
        self._own: set[str] = set()
        """Names of the arrays that are not those of some `Metrics`, which must not change."""
        self._confusions = [total.confusions]

    def add(self, data: bytes) -> None:
        """Add what `metrics_to_bytes` was given.

        Raises
        ------
        MetricsError
            As `metrics_from_bytes`, or they are of another number of classes; nothing is added.
        """
        found, kept = _read(data)
        if found["classes"] != self._classes:
            raise MetricsError(f"metrics are of {found['classes']} classes; expected {self._classes}.")
        for name in _NUMBERS:
            if name != "classes":
                self._numbers[name] = _added(self._numbers[name], found[name])
        for name in _ARRAYS:
            if len(kept[name].values):
                kept[name].add_to(self._array_of_its_own(name))
        self._confusions.append(_confusions({name: kept[name].whole() for name in kept.keys() - set(_ARRAYS)}))
        if len(self._confusions) >= _MERGED_AT_ONCE:
            self._confusions = [Confusions.merged(self._confusions)]

    def metrics(self) -> Metrics:
        """Of all that was added so far."""
        self._own.clear()
        return Metrics(**self._numbers, **self._arrays, confusions=Confusions.merged(self._confusions))

    def _array_of_its_own(self, name: str) -> NDArray[np.int64]:
        """One that may be added to: of a dump without targets most arrays stay as they are, and take no memory."""
        if name not in self._own:
            self._arrays[name] = self._arrays[name].copy()
            self._own.add(name)
        array: NDArray[np.int64] = self._arrays[name]
        return array


def _read(data: bytes) -> tuple[dict[str, Any], dict[str, "_Kept"]]:
    """The numbers by name, and the arrays."""
    body = memoryview(data)[:-_CHECKSUM_BYTES]
    if not data.startswith(_HEAD) or _checksum(body) != data[-_CHECKSUM_BYTES:]:
        raise MetricsError(
            f"{len(data):,} bytes are no metrics of this version, or damaged; expected what metrics_to_bytes gave."
        )
    end = data.index(b"\n", len(_HEAD)) + 1
    told = json.loads(data[len(_HEAD) : end])
    found: dict[str, Any] = told["numbers"]
    found["bin_confidence"] = tuple(found["bin_confidence"])
    kept: dict[str, _Kept] = {}
    for name, kind in told["arrays"].items():
        kept[name], end = _unpacked(body, end, kind)
    return found, kept


def _confusions(arrays: Mapping[str, NDArray[np.int64]]) -> Confusions:
    if "sketch" in arrays:
        return Confusions(sketch=arrays["sketch"].reshape(DEPTH, WIDTH))
    return Confusions(arrays["pairs"], arrays["pair_rows"])


def _added(one: Any, other: Any) -> Any:
    """Of two numbers, or of as many of both."""
    return tuple(map(add, one, other)) if isinstance(one, tuple) else one + other


def _checksum(data: Any) -> bytes:
    return zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "big")


_CHECKSUM_BYTES = 4
_FIELDS = {field.name: field.type for field in fields(Metrics) if field.name != "confusions"}
_NUMBERS = tuple(name for name, kind in _FIELDS.items() if kind in (int, tuple[int, ...]))
_ARRAYS = tuple(name for name in _FIELDS if name not in _NUMBERS)


def _packed(values: NDArray[np.int64]) -> tuple[list[Any], list[bytes]]:
    """Dtype, length, and how many items are kept: all, or after their places those that are not zero; and the bytes."""
    if values.strides == (0,) and not values[:1].any():  # one zero stands for all
        return [_LEAST.str, len(values), 0], []
    (places,) = (values != 0).nonzero()  # of flags: four times as fast as of the numbers
    if not len(places):
        return [_LEAST.str, len(values), 0], []
    kept = values[places]
    dtype = _narrow(kept)
    if len(places) * (_PLACE.itemsize + dtype.itemsize) >= len(values) * dtype.itemsize:
        return [dtype.str, len(values), len(values)], [values.astype(dtype).tobytes()]
    return [dtype.str, len(values), len(kept)], [places.astype(_PLACE).tobytes(), kept.astype(dtype).tobytes()]


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is kept of an array."""

    values: NDArray[Any]
    places: NDArray[Any] | None
    """Where they are, each once; None: they are all that there is."""
    length: int
    """Of the array."""

    def whole(self) -> NDArray[np.int64]:
        """The array."""
        if self.places is None:
            return self.values.astype(np.int64)
        array = np.zeros(self.length, np.int64)
        array[self.places] = self.values
        return array

    def add_to(self, array: NDArray[np.int64]) -> None:
        """Add the array to one of its length."""
        if self.places is None:
            array += self.values
        else:
            array[self.places] += self.values


def _unpacked(body: memoryview, start: int, kind: list[Any]) -> tuple[_Kept, int]:
    """What is kept, and where the next one begins."""
    dtype, length, count = kind
    if not count:
        return _Kept(_NOTHING, _NOTHING, length), start
    if count == length:
        whole = np.frombuffer(body, dtype, count, start)
        return _Kept(whole, None, length), start + whole.nbytes
    places = np.frombuffer(body, _PLACE, count, start)
    kept = np.frombuffer(body, dtype, count, start + places.nbytes)
    return _Kept(kept, places, length), start + places.nbytes + kept.nbytes


def _narrow(counts: NDArray[np.int64]) -> np.dtype[Any]:
    """The smallest dtype that holds them; those of one partition are small."""
    if counts.min() < 0:
        return np.dtype("<i8")
    return np.min_scalar_type(int(counts.max())).newbyteorder("<")
