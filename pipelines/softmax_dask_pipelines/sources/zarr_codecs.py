"""What the codecs of a Zarr array say: how it is compressed, and how long a chunk's file must be."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import zarr
from zarr.codecs import ShardingCodec

_FIXED_SIZE = {"bytes": 0, "transpose": 0, "crc32c": 4}
"""Codecs whose output has a known size, and the bytes that they add."""
_CHECKSUMS = frozenset({"crc32c", "adler32", "fletcher32", "crc32"})
_SHOWN = ("cname", "level", "clevel")

_BLOSC_HEADER_BYTES = 16
_BLOSC_SIZE = slice(12, 16)


@dataclass(frozen=True, slots=True)
class FileSize:
    """How long the file of a chunk must be, where that can be known before decoding."""

    fixed: int | None
    """The same for every chunk."""
    blosc: bool
    """Stands in the chunk's header. numcodecs does not look, and reads beyond the end of a chunk cut short."""

    @classmethod
    def of(cls, array: "zarr.Array[Any]") -> "FileSize":
        """That of the chunks of `array`; of shards nothing is known."""
        names = [name for name, _ in _codecs(array)]
        if array.shards is not None:
            return cls(None, False)
        if not set(names) <= set(_FIXED_SIZE):
            return cls(None, names[-1] == "blosc")
        return cls(prod(array.chunks) * array.dtype.itemsize + sum(map(_FIXED_SIZE.__getitem__, names)), False)

    def expected(self, path: Path) -> int | None:
        """Bytes that this file must have, or None."""
        if not self.blosc:
            return self.fixed
        with open(path, "rb") as file:
            header = file.read(_BLOSC_HEADER_BYTES)
        whole = len(header) == _BLOSC_HEADER_BYTES
        return int.from_bytes(header[_BLOSC_SIZE], "little") if whole else _BLOSC_HEADER_BYTES


def codec_text(array: "zarr.Array[Any]") -> str:
    """How an array is compressed, for people."""
    codecs = _codecs(array)
    shown = [_codec_text(name, config) for name, config in codecs if name not in _FIXED_SIZE]
    checked = any(name in _CHECKSUMS or config.get("checksum") for name, config in codecs)
    return f"{' + '.join(shown) or 'uncompressed'}, {'checksum' if checked else 'no checksum'}"


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
    return [(document["name"].removeprefix("numcodecs."), document.get("configuration", {})) for document in documents]
