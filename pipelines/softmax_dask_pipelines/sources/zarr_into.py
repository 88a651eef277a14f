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
from softmax_dask_pipelines.sources.zarr_decoders import (
    BoundedCodec,
    BoundedNumcodec,
    BoundedSharding,
    VLenUTF8Codec,
)
from softmax_dask_pipelines.sources.zarr_metadata import COMPRESSORS, byte_order

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

    @classmethod
    def of_texts(cls, metadata: ArrayV2Metadata | ArrayV3Metadata) -> "Decoder | None":
        """That of chunks of `vlen-utf8`, down to texts behind their lengths; None where other codecs are not plain."""
        if isinstance(metadata, ArrayV2Metadata) or not isinstance(metadata.codecs[0], VLenUTF8Codec):
            return None
        return _of_bytes(metadata.codecs[1:])

    @property
    def is_plain(self) -> bool:
        """Whether the bytes are the numbers and nothing else."""
        return self.codec is None and not self.has_checksum

    def decode(self, encoded: Any, out: memoryview) -> None:
        """Fill all of `out`; `encoded` is `bytes` where there is a checksum, which then is computed without the GIL."""
        body = self._body(encoded)
        if self.codec is None:
            _copy(body, out)
        else:
            _INTO.get(self.codec.codec_id, _by_copy)(self.codec, body, out)

    def decoded(self, encoded: bytes, limit: int) -> Any:
        """At most `limit` bytes, in memory of their own or in that of `encoded`."""
        body = self._body(encoded)
        return body if self.codec is None else decode_within(self.codec, body, limit)

    def _body(self, encoded: Any) -> memoryview:
        """What was encoded, without its checksum, which is looked at."""
        body = memoryview(encoded)
        if not self.has_checksum:
            return body
        if google_crc32c.value(encoded) != _RESIDUE:
            raise BoundError("has a checksum that is wrong")
        return body[:-_CHECKSUM_BYTES]


def _of_v2(metadata: ArrayV2Metadata) -> Decoder | None:
    bounded = metadata.compressor
    codec = bounded.codec if isinstance(bounded, BoundedNumcodec) else bounded
    if metadata.filters or metadata.order != "C" or not _is_known(codec):
        return None
    return Decoder(codec, has_checksum=False)


def _of_v3(codecs: Sequence[Any]) -> Decoder | None:
    first, *others = codecs
    if not isinstance(first, BytesCodec) or byte_order(first) not in (None, sys.byteorder):
        return None
    return _of_bytes(others)


def _of_bytes(codecs: Sequence[Any]) -> Decoder | None:
    """Of codecs from bytes to bytes."""
    has_checksum = bool(codecs) and isinstance(codecs[-1], Crc32cCodec)
    compressors = codecs[:-1] if has_checksum else codecs
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
