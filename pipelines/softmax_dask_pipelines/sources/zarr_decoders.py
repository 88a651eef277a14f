"""Zarr's codecs, with decompressors that stay within what a chunk may hold.

zarr-python's own decoders allocate whatever a chunk claims. These stand in their place, in v2, in v3
and inside shards, and decode to the same bytes.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numcodecs
import numpy as np
from numcodecs.abc import Codec
from zarr import codecs
from zarr.abc.codec import BytesBytesCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.core.buffer.cpu import as_numpy_array_wrapper
from zarr.core.metadata.v2 import ArrayV2Metadata

from softmax_dask_pipelines.sources.zarr_bounds import decode_within, require_count
from softmax_dask_pipelines.sources.zarr_metadata import CHECKSUMS, COMPRESSORS, codec_name

TEXT_BYTES = 1024
"""Encoded, on average, of the texts of a chunk: ids are short."""
_SLACK_BYTES = 4096
_BYTES_TO_BYTES = frozenset({*COMPRESSORS, *CHECKSUMS, "shuffle"}) - {"crc32c"}
"""Those that numcodecs decodes in the place of zarr-python."""


def limit_bytes(values: int, dtype: np.dtype[Any]) -> int:
    """Bytes that a codec of a chunk with so many values may yield, encoded once more included."""
    plain = values * (TEXT_BYTES if dtype.kind in "OT" else dtype.itemsize)
    return plain + plain // 8 + _SLACK_BYTES


def bounded_v2(metadata: ArrayV2Metadata) -> ArrayV2Metadata:
    """`metadata` whose compressor and filters decode within bounds."""
    values, dtype = prod(metadata.chunks), metadata.dtype.to_native_dtype()
    # A filter may yield wider numbers than those of the array: `astype`, `delta`.
    widest = np.dtype("f8") if metadata.filters and dtype.itemsize < 8 else dtype
    limit = limit_bytes(values, widest)
    filters = metadata.filters and tuple(BoundedNumcodec(codec, limit, values) for codec in metadata.filters)
    compressor = metadata.compressor and BoundedNumcodec(metadata.compressor, limit, values)
    return replace(metadata, filters=filters, compressor=compressor)


def bounded_codecs(documents: Sequence[Any]) -> list[Any]:
    """The codecs of v3 that need bounds, in the place of their documents; the others are left to zarr-python."""
    return [_bounded(document) for document in documents]


class BoundedNumcodec(Codec):  # type: ignore[misc]  # numcodecs has no types
    """A codec of numcodecs that decodes at most `limit` bytes, or so many texts."""

    codec_id = "bounded"

    def __init__(self, codec: Any, limit: int, values: int) -> None:
        self.codec, self.limit, self.values = codec, limit, values

    def decode(self, buf: Any, out: Any = None) -> Any:
        """What `buf` holds."""
        del out
        if self.codec.codec_id.startswith("vlen-"):
            require_count(buf, self.values)
        return decode_within(self.codec, buf, self.limit)

    def encode(self, buf: Any) -> Any:
        """Sources are read only."""
        raise NotImplementedError

    def get_config(self) -> Any:
        """That of the codec."""
        return self.codec.get_config()


@dataclass(frozen=True)
class BoundedCodec(BytesBytesCodec):
    """A decompressor or checksum of v3, decoded by numcodecs within the bounds of its chunk."""

    document: dict[str, Any]
    codec: Any

    is_fixed_size = False

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the metadata."""
        return self.document

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Not known."""
        raise NotImplementedError

    def evolve_from_array_spec(self, array_spec: ArraySpec) -> "BoundedCodec":
        """Of `shuffle`, with the width of the numbers where the metadata leaves it out."""
        if self.codec.codec_id != "shuffle" or self.document.get("configuration", {}).get("elementsize"):
            return self
        return replace(self, codec=numcodecs.Shuffle(array_spec.dtype.to_native_dtype().itemsize))

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._decode, chunk_bytes, chunk_spec)

    def _decode(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        limit = limit_bytes(prod(chunk_spec.shape), chunk_spec.dtype.to_native_dtype())
        return as_numpy_array_wrapper(
            lambda encoded: _as_bytes(decode_within(self.codec, encoded, limit)), chunk_bytes, chunk_spec.prototype
        )


# zarr-python knows the codecs of text by the names of their classes.
class VLenUTF8Codec(codecs.VLenUTF8Codec):
    """Texts, no more than the chunk has values."""

    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        require_count(chunk_bytes.as_numpy_array(), prod(chunk_spec.shape))
        return super()._decode_sync(chunk_bytes, chunk_spec)


class VLenBytesCodec(codecs.VLenBytesCodec):
    """Bytes, no more pieces than the chunk has values."""

    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        require_count(chunk_bytes.as_numpy_array(), prod(chunk_spec.shape))
        return super()._decode_sync(chunk_bytes, chunk_spec)


class BoundedSharding(codecs.ShardingCodec):
    """Shards whose inner chunks are decoded within bounds."""

    # zarr-python sends the documents of the inner codecs, and would make its own of them again.
    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("chunk_shape", "codecs", "index_codecs", "index_location")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        codecs.ShardingCodec.__init__(self, **state)


def _bounded(document: Any) -> Any:
    name, config = codec_name(document), dict(document.get("configuration") or {}) if isinstance(document, dict) else {}
    if name == "sharding_indexed":
        return BoundedSharding(**config | {"codecs": bounded_codecs(config.get("codecs", ()))})
    if name == "vlen-utf8":
        return VLenUTF8Codec()
    if name == "vlen-bytes":
        return VLenBytesCodec()
    if name in _BYTES_TO_BYTES or _raw_name(document) == "numcodecs.crc32c":
        return BoundedCodec({"name": name, "configuration": config}, _numcodec(name, config))
    return document


def _raw_name(document: Any) -> object:
    # zarr's own `crc32c` stands at the end of a chunk, that of numcodecs at its start.
    return document.get("name") if isinstance(document, dict) else document


def _numcodec(name: str, config: dict[str, Any]) -> Any:
    if name == "blosc":
        return numcodecs.Blosc()  # decoding needs none of its settings
    if name == "gzip":
        return numcodecs.GZip()
    if name == "shuffle" and not config.get("elementsize"):
        return numcodecs.Shuffle()
    return numcodecs.get_codec({"id": name, **config})


def _as_bytes(decoded: Any) -> Any:
    return decoded.tobytes() if isinstance(decoded, np.ndarray) else decoded
