"""What a run is told: one model for YAML files, flags and Python, and errors that name the line or the flag."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from dask.utils import parse_bytes
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails

from softmax_dask import COLUMNS
from softmax_dask_pipelines.errors import ConfigError, PermissionDeniedError

Where = Callable[[Sequence[str | int]], str]
"""From the place of a value in the config to what an error begins with: a file and line, a flag, a key."""


_ENDINGS = {".zarr": "zarr", ".parquet": "parquet", ".pq": "parquet"}


def _known_column(name: str) -> str:
    if name not in COLUMNS:
        raise ValueError(f"one of {', '.join(COLUMNS)}")
    return name


ColumnName = Annotated[str, AfterValidator(_known_column), WithJsonSchema({"enum": list(COLUMNS)})]


def _usable_temperature(value: float) -> float:
    if not 1e-300 <= value <= 1e300:  # NaN fails too
        raise ValueError("a finite number above 0 (1e-300 to 1e300)")
    return value


def _local_with_known_ending(path: str, info: ValidationInfo) -> str:
    path = path.removeprefix("file://")
    if "://" in path:
        raise ValueError("a local path")
    if info.data.get("format") is None and output_format_of(path) is None:
        raise ValueError(f"a path that ends in {', '.join(_ENDINGS)}, or a format beside it")
    return path


def output_format_of(path: str) -> Any:
    """Format that the ending of an output's path means; None where it means none."""
    return _ENDINGS.get(Path(path).suffix)


def _bytes_of_text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_bytes(value)
    except ValueError as error:
        raise ValueError("a number of bytes such as 2GiB or 500MB") from error


Bytes = Annotated[int, BeforeValidator(_bytes_of_text), Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceConfig(_Section):
    """Where the logits are. Everything but `path` is found out when it is left out."""

    path: str = Field(
        min_length=1, description="Zarr store, Parquet file or folder, or .npy file; relative to the working directory"
    )
    format: Literal["zarr", "parquet", "npy"] | None = Field(None, description="found out from what is there")
    array: str | None = Field(None, description="Zarr: the array with the logits, by its path inside the group")
    column: str | None = Field(None, description="Parquet: the list column with the logits")
    column_prefix: str | None = Field(None, description="Parquet, one column a class: what their names begin with")
    dtype: Literal["bfloat16"] | None = Field(None, description="bfloat16: 16-bit integers hold bfloat16 bits")
    id: str | None = Field(None, description="array or column of row ids, carried to the output")
    target: str | None = Field(None, description="array or column of true classes, numbers or class names")
    classes: str | None = Field(None, description="file of class names, one a line, or a JSON list")
    class_axis: Literal[-2, -1, 0, 1] | None = Field(
        None, description="Zarr and npy: the axis of the classes; the last"
    )
    missing_chunks: Literal["error", "fill"] = Field(
        "error", description="Zarr: a chunk that is not there is an error, or reads as the fill value"
    )
    nulls: Literal["error", "abstain"] = Field(
        "error", description="Parquet: a null row, or a null in a row, is an error, or makes the row undecidable"
    )
    link: Literal["softmax", "sigmoid"] = Field(
        "softmax", description="sigmoid: one logit z a row, read as the two logits 0 and z"
    )


class OutputConfig(_Section):
    """Where the results go."""

    format: Literal["zarr", "parquet"] | None = Field(None, description="found out from the ending of the path")
    path: Annotated[str, AfterValidator(_local_with_known_ending)] = Field(
        min_length=1, description="a folder that is not there yet; relative to the working directory"
    )
    dtype: Literal["float16", "float32", "float64"] | None = Field(
        None, description="of probabilities and log_probabilities; else that of the other columns"
    )


class ScoreConfig(_Section):
    """One scoring run."""

    source: SourceConfig
    output: OutputConfig
    columns: tuple[ColumnName, ...] | None = Field(
        None, min_length=1, description="label and confidence; label_name, nll and correct where they can be known"
    )
    top_k: int | None = Field(None, gt=0, description="for top_k_labels and top_k_probabilities: how many classes")
    temperature: Annotated[float, AfterValidator(_usable_temperature)] = Field(1.0, description="divides the logits")
    nonfinite: Literal["propagate", "error"] = Field(
        "propagate", description="rows with NaN, +inf or only -inf: mark them in the output, or refuse"
    )
    memory_limit: Bytes | None = Field(None, description="of the whole process, such as 2GiB; half of what is free")
    threads: int | None = Field(None, gt=0, description="rows are scored by this many threads; all cores")


def read_config(path: str, overrides: Sequence[str] = ()) -> ScoreConfig:
    """The config in a YAML file, after `key=value` overrides (`output.path=x`).

    Raises
    ------
    ConfigError
        The file is not there or not YAML, or a key or value is wrong; file, line and key stand first.
    """
    text = _read_text(path)
    try:
        data, tree = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: is no YAML: {getattr(error, 'problem', error)}.") from error
    for number, fault in _faults(tree, set()):
        raise ConfigError(f"{path}:{number}: {fault}")
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds {type(data).__name__}; expected keys such as source: and output:.")
    changed = {_override(data, text) for text in overrides}
    return make_config(data, lambda loc: _place(path, tree, loc, changed))


def make_config(data: Mapping[str, Any], where: Where) -> ScoreConfig:
    """The config in nested dicts.

    Raises
    ------
    ConfigError
        A key or value is wrong. The message begins with `where(place)`.
    """
    try:
        return ScoreConfig.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{where(first['loc'])}: {_explain(first)}") from None


def read_class_names(path: str) -> tuple[str, ...]:
    """Class names from a file: a JSON list, or one name a line."""
    text = _read_text(path)
    try:
        names = json.loads(text) if text.lstrip().startswith("[") else text.splitlines()
    except ValueError as error:
        raise ConfigError(f"{path}: begins as a JSON list and is none: {error}.") from error
    if not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{path}: holds no class names; expected one name a line, or a JSON list of texts.")
    return tuple(names)


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: is not there; expected a file. Check the path.") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path}: is a folder; expected a file.") from error
    except PermissionError as error:
        raise PermissionDeniedError(f"{path}: cannot be read; expected a file that you may read.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text; expected a text file.") from error


