"""The metadata documents of a Zarr store, read and judged before zarr-python sees them.

What no dump needs is refused here, quickly and in little memory: documents of many megabytes, shapes
and chunk counts beyond reason, codecs that are unknown or can run code.
"""

import json
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

from softmax_dask_pipelines.errors import MetadataLimitError, SourceFormatError, UnsafeCodecError
from softmax_dask_pipelines.sources.formats import DOCUMENT_BYTES, ZARR_FILES
from softmax_dask_pipelines.sources.zarr_files import Files

VALUES = 2**63
CHUNKS = 10**8
"""One row a chunk is legal; a thousand million of them are not."""

COMPRESSORS = ("blosc", "zstd", "gzip", "zlib", "lz4", "lzma", "bz2")
_FILTERS = ("shuffle", "delta", "fixedscaleoffset", "quantize", "bitround", "astype", "packbits", "base64")
_ARITHMETIC = ("scale_offset", "cast_value")
"""Of zarr-python 3.2 and later: as many values as before, for example logits as integers of 8 bits."""
CHECKSUMS = ("crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3")
_TEXTS = ("vlen-utf8", "vlen-bytes")
CODECS = frozenset(
    {*COMPRESSORS, *_FILTERS, *_ARITHMETIC, *CHECKSUMS, *_TEXTS, "bytes", "endian", "transpose", "sharding_indexed"}
)
"""All that are known, allowed and decoded within bounds."""
_INDEX_CODECS = frozenset({"bytes", "endian", "transpose", "crc32c"})
"""Of the index of a shard, whose size is fixed."""

Document = dict[str, Any]


def is_store(files: Files) -> bool:
    """Whether there is any metadata at the root."""
    return any(has(files, name) for name in ZARR_FILES)


def has(files: Files, key: str) -> bool:
    """Whether there is a file."""
    try:
        return files.size(key) >= 0
    except (FileNotFoundError, NotADirectoryError):
        return False


def is_array(files: Files, key: str) -> bool:
    """Whether the folder `key` is an array."""
    try:
        return (
            has(files, joined(key, ".zarray")) or _document(files, joined(key, "zarr.json")).get("node_type") == "array"
        )
    except PermissionError:  # it may be one: who opens it is told what is wrong
        return True


def array_document(files: Files, key: str) -> Document:
    """The metadata of the array in the folder `key`, of v2 with its attributes, once it is within the limits."""
    document = _document(files, joined(key, "zarr.json"))
    if document.get("node_type") != "array":
        document = _document(files, joined(key, ".zarray")) | {"attributes": _document(files, joined(key, ".zattrs"))}
    _require_read_whole(document, files.shown(key))
    _require_limits(document, files.shown(key))
    _require_codecs(document, files.shown(key))
    return document


def group_attributes(files: Files, key: str) -> Document:
    """The attributes of the group in the folder `key`."""
    attributes = _document(files, joined(key, "zarr.json")).get("attributes")
    found = attributes if isinstance(attributes, dict) else {}
    return found | _document(files, joined(key, ".zattrs"))


def joined(folder: str, name: str) -> str:
    """The key of a member of a folder."""
    return f"{folder}/{name}" if folder else name


def codec_name(codec: Any) -> str:
    """Name of a codec in a document of v2 or v3, as numcodecs has it."""
    if not isinstance(codec, Mapping):
        return str(codec)
    return str(codec.get("id", codec.get("name"))).removeprefix("numcodecs.")


def settings_of(codec: Any) -> Mapping[str, Any]:
    """The configuration of a codec of zarr-python as a document of v3 has it.

    Its attributes are enumerations or strings, as the release of zarr-python has it.
    """
    found: Mapping[str, Any] = codec.to_dict().get("configuration", {})
    return found


def byte_order(codec: Any) -> str | None:
    """Of the codec `bytes`: little or big; None where a value is one byte."""
    return settings_of(codec).get("endian")


