"""Where results go: one protocol, one module a format.

A sink owns whole chunks, shards or files: a partition is written by one task and shares
no object with another. An output is complete or absent: `publish` is what makes it visible.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Format = Literal["zarr", "parquet"]


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """All that a sink must know; a plan determines every field, so equal plans give equal bytes."""

    path: str
    """The output, as its readers will open it."""
    format: Format
    rows: int
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
    class_names: tuple[str, ...] | None
    id_name: str | None
    id_type: Any
    """pyarrow.DataType of the ids, or None. Without ids Parquet gets `row`, int64."""
    has_targets: bool
    """Whether a column `target` (int64; unlabelled: -1 in Zarr, null in Parquet) is carried."""
    attributes: dict[str, Any]
    """Facts of the plan that explain the output: temperature, source, column units. Written into its metadata."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One file or chunk that a partition wrote."""

    key: str
    size_bytes: int


class PartitionWriter(Protocol):
    """Takes one partition's results. Use: `reserve`, fill, `advance`, again until all rows are there, `close`."""

    def reserve(self, rows: int) -> dict[str, NDArray[Any]]:
        """Where the next rows are to be computed: for each computed column (not `label_name`), a writable C-contiguous view.

        The views have n rows, 1 <= n <= `rows`: as many as fit the current chunk. They belong
        to the writer's own buffers, so a kernel that fills them copies nothing.
        """

    def advance(self, rows: int, ids: Any, targets: NDArray[np.int64] | None) -> None:
        """Say that the `rows` reserved rows are filled, and hand over their ids and targets."""

    def close(self) -> tuple[StoredObject, ...]:
        """Write what is left; what the partition has stored. Nothing of it is visible yet."""


class Sink(Protocol):
    """An output in the making."""

    def prepare(self) -> None:
        """Make the place where partitions are written; what an unpublished run left there is cleared."""

    def writer(self, number: int) -> PartitionWriter:
        """Writer of partition `number`: rows number * partition_rows and on."""

    def publish(self) -> None:
        """Make the output visible, whole, in one step that the last write decides. Doing it again changes nothing."""

    def discard(self) -> None:
        """Remove everything that an unpublished run wrote."""
