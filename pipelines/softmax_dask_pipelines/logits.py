"""A dump as a Dask array, for people's own Dask code."""

from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any
from uuid import uuid4

import dask.array as da
import numpy as np

from softmax_dask import BLOCK_BYTES
from softmax_dask_pipelines.config import options_of_stores
from softmax_dask_pipelines.sources import Source, SourceFacts, SourceRequest, open_source

CHUNK_BYTES = BLOCK_BYTES
"""Logits of a chunk: a task of Dask's costs as much as some hundred rows."""


def open_logits(
    source: str | PathLike[str],
    *,
    source_format: Any = None,
    array: str | None = None,
    column: str | None = None,
    column_prefix: str | None = None,
    source_dtype: Any = None,
    class_axis: int | None = None,
    missing_chunks: Any = "error",
    nulls: Any = "error",
    link: Any = "softmax",
    storage_options: Mapping[str, Any] | None = None,
) -> Any:
    """The logits of a dump as a lazy array with whole rows, ready for `softmax_dask.softmax`.

    Parameters
    ----------
    source : Zarr group or array, Parquet file, folder of files or pattern, local or s3://bucket/key
    array, column, column_prefix : names in the source, where more than one could be meant
    source_dtype : "bfloat16", where 16-bit integers hold its bits
    class_axis : axis of the classes, of Zarr and npy; default the last
    missing_chunks : "error", or "fill" for a Zarr source that did not store chunks that are all fill value
    nulls : "error", or "abstain": a Parquet row that is null or holds one becomes NaN, which is undecidable
    link : "sigmoid" for one logit z a row, read as the two logits 0 and z
    storage_options : profile, endpoint_url, region, anon, requester_pays of a source on s3://; by the environment

    Returns
    -------
    dask.array.Array, (rows, classes)
        One chunk along the classes; of rows as many as the source's chunks or row groups have, or several of them.

    Raises
    ------
    SourceNotFoundError, SourceFormatError, ColumnNotFoundError, CorruptFileError, ...
        As `score`. A chunk that is missing or corrupt raises when it is computed.
    """
    request = SourceRequest(
        path=fspath(source),
        format=source_format,
        array=array,
        column=column,
        column_prefix=column_prefix,
        dtype=source_dtype,
        class_axis=class_axis,
        missing_chunks=missing_chunks,
        nulls=nulls,
        link=link,
        storage_options=options_of_stores(storage_options),
    )
    opened = open_source(request)
    facts = opened.facts
    starts = range(0, max(1, facts.rows), _chunk_rows(facts))
    stops = [min(start + starts.step, facts.rows) for start in starts]
    return da.map_blocks(
        _read_chunk,
        source=opened,
        starts=starts,
        stops=stops,
        chunks=(tuple(b - a for a, b in zip(starts, stops, strict=True)), (facts.classes,)),
        dtype=facts.dtype,
        meta=np.empty((0, 0), facts.dtype),
        # Not a hash of the path: a dump that was rewritten in place must not pass for the old one.
        name=f"logits-{uuid4().hex}",
    )


def _chunk_rows(facts: SourceFacts) -> int:
    """Whole pieces of the source: nothing is decoded twice, and few tasks are smaller than CHUNK_BYTES."""
    row_bytes = facts.classes * facts.dtype.itemsize
    pieces = max(1, CHUNK_BYTES // max(1, row_bytes * facts.boundary_rows))
    return facts.boundary_rows * pieces


def _read_chunk(*, source: Source, starts: range, stops: list[int], block_id: tuple[int, int]) -> Any:
    blocks = [block.logits for block in source.read(starts[block_id[0]], stops[block_id[0]])]
    if not blocks:
        return np.empty((0, source.facts.classes), source.facts.dtype)
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
