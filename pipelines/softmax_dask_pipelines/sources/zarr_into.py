"""Decoding the bytes of one chunk into memory that is there already, in the thread that asks.

For the plain codecs alone: one compressor of numcodecs or none, and the checksum of Zarr at the end. No codec
writes beyond the memory that it is given; what does not fill it is an error.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import blosc, lz4, zstd
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.core.metadata.v2 import ArrayV2Metadata
from zarr.core.metadata.v3 import ArrayV3Metadata

from softmax_dask_pipelines.sources.zarr_bounds import (
    BoundError,
    blosc_bytes,
    decode_within,
    lz4_bytes,
    zstd_frame_bytes,
)
from softmax_dask_pipelines.sources.zarr_decoders import BoundedCodec, BoundedNumcodec, BoundedSharding
from softmax_dask_pipelines.sources.zarr_metadata import COMPRESSORS

_CHECKSUM_BYTES = 4
_RESIDUE = 0x48674BC7
"""crc32c of any bytes with their own crc32c behind them: to cut it off first would be a copy."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """How the chunks of one array become numbers."""

    codec: Any
    """The compressor, of numcodecs; None: the bytes are the numbers."""
    has_checksum: bool
    """Whether a crc32c stands behind the encoded bytes."""

    @classmethod
    def of(cls, metadata: ArrayV2Metadata | ArrayV3Metadata) -> "Decoder | None":
        """That of an array's chunks, inside the shards where it has some; None where its codecs are not plain."""
        if isinstance(metadata, ArrayV2Metadata):
            return _of_v2(metadata)
        codecs = metadata.codecs
        return _of_v3(codecs[0].codecs if isinstance(codecs[0], BoundedSharding) else codecs)

    @property
    def is_plain(self) -> bool:
        """Whether the bytes are the numbers and nothing else."""
        return self.codec is None and not self.has_checksum

    def decode(self, encoded: Any, out: memoryview) -> None:
        """Fill all of `out`; `encoded` is `bytes` where there is a checksum, which then is computed without the GIL."""
        body = memoryview(encoded)
        if self.has_checksum:
            if google_crc32c.value(encoded) != _RESIDUE:
                raise BoundError("has a checksum that is wrong")
            body = body[:-_CHECKSUM_BYTES]
        if self.codec is None:
            _copy(body, out)
        else:
            _INTO.get(self.codec.codec_id, _by_copy)(self.codec, body, out)


def _of_v2(metadata: ArrayV2Metadata) -> Decoder | None:
    bounded = metadata.compressor
    codec = bounded.codec if isinstance(bounded, BoundedNumcodec) else bounded
    if metadata.filters or metadata.order != "C" or not _is_known(codec):
        return None
    return Decoder(codec, has_checksum=False)


def _of_v3(codecs: Sequence[Any]) -> Decoder | None:
    first, *others = codecs
    if not isinstance(first, BytesCodec) or (first.endian is not None and first.endian.value != sys.byteorder):
        return None
    has_checksum = bool(others) and isinstance(others[-1], Crc32cCodec)
    compressors = others[:-1] if has_checksum else others
    if not compressors:
        return Decoder(None, has_checksum)
    codec = compressors[0].codec if isinstance(compressors[0], BoundedCodec) else compressors[0]
    return Decoder(codec, has_checksum) if len(compressors) == 1 and _is_known(codec) else None


def _is_known(codec: Any) -> bool:
    return codec is None or getattr(codec, "codec_id", None) in COMPRESSORS


def _blosc(codec: Any, encoded: memoryview, out: memoryview) -> None:
    del codec
    _require_bytes(blosc_bytes(encoded), out)
    blosc.decompress(encoded, out)


def _lz4(codec: Any, encoded: memoryview, out: memoryview) -> None:
    del codec
    _require_bytes(lz4_bytes(encoded), out)
    lz4.decompress(encoded, out)


def _zstd(codec: Any, encoded: memoryview, out: memoryview) -> None:
    """One frame that fills `out`: more of them would yield more, which numcodecs refuses."""
    declared = zstd_frame_bytes(encoded)
    if declared is None:
        _by_copy(codec, encoded, out)
        return
    _require_bytes(declared, out)
    zstd.decompress(encoded, out)


def _by_copy(codec: Any, encoded: memoryview, out: memoryview) -> None:
    _copy(memoryview(decode_within(codec, encoded, len(out))).cast("B"), out)


def _copy(decoded: memoryview, out: memoryview) -> None:
    _require_bytes(len(decoded), out)
    np.copyto(np.frombuffer(out, np.uint8), np.frombuffer(decoded, np.uint8))


def _require_bytes(found: int, out: memoryview) -> None:
    if found != len(out):
        raise BoundError(f"yields {found} bytes; expected {len(out)}")


_INTO: Mapping[str, Callable[[Any, memoryview, memoryview], None]] = MappingProxyType(
    {"blosc": _blosc, "lz4": _lz4, "zstd": _zstd}
)
"""Those that decode into memory that they are given; the others make their own, within bounds."""
