"""What a run may be told: pydantic models, one for each section. Reads no file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from dask.utils import parse_bytes
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from softmax_dask import COLUMNS
from softmax_dask_pipelines.addresses import checked_address, is_address
from softmax_dask_pipelines.config_cluster import ClusterConfig
from softmax_dask_pipelines.config_schedule import Day, Expectations, OnMissing, Retries, Section, Zone, no_bool
from softmax_dask_pipelines.config_store import StorageOptions

_MOST_THREADS = 4096
_LOCAL = ClusterConfig.model_validate("local")
_ENDINGS = {".zarr": "zarr", ".parquet": "parquet", ".pq": "parquet"}


def output_format_of(path: str) -> Any:
    """Format that the ending of an output's path means; None where it means none."""
    return _ENDINGS.get(Path(path).suffix)


def _known_column(name: str) -> str:
    if name not in COLUMNS:
        raise ValueError(f"one of {', '.join(COLUMNS)}")
    return name


def _usable_temperature(value: float) -> float:
    if not 1e-300 <= value <= 1e290:  # NaN fails too
        raise ValueError("a finite number above 0 (1e-300 to 1e290)")
    return value


def _readable(path: str) -> str:
    if is_address(path):
        return checked_address(path)
    if "://" in path.removeprefix("file://"):
        raise ValueError("a local path, or an address such as s3://bucket/folder/logits.zarr")
    return path


def local_path(path: str) -> str:
    """The path, if it is none of an object store."""
    path = path.removeprefix("file://")
    if "://" in path:
        raise ValueError("a local path")
    return path


def _writable(path: str, info: ValidationInfo) -> str:
    if not is_address(path):
        return local_path(path)
    address = checked_address(path)
    if (info.data.get("format") or output_format_of(address)) != "zarr":
        raise ValueError("an address of Zarr, such as s3://bucket/scores.zarr: Parquet is written to local paths")
    return address


def _with_known_ending(path: str, info: ValidationInfo) -> str:
    if info.data.get("format") is None and output_format_of(path) is None:
        raise ValueError(f"a path that ends in {', '.join(_ENDINGS)}, or a format beside it")
    return path


def _bytes_of_text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_bytes(value)
    except (ValueError, OverflowError) as error:
        raise ValueError("a number of bytes such as 2GiB or 500MB") from error


def _zarr_path(path: str, info: ValidationInfo) -> str:
    if info.data.get("format") is None and output_format_of(path) != "zarr":
        raise ValueError("a path that ends in .zarr")
    return path


def _json_path(path: str) -> str:
    if Path(path).suffix != ".json":
        raise ValueError("a path that ends in .json")
    return path


def _range_of_rows(value: Any) -> Any:
    """Pass "A:B" with A not beyond B."""
    first, colon, last = str(value).partition(":")
    numbers = all(text == "" or (text.isascii() and text.isdecimal()) for text in (first, last))
    if not colon or not numbers or (first and last and int(first) > int(last)):
        raise ValueError("two row numbers with a colon between, such as 0:100, the second one exclusive")
    return value


ColumnName = Annotated[str, AfterValidator(_known_column), WithJsonSchema({"enum": list(COLUMNS)})]
_ABOVE_0 = {"type": "integer", "exclusiveMinimum": 0}
Count = Annotated[int, BeforeValidator(no_bool), Field(gt=0), WithJsonSchema(_ABOVE_0)]
Threads = Annotated[
    int,
    BeforeValidator(no_bool),
    Field(gt=0, le=_MOST_THREADS),
    WithJsonSchema(_ABOVE_0 | {"maximum": _MOST_THREADS}),
]
Temperature = Annotated[
    float,
    BeforeValidator(no_bool),
    AfterValidator(_usable_temperature),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0}),
    Field(description="divides the logits; above 0"),
]
Bytes = Annotated[
    int,
    BeforeValidator(_bytes_of_text),
    BeforeValidator(no_bool),
    Field(gt=0),
    WithJsonSchema({"anyOf": [_ABOVE_0, {"type": "string"}]}),
]
MemoryLimit = Annotated[Bytes | None, Field(description="of the whole process, such as 2GiB; half of what is free")]


Seconds = Annotated[
    float, BeforeValidator(no_bool), Field(ge=0, allow_inf_nan=False), WithJsonSchema({"type": "number", "minimum": 0})
]

LocalPath = Annotated[str, Field(min_length=1), AfterValidator(local_path)]

CarriedName = Annotated[str, Field(min_length=1)]


