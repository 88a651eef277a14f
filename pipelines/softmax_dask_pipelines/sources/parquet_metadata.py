"""Facts that stand in the footers of Parquet files."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from softmax_dask_pipelines.errors import SchemaMismatchError
from softmax_dask_pipelines.sources.parquet_files import Part
from softmax_dask_pipelines.sources.parquet_footer import Chunk


def common_group_rows(parts: Sequence[Part]) -> int:
    """Rows that most row groups have; 1 where there is none."""
    sizes = Counter(size for size in _group_sizes(parts) if size)
    return sizes.most_common(1)[0][0] if sizes else 1


def largest_group_rows(parts: Sequence[Part]) -> int | None:
    """Rows of the largest row group; None where there is none."""
    return max(_group_sizes(parts), default=None)


def column_bytes(parts: Sequence[Part], names: Sequence[str]) -> int:
    """Size at rest of these columns."""
    return sum(chunk.compressed_bytes for chunk in _all_chunks(parts, names))


def largest_chunk_bytes(parts: Sequence[Part], names: Sequence[str]) -> list[int]:
    """Largest size, decompressed, of each of these columns in one row group."""
    field = Chunk._fields.index("uncompressed_bytes")
    found = [part.chunks[:, _leaves(part, names), field].max(axis=0, initial=0) for part in parts]
    largest: list[int] = np.max(found, axis=0).tolist()
    return largest


def codec_text(parts: Sequence[Part], name: str, has_checksum: bool | None) -> str:
    """How a column is compressed, for people."""
    found = sorted({chunk.codec_name for chunk in _all_chunks(parts, [name])})
    checksums = {True: ", page checksums", False: ", no page checksums", None: ""}[has_checksum]
    return f"{' and '.join(found) or 'no rows'}{checksums}"


def chunks_of(part: Part, names: Sequence[str]) -> Iterator[list[Chunk]]:
    """For each row group, what the footer says of these columns."""
    for chunks in part.chunks[:, _leaves(part, names)].tolist():
        yield [Chunk._make(chunk) for chunk in chunks]


def stored_class_names(parts: Sequence[Part]) -> object:
    """Class names in the files' key-value metadata, once no two files differ; None where there are none."""
    named = [(part, names) for part in parts if (names := _class_names(part)) is not None]
    for part, names in named[1:]:
        if names != named[0][1]:
            raise SchemaMismatchError(
                f"{part.path} and {named[0][0].path} name their classes differently; expected the same names "
                "in every file. Score the files apart, or write one of them again."
            )
    return named[0][1] if named else None


def _class_names(part: Part) -> object:
    stored = part.metadata.metadata or {}
    for key, pick in ((b"class_names", lambda value: value), (b"softmax_dask", _inside)):
        if key in stored:
            try:
                names = pick(json.loads(stored[key]))
            except ValueError as error:
                raise SchemaMismatchError(
                    f"{part.path}: metadata {key.decode()} is not JSON ({error}); expected a list of text. Correct it."
                ) from error
            if names is not None:
                return names
    return None


def _inside(document: Any) -> object:
    return document.get("class_names") if isinstance(document, dict) else None


def _group_sizes(parts: Sequence[Part]) -> Iterator[int]:
    for part in parts:
        yield from (stop - start for start, stop in pairwise(part.group_starts))


def _all_chunks(parts: Sequence[Part], names: Sequence[str]) -> Iterator[Chunk]:
    for part in parts:
        for chunks in chunks_of(part, names):
            yield from chunks


def _leaves(part: Part, names: Sequence[str]) -> list[int]:
    leaves = {path: index for index, path in enumerate(part.leaves)}
    return [_leaf(leaves, name) for name in names]


def _leaf(leaves: Mapping[str, int], name: str) -> int:
    """Where a column is among those that are stored; the numbers of a list are below its name."""
    if name in leaves:
        return leaves[name]
    return next(index for path, index in leaves.items() if path.startswith(f"{name}."))
