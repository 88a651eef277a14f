"""A run that writes Jacobians and is ready to begin: rows chosen, matrices cut. Nothing is written."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_dask import float_dtype, jacobian, result_dtype
from softmax_dask_pipelines import machine
from softmax_dask_pipelines.config import JacobianConfig
from softmax_dask_pipelines.errors import ConfigError
from softmax_dask_pipelines.jacobian_memory import JacobianMemory, partition_rows
from softmax_dask_pipelines.jacobian_task import Tiles
from softmax_dask_pipelines.job import carried_columns, source_request, warn_of_one_class
from softmax_dask_pipelines.output_checks import checked_output, require_apart_from_files, require_room
from softmax_dask_pipelines.selection import Choice, OnSearch, chosen_rows
from softmax_dask_pipelines.sinks import OutputSpec, require_own_names
from softmax_dask_pipelines.sources import Source, SourceFacts, open_source
from softmax_dask_pipelines.sources.blocks import aligned

_MOST_ROWS = 1 << 20
"""Of a tile."""


@dataclass(frozen=True, slots=True)
class JacobianJob:
    """A run that is ready to begin: everything is checked, nothing is written."""

    config: JacobianConfig
    source: Source
    spec: OutputSpec
    rows: NDArray[np.int64]
    """Numbers of the chosen rows, rising."""
    tiles: Tiles
    batch_rows: int
    """Rows that are read at once; whole partitions."""
    threads: int
    peak_bytes: int
    """Memory of the whole process, at most."""
    memory_limit_bytes: int

    @property
    def total_rows(self) -> int:
        """Rows that the run works through."""
        return len(self.rows)

    def batches(self) -> Iterator[range]:
        """Places in the output of the rows that are read at once, in order."""
        return aligned(0, len(self.rows), self.batch_rows)

    @property
    def bytes_out(self) -> int:
        """Matrices, before compression."""
        return len(self.rows) * self.spec.classes**2 * self.spec.wide_dtype.itemsize


def prepare(config: JacobianConfig, on_search: OnSearch | None = None) -> JacobianJob:
    """Check everything that can be checked before anything is written, and find the rows, for which logits are read.

    `on_search` is told how far a search for rows of low confidence has come.

    Raises
    ------
    UsageError, DataError, TemporaryError
        See `softmax_dask_pipelines.errors`.
    """
    output = checked_output(config.output.path, config.source.path, config.source.classes)
    source = open_source(source_request(config.source))
    facts = source.facts
    require_apart_from_files(facts, output)
    warn_of_one_class(facts)
    choice = _choice(config, facts)
    dtype = result_dtype(facts.dtype, config.output.dtype)
    tiles = _tiles(facts, dtype)
    limit = config.memory_limit or machine.free_memory_bytes() // 2
    memory = JacobianMemory(facts, tiles, dtype, config.threads or machine.cores(), limit)
    rows = chosen_rows(
        source,
        choice,
        temperature=config.temperature,
        threads=memory.threads(0),
        most=memory.most_rows(),
        stop=Event(),
        on_search=on_search,
    )
    threads = memory.threads(len(rows))
    tiles = replace(tiles, rows=max(1, min(tiles.rows, len(rows))))  # a chunk is never larger than its array
    spec = _spec(config, str(output), facts, tiles, dtype, len(rows), threads)
    job = JacobianJob(
        config=config,
        source=source,
        spec=spec,
        rows=rows,
        tiles=tiles,
        batch_rows=max(1, memory.batch_rows() // spec.partition_rows) * spec.partition_rows,
        threads=threads,
        peak_bytes=memory.peak_bytes(threads, len(rows)),
        memory_limit_bytes=limit,
    )
    require_room(output, job.bytes_out)
    return job


def _choice(config: JacobianConfig, facts: SourceFacts) -> Choice:
    first, _, last = (config.rows or ":").partition(":")
    start, stop = int(first or 0), int(last or facts.rows)
    if start > facts.rows or stop > facts.rows:
        raise ConfigError(f"rows: is {config.rows}; expected rows of {facts.path}, which has {facts.rows:,} of them.")
    return Choice(start, max(start, stop), config.where_confidence_below, config.limit)


def _tiles(facts: SourceFacts, dtype: np.dtype[Any]) -> Tiles:
    """As the library cuts a Jacobian of more rows than a tile has, but no more than twice as many: each is a task."""
    rows, lazy = 1, _lazy(1, facts, dtype)
    while lazy.numblocks[0] == 1 and rows < _MOST_ROWS:
        rows *= 2
        lazy = _lazy(rows, facts, dtype)
    rows, lines, columns = lazy.chunksize
    return Tiles(rows=rows, lines=lines, columns=columns, stripes=lazy.numblocks[1])


def _lazy(rows: int, facts: SourceFacts, dtype: np.dtype[Any]) -> Any:
    import dask.array as da  # a quarter of the work with which other verbs would begin, which do without

    return jacobian(da.zeros((rows, facts.classes), facts.dtype, chunks=(rows, facts.classes)), dtype=dtype)


def _spec(
    config: JacobianConfig,
    output: str,
    facts: SourceFacts,
    tiles: Tiles,
    dtype: np.dtype[Any],
    rows: int,
    threads: int,
) -> OutputSpec:
    spec = OutputSpec(
        path=output,
        format="zarr",
        rows=rows,
        classes=facts.classes,
        partition_rows=partition_rows(tiles, dtype, rows, threads),
        chunk_rows=tiles.rows,
        columns=(),
        float_dtype=float_dtype(facts.dtype),
        wide_dtype=dtype,
        top_k=0,
        class_names=facts.class_names,
        carried=carried_columns(config.output.rename, facts),
        has_targets=facts.target_name is not None,
        attributes={
            "source": config.source.path,
            "logits": facts.name,
            "classes": facts.classes,
            "temperature": config.temperature,
            "rows": config.rows,
            "where_confidence_below": config.where_confidence_below,
            "limit": config.limit,
        },
    )
    require_own_names(spec, beside=("row", "jacobian"))
    return spec