RowRange = Annotated[str, BeforeValidator(_range_of_rows)]
Confidence = Annotated[
    float,
    BeforeValidator(no_bool),
    Field(gt=0, le=1),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
]


class SourceConfig(Section):
    """Where the logits are. Everything but `path` is found out when it is left out."""

    path: Annotated[str, AfterValidator(_readable)] = Field(
        min_length=1,
        description="Zarr store, Parquet file or folder, or .npy file, relative to the working directory; or s3://...",
    )
    format: Literal["zarr", "parquet", "npy"] | None = Field(None, description="found out from what is there")
    array: str | None = Field(None, description="Zarr: the array with the logits, by its path inside the group")
    column: str | None = Field(None, description="Parquet: the list column with the logits")
    column_prefix: str | None = Field(None, description="Parquet, one column a class: what their names begin with")
    dtype: Literal["bfloat16"] | None = Field(None, description="bfloat16: 16-bit integers hold bfloat16 bits")
    id: str | None = Field(None, description="array or column of row ids, carried to the output")
    target: str | None = Field(None, description="array or column of true classes, numbers or class names")
    classes: str | None = Field(None, description="file of class names, one a line, or a JSON list")
    class_axis: int | None = Field(None, description="Zarr and npy: the axis of the classes; the last")
    missing_chunks: Literal["error", "fill"] = Field(
        "error", description="Zarr: a chunk that is not there is an error, or reads as the fill value"
    )
    nulls: Literal["error", "abstain"] = Field(
        "error", description="Parquet: a null row, or a null in a row, is an error, or makes the row undecidable"
    )
    settle: Seconds = Field(
        60.0,
        description="Parquet, many files: one that is not whole and younger than so many seconds waits for another run",
    )
    verify_input: Literal["metadata", "content"] = Field(
        "metadata",
        description="how a change since it was scored is seen: by size and time of each file, or by a checksum of its "
        "bytes, for which all is read twice more; of objects by their etag",
    )
    link: Literal["softmax", "sigmoid"] = Field(
        "softmax", description="sigmoid: one logit z a row, read as the two logits 0 and z"
    )
    storage_options: StorageOptions | None = Field(None, description="how s3:// is reached; by the environment")


class OutputConfig(Section):
    """Where the results go."""

    format: Literal["zarr", "parquet"] | None = Field(None, description="found out from the ending of the path")
    path: Annotated[str, AfterValidator(_writable), AfterValidator(_with_known_ending)] = Field(
        min_length=1,
        description="a folder that is not there yet, relative to the working directory; Zarr also s3://...",
    )
    dtype: Literal["float16", "float32", "float64"] | None = Field(
        None, description="of probabilities and their logarithms; else that of the other columns, of compact float16"
    )
    rename: dict[CarriedName, CarriedName] | None = Field(
        None, description="names of carried ids and Hive keys in the output, such as {day: source_day}"
    )
    storage_options: StorageOptions | None = Field(None, description="how s3:// is reached; by the environment")


class MatrixOutputConfig(Section):
    """Where the matrices go."""

    format: Literal["zarr"] | None = Field(None, description="found out from the ending of the path")
    path: Annotated[str, AfterValidator(local_path), AfterValidator(_zarr_path)] = Field(
        min_length=1, description="a folder that is not there yet; relative to the working directory"
    )
    dtype: Literal["float16", "float32", "float64"] | None = Field(
        None, description="of the matrices; float32, or float64 for float64 logits"
    )
    rename: dict[CarriedName, CarriedName] | None = Field(
        None, description="names of carried ids and Hive keys in the output, such as {day: source_day}"
    )


_COMPACT: dict[str, Any] = {"top_k": 64, "dtype": "float16"}
"""What `verb: compact` means where it is not said, beside its columns."""


