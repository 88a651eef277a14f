"""Where results go: one protocol, one module a format.

A sink owns whole chunks, shards or files: a partition is written by one task and shares
no object with another. An output is complete or absent: `publish` is what makes it visible.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from softmax_dask_pipelines.errors import ConfigError

Format = Literal["zarr", "parquet"]


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """All that a sink must know; a plan determines every field, so equal plans give equal bytes."""

    path: str
    """The output, as its readers will open it."""
    format: Format
    rows: int
    """Of all partitions together; 0 is legal."""
    classes: int
    partition_rows: int
    """Rows of each partition but the last; a multiple of `chunk_rows`."""
    chunk_rows: int
    """Rows of a chunk of the wide columns, and of the buffer that is filled before anything is encoded."""
    columns: tuple[str, ...]
    """Names in `softmax_dask.COLUMNS`, in output order."""
    float_dtype: np.dtype[Any]
    """Of the columns of kind `float`: float32 or float64."""
    wide_dtype: np.dtype[Any]
    """Of probabilities and log_probabilities: float16, float32 or float64."""
    top_k: int
    """Classes of top_k_labels and top_k_probabilities; 0 without these columns."""
    class_names: tuple[str, ...] | None
    id_name: str | None
    id_type: Any
    """pyarrow.DataType of the ids, or None. Without ids Parquet gets `row`, int64."""
    has_targets: bool
    """Whether a column `target` (int64; unlabelled: -1 in Zarr, null in Parquet) is carried."""
    attributes: dict[str, Any]
    """Facts of the plan that explain the output: temperature, source, column units. Part of its metadata."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One file or chunk that a partition wrote."""

    key: str
    size_bytes: int


class PartitionWriter(Protocol):
    """Takes one partition's results: `reserve`, fill, `advance`, again until all rows are there, `close`."""

    def reserve(self, rows: int) -> dict[str, NDArray[Any]]:
        """Where to compute the next rows: for each column but `label_name`, a writable C-contiguous view.

        With `label_name` there always is `label`: names are looked up by it. The views have n rows,
        1 <= n <= `rows`: as many as fit the current chunk and the partition. They belong to the writer's
        own buffers, so a kernel that fills them copies nothing, and are void after `advance`.
        """

    def advance(self, rows: int, ids: Any, targets: NDArray[np.int64] | None) -> None:
        """Say that the first `rows` reserved rows are filled, and hand over their ids and targets.

        `ids` is a pyarrow.Array that stays unchanged until `close`; `targets` are copied.
        """

    def close(self) -> tuple[StoredObject, ...]:
        """Write what is left; what the partition has stored. Nothing of it is visible yet."""


class Sink(Protocol):
    """An output in the making. Pickled to the workers, which use `writer` alone."""

    def prepare(self) -> None:
        """Make the place where partitions are written; what an unpublished run left there is cleared.

        Raises
        ------
        OutputExistsError
            There is something at the output's path, and the sink was not told to replace it.
        """

    def writer(self, number: int) -> PartitionWriter:
        """Writer of partition `number`: rows number * partition_rows and on."""

    def publish(self) -> None:
        """Make the output visible, whole, in one step that the last write decides; again changes nothing."""

    def discard(self) -> None:
        """Remove everything that an unpublished run wrote; what is published stays."""


def open_sink(spec: OutputSpec, *, replace: bool) -> Sink:
    """Sink of the format that `spec` asks for; nothing is written before its `prepare`.

    Parameters
    ----------
    replace : an output that is there stays as it is until `publish`, which swaps it for the new one

    Raises
    ------
    ConfigError
        The ids have the name of one of our own columns.
    """
    require_own_id_name(spec)
    if spec.format == "zarr":
        from softmax_dask_pipelines.sinks.zarr import ZarrSink

        return ZarrSink(spec, replace=replace)
    from softmax_dask_pipelines.sinks.parquet import ParquetSink

    return ParquetSink(spec, replace=replace)


def job_folder(output: Path) -> Path:
    """The folder beside `output` for all that is not output: stage, journal, manifests."""
    return output.with_name(f"{output.name}.job")


def partition_row_range(spec: OutputSpec, number: int) -> range:
    """Row numbers of partition `number`."""
    start = number * spec.partition_rows
    return range(start, min(start + spec.partition_rows, spec.rows))


def require_own_id_name(spec: OutputSpec) -> None:
    """Refuse ids that have the name of one of our own columns, or none that a folder can have."""
    taken = {*spec.columns, "target", "class", "commit", "zarr.json"}
    if spec.id_name in taken | {"", ".", ".."}:
        raise ConfigError(
            f"id: is {spec.id_name!r}; expected a name that no column of the output has "
            f"({', '.join(sorted(taken))}). Rename it in the source, or leave the ids out."
        )
