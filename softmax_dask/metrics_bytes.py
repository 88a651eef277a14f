"""Metrics as bytes, quick to write and to read: what a program keeps for itself. For others there is `metrics_json`.

A line that names the format, a line of JSON (numbers, and which arrays follow), the arrays one after the other, and a
checksum of all that.
"""

import json
import zlib
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_dask.confusions import DEPTH, WIDTH, Confusions
from softmax_dask.errors import MetricsError
from softmax_dask.metrics import Metrics

_HEAD = b"softmax-dask metrics 2\n"
"""Its number is raised with any change; .npz files, of which there was no number, were the first."""

_PLACE = np.dtype("<u4")


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
    body = memoryview(data)[:-_CHECKSUM_BYTES]
    if not data.startswith(_HEAD) or _checksum(body) != data[-_CHECKSUM_BYTES:]:
        raise MetricsError(
            f"{len(data):,} bytes are no metrics of this version, or damaged; expected what metrics_to_bytes gave."
        )
    end = data.index(b"\n", len(_HEAD)) + 1
    told = json.loads(data[len(_HEAD) : end])
    found: dict[str, Any] = told["numbers"]
    arrays: dict[str, Any] = {}
    for name, kind in told["arrays"].items():
        arrays[name], end = _unpacked(body, end, kind)
    found["bin_confidence"] = tuple(found["bin_confidence"])
    if "sketch" in arrays:
        confusions = Confusions(sketch=arrays.pop("sketch").reshape(DEPTH, WIDTH))
    else:
        confusions = Confusions(arrays.pop("pairs"), arrays.pop("pair_rows"))
    return Metrics(**found, **arrays, confusions=confusions)


def _checksum(data: Any) -> bytes:
    return zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "big")


_CHECKSUM_BYTES = 4
_FIELDS = {field.name: field.type for field in fields(Metrics) if field.name != "confusions"}
_NUMBERS = tuple(name for name, kind in _FIELDS.items() if kind in (int, tuple[int, ...]))
_ARRAYS = tuple(name for name in _FIELDS if name not in _NUMBERS)


def _packed(values: NDArray[np.int64]) -> tuple[list[Any], list[bytes]]:
    """Dtype, length, and how many items are kept: all, or after their places those that are not zero; and the bytes."""
    places = np.flatnonzero(values)
    dtype = _narrow(values)
    if len(places) * (_PLACE.itemsize + dtype.itemsize) >= len(values) * dtype.itemsize:
        return [dtype.str, len(values), len(values)], [values.astype(dtype).tobytes()]
    kept = values[places].astype(dtype)
    return [dtype.str, len(values), len(kept)], [places.astype(_PLACE).tobytes(), kept.tobytes()]


def _unpacked(body: memoryview, start: int, kind: list[Any]) -> tuple[NDArray[np.int64], int]:
    """The array, and where the next one begins."""
    dtype, length, count = np.dtype(kind[0]), kind[1], kind[2]
    if count == length:
        whole = np.frombuffer(body, dtype, count, start)
        return whole.astype(np.int64), start + whole.nbytes
    places = np.frombuffer(body, _PLACE, count, start)
    kept = np.frombuffer(body, dtype, count, start + places.nbytes)
    values = np.zeros(length, np.int64)
    values[places] = kept
    return values, start + places.nbytes + kept.nbytes


def _narrow(counts: NDArray[np.int64]) -> np.dtype[Any]:
    """The smallest dtype that holds them; those of one partition are small."""
    if not counts.size or counts.min() < 0:
        return np.dtype("<i8")
    return np.min_scalar_type(int(counts.max())).newbyteorder("<")