def _document(files: Files, key: str) -> Document:
    """The JSON object in a file; empty where there is no file."""
    try:
        size = files.size(key)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    if size > DOCUMENT_BYTES:
        raise MetadataLimitError(
            f"{files.shown(key)}: has {size} bytes; expected at most {DOCUMENT_BYTES}. Shorten the attributes."
        )
    try:
        document = json.loads(files.read(key, 0, size))
    except (ValueError, RecursionError) as error:
        raise SourceFormatError(
            f"{files.shown(key)}: is not JSON ({error}); expected metadata of Zarr. Copy it again."
        ) from error
    return document if isinstance(document, dict) else {}


def _require_read_whole(document: Document, where: str) -> None:
    """Refuse what zarr-python takes without a word, and does not understand; and what it may read, and we do not."""
    grid = document.get("chunk_grid")
    if isinstance(grid, dict) and grid.get("name", "regular") != "regular":
        raise SourceFormatError(
            f"{where}: has a chunk grid that is {grid['name']}; expected regular, chunks of one shape. "
            "Write the array again, with such chunks."
        )
    if document.get("storage_transformers"):
        raise SourceFormatError(f"{where}: has storage transformers; expected none. Write the array again.")
    if not isinstance(document.get("attributes", {}), dict):
        raise SourceFormatError(
            f"{where}: has attributes that are {document['attributes']!r}; expected an object. Correct its metadata."
        )


def _require_limits(document: Document, where: str) -> None:
    shape, grid = _lengths(document.get("shape")), _lengths(_chunk_shape(document))
    if len(shape) != len(grid):
        return  # zarr-python says what is wrong
    if 0 in grid:
        raise SourceFormatError(f"{where}: has chunks of {grid}; expected at least 1 of each axis. Write it again.")
    if prod(shape) >= VALUES:
        raise MetadataLimitError(
            f"{where}: has shape {shape}; expected less than 2^63 values. Copy its metadata again."
        )
    chunks = prod(-(-length // step) for length, step in zip(shape, grid, strict=True))
    if chunks > CHUNKS:
        raise MetadataLimitError(
            f"{where}: has {chunks} chunks or shards ({shape} in pieces of {grid}); expected at most {CHUNKS}. "
            "Write it with larger chunks, or in shards."
        )


def _require_codecs(document: Document, where: str) -> None:
    for codec, allowed in _codecs(document):
        if codec_name(codec) not in allowed:
            raise UnsafeCodecError(
                f"{where}: has the codec {codec_name(codec)!r}, which is not known to be safe; expected one of "
                f"{', '.join(sorted(allowed))}. Write the array again, for example with zstd."
            )


def _codecs(document: Document) -> Iterator[tuple[Any, frozenset[str]]]:
    """Every codec, and those that may stand there: of v2, of v3, and inside shards."""
    found = [*_listed(document, "filters"), *_listed(document, "codecs")]
    compressor = document.get("compressor")
    for codec in [*found, compressor] if compressor is not None else found:
        yield codec, CODECS
        inside = codec.get("configuration") if isinstance(codec, Mapping) else None
        if isinstance(inside, Mapping) and codec_name(codec) == "sharding_indexed":
            yield from _codecs({"codecs": inside.get("codecs")})
            yield from ((part, _INDEX_CODECS) for part in _listed(inside, "index_codecs"))


def _listed(document: Mapping[str, Any], key: str) -> list[Any]:
    value = document.get(key)
    return value if isinstance(value, list) else []


def _chunk_shape(document: Document) -> Any:
    grid = document.get("chunk_grid")
    inside = grid.get("configuration") if isinstance(grid, dict) else None
    return inside.get("chunk_shape") if isinstance(inside, dict) else document.get("chunks")


def _lengths(values: Any) -> list[int]:
    """Shape or chunks; empty where they are no list of lengths."""
    fit = isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
    return values if fit else []
