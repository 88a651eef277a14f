"""What every source promises, and what is said and known of one. Knows no format."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from softmax_dask_pipelines.config_store import StorageOptions
from softmax_dask_pipelines.sources.stamps import Stamps

Format = Literal["zarr", "parquet", "npy"]


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """What the user says about a source; None means: find out."""

    path: str
    format: Format | None = None
    array: str | None = None
    """Zarr: path of the logits inside the group."""
    column: str | None = None
    """Parquet: name of the list column that holds the logits."""
    column_prefix: str | None = None
    """Parquet: one column a class; what the names of these columns begin with."""
    dtype: Literal["bfloat16"] | None = None
    """bfloat16: the stored 16-bit integers are bfloat16 bits."""
    id: str | None = None
    """Array, column or Hive key of row ids, carried to the output. None: an array or column `id` or `ids`, if any."""
    target: str | None = None
    """Array or column of true classes. None: `target` or `targets` if there is one."""
    class_names: tuple[str, ...] | None = None
    """Names of the classes. None: those in the source's attributes or metadata, if any."""
    class_axis: int | None = None
    """Zarr and npy: the axis of the classes, counted from 0 or from the last, -1. None: the last."""
    missing_chunks: Literal["error", "fill"] = "error"
    """Zarr: whether a chunk of the logits that is not there is an error, or reads as the fill value."""
    nulls: Literal["error", "abstain"] = "error"
    """Parquet: whether a null row, or a null in a row, is an error, or makes the row undecidable (NaN)."""
    settle_s: float = 0.0
    """Parquet, of many files: one that is not whole and was changed less than this ago is left out, for it is still
    being written."""
    verify_input: Literal["metadata", "content"] = "metadata"
    """How `stamps` tells a file from another one: by size and time of modification, or by a checksum of its bytes."""
    link: Literal["softmax", "sigmoid"] = "softmax"
    """sigmoid: the source has one logit z a row, and is read as the two logits 0 and z."""
    storage_options: StorageOptions | None = None
    """How an object store is reached."""


@dataclass(frozen=True, slots=True)
class Carried:
    """Something beside the logits that goes to the output as it is: ids, or a key of Hive folders."""

    name: str
    """Path of the array, name of the column or key."""
    type: Any
    """pyarrow.DataType of its values in blocks: integers or text; of a key a dictionary of them."""
    is_id: bool = False
    """Whether it was named, or has the usual name, of the ids. A source has them once, or not at all."""
    is_shared: bool = False
    """Whether all rows of a place along their first axis have one value, as ids of documents whose tokens are rows."""
    has_nulls: bool = False
    """Whether some values are known to be null: keys that not all folders have."""
    text_bytes: int | None = None
    """To plan for a text: of keys that of the longest one, of ids what one may take on average; None: not known."""


@dataclass(frozen=True, slots=True)
class SourceBlock:
    """Consecutive rows of a source, in memory."""

    logits: NDArray[Any]
    """(rows, classes), C order, of the source's dtype; may be read-only."""
    carried: Mapping[str, Any]
    """A pyarrow.Array for each of `SourceFacts.carried`, by name and of that type."""
    targets: NDArray[np.int64] | None
    """(rows,); -1 is unlabelled."""


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What a plan, a summary and `inspect` need to know of a source."""

    path: str
    """Absolute."""
    format: Format
    name: str
    """The array, column or prefix that was chosen; "" for a bare array."""
    rows: int
    classes: int
    dtype: np.dtype[Any]
    """Of the blocks that `read` yields, native byte order; `ml_dtypes.bfloat16` included."""
    read_rows: int
    """Rows of the largest block that `read` yields."""
    read_overhead_bytes: int
    """Memory that reading one block takes beside the block itself: encoded and half-decoded chunks."""
    stored_bytes: int
    """Size of the logits at rest."""
    codec: str
    """How they are compressed, for people: "zstd(level=0), no checksum"."""
    layout: str
    """Chunks, shards or row groups, for people: "chunks of 1000 x 100", "12 files, 96 row groups"."""
    class_names: tuple[str, ...] | None
    carried: tuple[Carried, ...]
    """The ids first, then the keys of Hive folders, in the order of the path."""
    target_name: str | None
    boundary_rows: int = 1
    """Rows of a shard, row group or run of chunks: a read that begins on a multiple of it decodes nothing
    twice. A multiple of `read_rows` or the other way round, where the source's own layout is regular."""
    chunk_rows: int | None = None
    """Rows of the largest piece that is decoded in one go: a chunk, an inner chunk of a shard, a row group."""
    class_chunks: int = 1
    """Pieces that the class axis of one row is cut into."""
    row_chunks: int = 1
    """Pieces that the rows of one place along their first axis are cut into."""
    has_checksum: bool | None = None
    """Whether damaged bytes are found by a checksum of each piece; None: cannot be known."""
    row_shape: tuple[int, ...] = (-1,)
    """What NumPy reshapes a value a row to, where rows are the places along several axes: (-1, tokens). The first
    length is not known for ever, for sources grow."""
    row_kind: Literal["array", "fixed lists", "lists", "columns"] | None = None
    """How a row is stored; "lists" may differ in length or be null, "columns" is one a class."""

    @property
    def id(self) -> Carried | None:
        """The ids, if there are any."""
        return next((column for column in self.carried if column.is_id), None)


class Source(Protocol):
    """Rows of logits at rest. Opened once, read by many threads, pickled to other processes."""

    @property
    def facts(self) -> SourceFacts:
        """What is known without reading logits."""

    def read(self, start: int, stop: int) -> Iterator[SourceBlock]:
        """Rows start..stop-1 in order, cut at the multiples of `facts.read_rows`.

        So every block has `read_rows` rows; the first and the last may have fewer.
        """

    def compile(self) -> None:
        """Compile, or load, what `read` calls, where it is compiled: threads that all come first would wait for one."""

    def stamps(self) -> Stamps:
        """How the source looks now; reads no logits but those of a last chunk that is not full."""

    def content(self, name: str, rows: range) -> str:
        """Digest of the values of `rows`, of the array of that name in the stamps; "" where they do not decode."""
