"""Where results go: one protocol, one module a format.

A sink owns whole chunks, shards or files: a partition is written by one task and shares
no object with another. It writes into a place; what is there becomes visible when the place publishes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softmax_dask_pipelines.errors import ConfigError
from softmax_dask_pipelines.object_path import AnyPath
from softmax_dask_pipelines.sinks.places import Place

Format = Literal["zarr", "parquet"]
PathT = TypeVar("PathT", bound=AnyPath)


@dataclass(frozen=True, slots=True)
class CarriedColumn:
    """Something of the source that stands beside the results."""

    name: str
    """In the output."""
    source_name: str
    """In the source, and in what `advance` is given."""
    type: Any
    """pyarrow.DataType of what `advance` is given: integers or text, or a dictionary of them where a few
    values are repeated over many rows."""
    is_id: bool = False
    """Whether it is the ids of the rows. Where nothing tells each row from the others, Parquet gets `row`, int64."""
    is_shared: bool = False
    """Whether rows may share a value: ids of documents, of which each token is a row."""
    has_nulls: bool = False
    """Whether nulls are known to come."""

    @property
    def is_repeated(self) -> bool:
        """Whether a few values are repeated over many rows."""
        return bool(pa.types.is_dictionary(self.type))

    @property
    def value_type(self) -> Any:
        """pyarrow.DataType of the values themselves."""
        return self.type.value_type if self.is_repeated else self.type


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
    carried: tuple[CarriedColumn, ...]
    """What is taken over from the source, in output order: ids, keys of Hive folders."""
    has_targets: bool
    """Whether a column `target` (int64; unlabelled: -1 in Zarr, null in Parquet) is carried."""
    attributes: dict[str, Any]
    """Facts of the plan that explain the output: temperature, source, column units. Part of its metadata."""
    members: int = 0
    """Classes that conformal_set may have at most; 0 without it."""
    visible_rows: int = 0
    """Rows that earlier commits have written: those of Zarr are among `rows`, those of Parquet are not."""
    commit: int = 1
    """How many commits the output has with this one."""

    @property
    def first_partition(self) -> int:
        """Number of the first partition that is not done yet, or not all of it."""
        return self.visible_rows // self.partition_rows if self.format == "zarr" else 0

    @property
    def has_row_numbers(self) -> bool:
        """Whether there is a column `row`: in Parquet, where nothing carried identifies a row."""
        return self.format == "parquet" and not any(column.is_id and not column.is_shared for column in self.carried)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One file or chunk that a partition wrote."""

    key: str
    size_bytes: int
    crc32c: int
    """Of all its bytes; of a Zarr chunk of those before its own checksum."""


class PartitionWriter(Protocol):
    """Takes one partition's results: `reserve`, fill, `advance`, again until all rows are there, `close`."""

    def reserve(self, rows: int) -> dict[str, NDArray[Any]]:
        """Where to compute the next rows: for each column but `label_name`, a writable C-contiguous view.

        With `label_name` there always is `label`: names are looked up by it. The views have n rows,
        1 <= n <= `rows`: as many as fit the current chunk and the partition. They belong to the writer's
        own buffers, so a kernel that fills them copies nothing, and are void after `advance`.
        """

    def advance(self, rows: int, carried: Mapping[str, Any], targets: NDArray[np.int64] | None) -> None:
        """Say that the first `rows` reserved rows are filled, and hand over what is carried beside them.

        `carried` has a pyarrow.Array for each name in the source; they stay unchanged until `close`.
        `targets` are copied.
        """

    def drain(self) -> None:
        """All rows are there: encode what is left, wait for what was written so far, keep what `close` needs alone.

        `close` does it where nobody has; done before, other threads may compute while this one waits in `close`.
        """

    def close(self) -> tuple[StoredObject, ...]:
        """Write what is left, and wait; what the partition has stored. Nothing of it is visible yet."""

    def abandon(self) -> None:
        """Called in the place of `close` after an error: nothing of the partition is being written when it returns."""


class Sink(Protocol):
    """An output in the making. Pickled to the workers, which use `writer` alone."""

    def prepare(self) -> None:
        """Make the folders where partitions are written; what an earlier attempt at the same plan wrote stays."""

    def writer(self, number: int) -> PartitionWriter:
        """Writer of partition `number`: rows number * partition_rows and on."""

    def find(self, number: int, key: str) -> AnyPath:
        """Where an object of a partition is before the output is published, by the key that its writer gave it."""

    def seal(self) -> tuple[StoredObject, ...]:
        """Write what explains the partitions, all of which are there, and make everything durable; what was written."""


def open_sink(spec: OutputSpec, place: Place) -> Sink:
    """Sink of the format that `spec` asks for; nothing is written before its `prepare`.

    Raises
    ------
    ConfigError
        Something carried has the name of another column of the output.
    """
    require_own_names(spec)
    if spec.format == "zarr":
        from softmax_dask_pipelines.sinks.zarr import ZarrSink

        return ZarrSink(spec, place)
    from softmax_dask_pipelines.sinks.parquet import ParquetSink

    return ParquetSink(spec, place)


def job_folder(output: PathT) -> PathT:
    """The folder beside `output` for all that is not output: stage, journal, manifests."""
    return cast(PathT, output.with_name(f"{output.name}.job"))


def partition_row_range(spec: OutputSpec, number: int) -> range:
    """Row numbers of partition `number`."""
    start = number * spec.partition_rows
    return range(start, min(start + spec.partition_rows, spec.rows))


def require_own_names(spec: OutputSpec, *, beside: Sequence[str] = ()) -> None:
    """Refuse what is carried under a name that another column of the output has, or that no folder can have.

    `beside` are names of what the output has beside its columns.
    """
    taken = {*spec.columns, *beside, "target", "class", "commit", "zarr.json"} | (
        {"row"} if spec.has_row_numbers else set()
    )
    for column in spec.carried:
        if column.name in taken | {"", ".", ".."} or set(column.name) & {"/", "\0"}:
            raise ConfigError(
                f"{'id' if column.is_id else 'Hive key'}: is {column.name!r}; expected a name that no column of the "
                f"output has ({', '.join(sorted(taken))}). Give it one: --rename {column.source_name}=NEW."
            )
        taken.add(column.name)