def _override(data: dict[str, Any], text: str) -> tuple[str, ...]:
    """Put one `key=value` into `data`; the key's path."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {text}: expected key=value, such as output.path=scores.zarr.")
    *outer, last = path = tuple(key.split("."))
    section = data
    for name in outer:
        section = section.setdefault(name, {})
        if not isinstance(section, dict):
            raise ConfigError(f"--set {text}: {name} is no section; expected a key such as output.path.")
    section[last] = yaml.safe_load(value)
    return path


def _faults(node: yaml.Node | None, seen: set[int]) -> Iterator[tuple[int, str]]:
    """Line and fault of what YAML allows and a config does not: aliases (a few of them make a bomb), keys twice."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return
    if id(node) in seen:
        yield node.start_mark.line + 1, "is used again by an alias; expected no aliases. Write it out."
        return
    seen.add(id(node))
    keys: set[Any] = set()
    for child in node.value:
        key, value = child if isinstance(node, yaml.MappingNode) else (None, child)
        if key is not None and key.value in keys:
            yield key.start_mark.line + 1, f"{key.value}: stands twice; expected each key once. Take one out."
        keys |= {key.value} if isinstance(key, yaml.ScalarNode) else set()
        yield from _faults(value, seen)


def _place(path: str, tree: yaml.Node | None, loc: Sequence[str | int], changed: set[tuple[str, ...]]) -> str:
    """`file:line: key`, of the innermost part of `loc` that the file has; of an override the flag."""
    for override in changed:
        if tuple(loc[: len(override)]) == override:
            return f"--set {'.'.join(override)}"
    node, line = tree, 1
    for step in loc:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        found = next((pair for pair in pairs if pair[0].value == step), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return f"{path}:{line}: {key_of(loc)}"


def key_of(loc: Sequence[str | int]) -> str:
    """The key that people write: `output.path` of ("output", "path")."""
    keys = [str(part) for part in loc if isinstance(part, str)]
    return ".".join(keys) or "the config"


def _explain(error: ErrorDetails) -> str:
    value = error.get("input")
    if error["type"] == "extra_forbidden":
        return _unknown_key([str(part) for part in error["loc"]])
    if error["type"] == "missing":
        return "is missing; expected a value."
    message = str(error.get("ctx", {}).get("error", error["msg"]))
    expected = message.removeprefix("Value error, ").replace("Input should be ", "").replace("String should have ", "")
    nearest = get_close_matches(str(value), COLUMNS, n=1) if error["loc"][0] == "columns" else []
    return f"is {value!r}; expected {expected}." + (f" Did you mean {nearest[0]!r}?" if nearest else "")


def _unknown_key(loc: list[str]) -> str:
    sections: dict[str, type[BaseModel]] = {"source": SourceConfig, "output": OutputConfig}
    model = sections.get(loc[0], ScoreConfig) if len(loc) > 1 else ScoreConfig
    nearest = get_close_matches(loc[-1], model.model_fields, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"is no key; expected one of {', '.join(model.model_fields)}.{hint}"