class ScoreConfig(Section):
    """One scoring run."""

    verb: Literal["score", "compact"] = Field(
        "score", description="what to do; left out: score. compact is score with the columns of a smaller dump"
    )
    source: SourceConfig = Field(description="where the logits are; what is left out here is found out")
    output: OutputConfig = Field(description="where the results go")
    columns: tuple[ColumnName, ...] | None = Field(
        None,
        min_length=1,
        description="label and confidence; label_name, nll and correct where they can be known. Of compact: "
        "top_k_labels, top_k_log_probabilities, logsumexp, tail_mass, tail_divergence, with a target nll",
    )
    top_k: Count | None = Field(
        None, description="for the columns of the k largest and of the tail: how many classes; of compact 64"
    )
    temperature: Temperature = 1.0
    calibration: LocalPath | None = Field(
        None, description="file that calibrate wrote: the temperature, and a shift where it corrects priors"
    )
    accept: LocalPath | None = Field(None, description="file that threshold wrote, for the column accept")
    conformal: LocalPath | None = Field(None, description="file that conformal wrote, for the column conformal_set")
    nonfinite: Literal["propagate", "error"] = Field(
        "propagate", description="rows with NaN, +inf or only -inf: mark them in the output, or refuse"
    )
    backend: Literal["cpu", "cuda", "auto"] = Field(
        "cpu", description="cuda: an NVIDIA GPU, through CuPy; auto: one if it works, else the CPU"
    )
    memory_limit: Bytes | None = Field(
        None, description="of the whole process, such as 2GiB; on a cluster, of each worker; half of what is free"
    )
    threads: Threads | None = Field(
        None, description="rows are scored by this many threads, on a cluster in each worker; all cores"
    )
    cluster: ClusterConfig = Field(
        _LOCAL,
        description="where: local, processes, or a section with connect: or class:; local",
    )
    date: Day = None
    timezone: Zone = "UTC"
    on_missing: OnMissing = "error"
    retries: Retries = 2
    expect: Expectations | None = Field(None, description="what a run must come to, or nothing is published")
    on_changed: Literal["error", "rescore", "ignore"] = Field(
        "error", description="what was scored has changed in the source: refuse, score all again, or leave it"
    )
    durability: Literal["fsync", "none"] = Field(
        "fsync", description="none: faster, and lost when the machine itself stops; a kill loses nothing either way"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        """What a smaller dump has where nothing else is said."""
        if not isinstance(data, Mapping) or data.get("verb") != "compact":
            return data
        filled = dict(data)
        if filled.get("top_k") is None:
            filled["top_k"] = _COMPACT["top_k"]
        output = filled.get("output")
        if isinstance(output, Mapping) and output.get("dtype") is None:
            filled["output"] = {**output, "dtype": _COMPACT["dtype"]}
        return filled


class JacobianConfig(Section):
    """The derivatives of the probabilities of some rows."""

    verb: Literal["jacobian"] = Field(description="what to do")
    source: SourceConfig = Field(description="where the logits are; what is left out here is found out")
    output: MatrixOutputConfig = Field(description="where the matrices go")
    rows: RowRange | None = Field(None, description='which rows, such as "0:100"; all')
    where_confidence_below: Confidence | None = Field(
        None, validate_default=True, description="of them those with a confidence below this; all, if rows are given"
    )
    limit: Count | None = Field(None, description="of them so many, the first ones; all")
    temperature: Temperature = 1.0
    memory_limit: MemoryLimit = None
    threads: Threads | None = Field(None, description="matrices are computed by this many threads; all cores")
    date: Day = None
    timezone: Zone = "UTC"
    on_missing: OnMissing = "error"
    retries: Retries = 2

    @field_validator("where_confidence_below")
    @classmethod
    def _require_choice(cls, value: float | None, info: ValidationInfo) -> float | None:
        # A matrix a row of a whole dump is seldom meant, and larger than any disk.
        if value is None and info.data.get("rows") is None:
            raise ValueError("a confidence such as 0.6, because rows does not say which rows either")
        return value


class MetricsOutputConfig(Section):
    """Where figures go."""

    path: Annotated[LocalPath, AfterValidator(_json_path)] = Field(
        description="a .json file, relative to the working directory; one of before is replaced"
    )


class EvaluateConfig(Section):
    """How good the decisions of a dump are."""

    verb: Literal["evaluate"] = Field(description="what to do")
    source: SourceConfig = Field(description="where the logits are, or what score has written")
    output: MetricsOutputConfig | None = Field(None, description="where the figures go; they are only said")
    temperature: Temperature = 1.0
    memory_limit: MemoryLimit = None
    threads: Threads | None = Field(None, description="rows are counted by this many threads; all cores")
    date: Day = None
    timezone: Zone = "UTC"
    on_missing: OnMissing = "error"
    retries: Retries = 2

    @model_validator(mode="before")
    @classmethod
    def _leave_out(cls, data: Any) -> Any:
        """Flags that name no output make a section that says nothing."""
        output = data.get("output") if isinstance(data, Mapping) else None
        says_nothing = isinstance(output, Mapping) and all(value is None for value in output.values())
        return {**data, "output": None} if says_nothing else data
