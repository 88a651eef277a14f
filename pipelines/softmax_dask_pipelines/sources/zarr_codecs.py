"""What the codecs of a Zarr array say: how it is compressed, and how long a chunk's file must be."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ShardingCodec

from softmax_dask_pipelines.sources.zarr_decoders import limit_bytes
from softmax_dask_pipelines.sources.zarr_metadata import CHECKSUMS, codec_name

_FIXED_SIZE = {"bytes": 0, "transpose": 0, "crc32c": 4}
"""Codecs whose output has a known size, and the bytes that they add."""
_SHOWN = ("cname", "level", "clevel")
_WIDEST = np.dtype("f8")
"""Of what filters make of numbers."""
_INDEX_BYTES = 1 << 10
_LARGEST = 4
"""Times what a chunk holds: more is no encoding of it. Writers may leave old chunks in a shard."""


@dataclass(frozen=True, slots=True)
class FileSize:
    """How long the file of a chunk or shard must be, where that can be known before decoding."""

    fixed: int | None
    """The same for every chunk."""
    largest: int
    """More is not read into memory."""
    largest_chunk: int
    """The same of a chunk inside a shard; of any other as `largest`."""

    @classmethod
    def of(cls, array: "zarr.Array[Any]") -> "FileSize":
        """That of the chunks or shards of `array`."""
        names = [name for name, _ in _codecs(array)]
        inner = max(limit_bytes(prod(array.chunks), dtype) for dtype in (_native(array), _WIDEST)) + _INDEX_BYTES
        largest_chunk = _LARGEST * inner
        largest = largest_chunk * (prod(array.shards or array.chunks) // prod(array.chunks))
        if array.shards is not None or not set(names) <= set(_FIXED_SIZE):
            return cls(None, largest, largest_chunk)
        fixed = prod(array.chunks) * _native(array).itemsize + sum(map(_FIXED_SIZE.__getitem__, names))
        return cls(fixed, largest, largest_chunk)

    def fault(self, size: int) -> str | None:
        """What is wrong with a file of this size, if that can be known."""
        if size == 0:
            return "is empty"
        if self.fixed not in (None, size):
            return f"has {size} bytes instead of {self.fixed}"
        return f"has {size} bytes, more than {self.largest}" if size > self.largest else None


def codec_text(array: "zarr.Array[Any]") -> str:
    """How an array is compressed, for people."""
    codecs = _codecs(array)
    shown = [_codec_text(name, config) for name, config in codecs if name not in _FIXED_SIZE]
    return f"{' + '.join(shown) or 'uncompressed'}, {'checksum' if has_checksum(array) else 'no checksum'}"


def has_checksum(array: "zarr.Array[Any]") -> bool:
    """Whether damaged bytes of a chunk are found."""
    return any(name in CHECKSUMS or bool(config.get("checksum")) for name, config in _codecs(array))


def _native(array: "zarr.Array[Any]") -> np.dtype[Any]:
    return np.dtype(array.dtype)


def _codec_text(name: str, config: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{key}={config[key]}" for key in _SHOWN if key in config)
    return f"{name}({settings})" if settings else name


def _codecs(array: "zarr.Array[Any]") -> list[tuple[str, Mapping[str, Any]]]:
    """Name and settings of each codec of a chunk; inside the shards, where there are some."""
    if array.metadata.zarr_format == 2:
        found = [*(array.metadata.filters or ()), array.metadata.compressor]
        configs = [codec.get_config() for codec in found if codec is not None]
        return [(config["id"], config) for config in configs]
    codecs = array.metadata.codecs
    if len(codecs) == 1 and isinstance(codecs[0], ShardingCodec):
        codecs = codecs[0].codecs
    documents: list[Any] = [codec.to_dict() for codec in codecs]
    return [(codec_name(document), document.get("configuration", {})) for document in documents]
