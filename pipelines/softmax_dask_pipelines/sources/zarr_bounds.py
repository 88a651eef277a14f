"""Decompression that cannot be made to fill the memory: a chunk yields what it may hold, or fails.

zstd, Blosc and numcodecs' LZ4 say first how much they yield, and decoders allocate what they say:
it is looked at before. The others are decoded in steps, up to the limit.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import pyarrow as pa
from numcodecs.abc import Codec
from numcodecs.compat import ensure_contiguous_ndarray

LZMA_MEMORY_BYTES = 128 << 20
"""Enough for the largest preset, 65 MiB."""

_ZSTD_MAGIC = 0xFD2FB528
_SKIPPABLE_MAGIC = 0x184D2A50
_ZSTD_RLE = 1
_BLOSC_HEADER_BYTES = 16


class BoundError(ValueError):
    """A chunk yields more than it may hold, or its header makes no sense; becomes an error that names it."""


def decode_within(codec: Codec, encoded: Any, limit: int) -> Any:
    """What `codec` decodes `encoded` to, at most `limit` bytes."""
    decode = _BOUNDED.get(codec.codec_id)
    return codec.decode(encoded) if decode is None else decode(codec, encoded, limit)


def require_count(encoded: Any, limit: int) -> None:
    """Refuse texts of variable length (vlen-utf8, vlen-bytes) that say that they are more than `limit`."""
    count = int.from_bytes(_view(encoded)[:4], "little")
    if count > limit:
        raise BoundError(f"says that it holds {count} values; expected at most {limit}")


def zstd_bytes(data: memoryview) -> int | None:
    """How much these zstd frames say that they yield; None where one does not say."""
    total = at = 0
    while at < len(data):
        magic = _number(data, at, 4)
        if magic & ~15 == _SKIPPABLE_MAGIC:
            at += 8 + _number(data, at + 4, 4)
            continue
        if magic != _ZSTD_MAGIC:
            raise BoundError("is not zstd")
        size, at = _zstd_frame(data, at)
        if size is None:
            return None
        total += size
    return total


def zstd_frame_bytes(data: memoryview) -> int | None:
    """How much the first zstd frame says that it yields; None where it does not say, or is none."""
    return _zstd_size(data, 0)[0] if _number(data, 0, 4) == _ZSTD_MAGIC else None


def blosc_bytes(data: memoryview) -> int:
    """How much these bytes of Blosc say that they yield."""
    stored = _number(data, _BLOSC_HEADER_BYTES - 4, 4)
    if stored != len(data):  # numcodecs does not look, and reads beyond the end
        raise BoundError(f"has {len(data)} bytes where its header says {stored}")
    return _number(data, 4, 4)


def lz4_bytes(data: memoryview) -> int:
    """How much these bytes of numcodecs' LZ4 say that they yield."""
    return _number(data, 0, 4)


def _zstd_frame(data: memoryview, at: int) -> tuple[int | None, int]:
    """What the frame at `at` says that it yields, and where the next begins."""
    size, blocks, descriptor = _zstd_size(data, at)
    return size, _after_blocks(data, blocks) + (descriptor & 4) if size is not None else blocks


def _zstd_size(data: memoryview, at: int) -> tuple[int | None, int, int]:
    """What the frame says that it yields, where its blocks begin, and its descriptor (RFC 8878, section 3.1.1)."""
    descriptor = _number(data, at + 4, 1)
    single_segment = descriptor >> 5 & 1
    field_bytes = (single_segment, 2, 4, 8)[descriptor >> 6]
    at += 5 + (1 - single_segment) + (0, 1, 2, 4)[descriptor & 3]
    if not field_bytes:
        return None, at, descriptor
    size = _number(data, at, field_bytes) + (256 if field_bytes == 2 else 0)
    return size, at + field_bytes, descriptor


def _after_blocks(data: memoryview, at: int) -> int:
    last = 0
    while not last:
        header = _number(data, at, 3)
        last = header & 1
        at += 3 + (1 if header >> 1 & 3 == _ZSTD_RLE else header >> 3)
    return at


def _zstd(codec: Codec, encoded: Any, limit: int) -> Any:
    data = _view(encoded)
    declared = zstd_bytes(data)
    if declared is not None:
        _require_within(declared, limit)
        return codec.decode(encoded)
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
        decoded = bytes(stream.read(limit + 1))
    _require_within(len(decoded), limit)
    return decoded


def _blosc(codec: Codec, encoded: Any, limit: int) -> Any:
    _require_within(blosc_bytes(_view(encoded)), limit)
    return codec.decode(encoded)


def _lz4(codec: Codec, encoded: Any, limit: int) -> Any:
    _require_within(lz4_bytes(_view(encoded)), limit)
    return codec.decode(encoded)


def _gzip(codec: Codec, encoded: Any, limit: int) -> bytes:
    del codec
    return _in_steps(lambda: zlib.decompressobj(16 + zlib.MAX_WBITS), encoded, limit)


def _zlib(codec: Codec, encoded: Any, limit: int) -> bytes:
    del codec
    return _in_steps(lambda: zlib.decompressobj(zlib.MAX_WBITS), encoded, limit)


def _bz2(codec: Codec, encoded: Any, limit: int) -> bytes:
    del codec
    return _in_steps(bz2.BZ2Decompressor, encoded, limit)


def _lzma(codec: Codec, encoded: Any, limit: int) -> bytes:
    raw = codec.format == lzma.FORMAT_RAW
    _require_within(max([0, *(part.get("dict_size", 0) for part in codec.filters or ())]), LZMA_MEMORY_BYTES)
    options = {"filters": codec.filters} if raw else {"memlimit": LZMA_MEMORY_BYTES}
    return _in_steps(lambda: lzma.LZMADecompressor(format=codec.format, **options), encoded, limit, needs_end=not raw)


def _in_steps(make: Callable[[], Any], encoded: Any, limit: int, *, needs_end: bool = True) -> bytes:
    """Decode streams, one after the other, up to the limit."""
    rest, parts, left = bytes(_view(encoded)), list[bytes](), limit + 1
    while rest and left:
        stream = make()
        part = stream.decompress(rest, left)
        # All that was asked for may be there before the end is seen.
        if needs_end and not stream.eof and len(part) < left:
            raise BoundError("is cut short")
        parts.append(part)
        left -= len(part)
        rest = stream.unused_data.lstrip(b"\0")
    _require_within(limit + 1 - left, limit)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _require_within(yields: int, limit: int) -> None:
    if yields > limit:
        raise BoundError(f"yields {yields} bytes or more; expected at most {limit}")


def _view(encoded: Any) -> memoryview:
    return memoryview(ensure_contiguous_ndarray(encoded).view("u1"))


def _number(data: memoryview, at: int, length: int) -> int:
    field = data[at : at + length]
    if len(field) < length:
        raise BoundError("is cut short")
    return int.from_bytes(field, "little")


_BOUNDED: Mapping[str, Callable[[Codec, Any, int], Any]] = MappingProxyType(
    {
        "zstd": _zstd,
        "blosc": _blosc,
        "lz4": _lz4,
        "gzip": _gzip,
        "zlib": _zlib,
        "bz2": _bz2,
        "lzma": _lzma,
    }
)
