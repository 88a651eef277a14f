"""Metrics as bytes, quick to write: what one process leaves for another. For keeping there is `metrics_json`."""

import io
import json
import zlib
from dataclasses import fields
from typing import Any

import numpy as np

from softmax_dask.confusions import Confusions
from softmax_dask.errors import MetricsError
from softmax_dask.metrics import Metrics


def metrics_to_bytes(metrics: Metrics) -> bytes:
    """All of it: an .npz file, in which arrays that are mostly zero are kept by their other items, and its checksum."""
    numbers: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    for name in _NAMES:
        value = getattr(metrics, name)
        if isinstance(value, np.ndarray):
            arrays |= _sparse(name, value)
        else:
            numbers[name] = value
    confusions = metrics.confusions
    if confusions.sketch is None:
        arrays |= {"pairs": confusions.pairs, "pair_rows": _narrow(confusions.rows)}
    else:
        arrays |= _sparse("sketch", confusions.sketch)
    arrays["numbers"] = np.frombuffer(json.dumps(numbers).encode(), np.uint8)
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    data = file.getvalue()
    return data + _checksum(data)


def metrics_from_bytes(data: bytes) -> Metrics:
    """What `metrics_to_bytes` was given.

    Raises
    ------
    MetricsError
        The bytes are not all those that it gave.
    """
    file = data[:-_CHECKSUM_BYTES]
    if _checksum(file) != data[-_CHECKSUM_BYTES:]:  # readers of .npz need not look at the checksums inside
        raise MetricsError(f"{len(data):,} bytes are no metrics, or damaged; expected what metrics_to_bytes gave.")
    with np.load(io.BytesIO(file), allow_pickle=False) as arrays:
        found: dict[str, Any] = json.loads(arrays["numbers"].tobytes())
        found["bin_confidence"] = tuple(found["bin_confidence"])
        found |= {name: _dense(name, arrays) for name in _NAMES if name not in found}
        if "pairs" in arrays:
            confusions = Confusions(arrays["pairs"], arrays["pair_rows"].astype(np.int64))
        else:
            confusions = Confusions(sketch=_dense("sketch", arrays))
    return Metrics(**found, confusions=confusions)


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "big")


_CHECKSUM_BYTES = 4
_NAMES = tuple(field.name for field in fields(Metrics) if field.name != "confusions")


def _sparse(name: str, values: Any) -> dict[str, Any]:
    places = np.flatnonzero(values)
    return {
        f"{name}.shape": np.array(values.shape, np.int64),
        f"{name}.places": places.astype(np.uint32),
        f"{name}.values": _narrow(values.reshape(-1)[places]),
    }


def _narrow(counts: Any) -> Any:
    """In the smallest dtype that holds them; those of one partition are small."""
    if not counts.size or counts.min() < 0:
        return counts
    return counts.astype(np.min_scalar_type(int(counts.max())))


def _dense(name: str, arrays: Any) -> Any:
    values = np.zeros(tuple(arrays[f"{name}.shape"]), np.int64)
    values.reshape(-1)[arrays[f"{name}.places"]] = arrays[f"{name}.values"]
    return values
