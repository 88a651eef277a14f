"""A config from a YAML file, from flags or from Python, and errors that name the line, the flag or the key."""

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from softmax_dask import COLUMNS
from softmax_dask_pipelines.addresses import is_address, is_credential, redacted, without_credentials
from softmax_dask_pipelines.config_cluster import ClusterConfig
from softmax_dask_pipelines.config_models import (
    EvaluateConfig,
    JacobianConfig,
    MatrixOutputConfig,
    MetricsOutputConfig,
    OutputConfig,
    ScoreConfig,
    SourceConfig,
    output_format_of,
)
from softmax_dask_pipelines.config_paths import Where, fill_paths
from softmax_dask_pipelines.config_store import StorageOptions
from softmax_dask_pipelines.config_verbs import (
    MODELS,
    CalibrateConfig,
    Config,
    ConformalConfig,
    FitConfig,
    ThresholdConfig,
)
from softmax_dask_pipelines.config_yaml import MAX_BYTES, line_of, parse_value, parse_yaml
from softmax_dask_pipelines.errors import ConfigError, PermissionDeniedError

__all__ = [
    "CalibrateConfig",
    "ClusterConfig",
    "Config",
    "ConformalConfig",
    "EvaluateConfig",
    "FitConfig",
    "JacobianConfig",
    "MatrixOutputConfig",
    "MetricsOutputConfig",
    "OutputConfig",
    "ScoreConfig",
    "SourceConfig",
    "ThresholdConfig",
    "cluster_of_flags",
    "key_of",
    "make_config",
    "options_of_stores",
    "output_format_of",
    "read_class_names",
    "read_config",
    "require_distributed",
]

_NAMES_BYTES = 64 * 2**20
"""Of a file of class names: far more than any model has."""

_OF_A_KEY = "[key]"
"""Where pydantic finds fault with the key of a mapping, and not with its value."""

_EXPECTED = {
    "string_type": "text",
    "string_unicode": "text that is UTF-8",
    "tuple_type": "a list such as [label, confidence]",
}
"""Pydantic's type of an error -> what was expected, in the words of people who write YAML."""


ConfigT = TypeVar("ConfigT", bound=BaseModel)


def tell_both_ends(data: dict[str, Any]) -> None:
    """Of flags and arguments, what is said of stores is said of all: source and output are most often in one."""
    options = data["source"].pop("storage_options", None)
    if options is None:
        return
    ends = [end for end in ("source", "output") if is_address(str(data[end].get("path", "")))]
    for end in ends or ["source"]:
        data[end]["storage_options"] = options


def make_config(model: type[ConfigT], data: Mapping[str, Any], where: Where) -> ConfigT:
    """The config in nested dicts.

    Raises
    ------
    ConfigError
        A key or value is wrong. The message begins with `where(place)`.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        # A key that is misspelt comes first: another that is missing may be just that one.
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        raise ConfigError(f"{where(first['loc'])}: {_explain(first, model)}") from None


def options_of_stores(given: Mapping[str, Any] | None) -> StorageOptions | None:
    """What a function was told of stores, checked."""
    return None if given is None else make_config(StorageOptions, given, lambda loc: f"storage_options.{key_of(loc)}")


def read_config(
    path: str, overrides: Sequence[str] = (), *, date: str | None = None, flags: Mapping[str, Any] | None = None
) -> Config:
    """The config in a YAML file, after `key=value` overrides (`output.path=x`), its paths filled in.

    Parameters
    ----------
    date : a day such as "2026-11-26", "today" or "yesterday", for `{date:...}` in paths; default the config's, or today
    flags : `cluster`, `scheduler` and `dashboard`, as the command line's flags of these names

    Raises
    ------
    ConfigError
        The file is not there or not YAML, or a key or value is wrong; file, line and key stand first.
    """
    text = _read_text(path, at_most=MAX_BYTES, expected="a config of a few lines")
    data, tree = parse_yaml(text, lambda line: path if line is None else f"{path}:{line}")
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds {type(data).__name__}; expected keys such as source: and output:.")
    given = {_override(data, text): "--set" for text in overrides}
    if date is not None:
        data["date"] = date
        given["date",] = "--date"
    for name, cluster in cluster_of_flags(flags or {}, told=data.get("cluster", "local")).items():
        data["cluster"] = cluster
        given["cluster",] = f"--{name}"

    def where(loc: Sequence[str | int]) -> str:
        return _place(path, tree, loc, given)

    fill_paths(data, where)
    return make_config(_model_of(data, where), data, where)


def read_class_names(path: str) -> tuple[str, ...]:
    """Class names from a file: a JSON list, or one name a line."""
    text = _read_text(path, at_most=_NAMES_BYTES, expected="class names, one a line")
    try:
        names = json.loads(text) if text.lstrip().startswith("[") else text.splitlines()
    except ValueError as error:
        raise ConfigError(f"{path}: begins as a JSON list and is none: {error}.") from error
    if not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{path}: holds no class names; expected one name a line, or a JSON list of texts.")
    return tuple(names)


def cluster_of_flags(flags: Mapping[str, Any], told: Any = "local") -> dict[str, Any]:
    """The flag that says where to score, if one does, and what it is in a config; `told` is what a config has.

    Raises
    ------
    ConfigError
        Two of them say it, or a dashboard is wanted where there is none.
    """
    given = {name: flags[name] for name in ("cluster", "scheduler") if flags.get(name) is not None}
    if len(given) > 1:
        raise ConfigError("--cluster, --scheduler: are both given; expected one of the two.")
    found = {name: value if name == "cluster" else {"connect": value} for name, value in given.items()}
    if not flags.get("dashboard"):
        return found
    name, cluster = next(iter(found.items()), ("dashboard", told))
    if cluster == "local":
        raise ConfigError(
            "--dashboard: is given for a run on threads, which have none; expected processes or a Dask cluster. "
            "Add --cluster processes."
        )
    section = {"kind": cluster} if cluster == "processes" else cluster
    return {name: {**section, "dashboard": True} if isinstance(section, dict) else section}


def require_distributed(cluster: ClusterConfig) -> None:
    """Refuse a cluster where the package for it is missing.

    Raises
    ------
    ConfigError
        It is, and the message says how to get it.
    """
    if cluster.kind != "local" and find_spec("distributed") is None:
        raise ConfigError(
            f"cluster: is {cluster.kind}, which needs the package distributed, and that is not there. "
            "Install it (pip install 'softmax-dask[distributed]'), or use cluster: local."
        )


def key_of(loc: Sequence[str | int]) -> str:
    """The key that people write: `output.path` of ("output", "path")."""
    keys = [part for part in loc if isinstance(part, str) and part != _OF_A_KEY]
    return ".".join(keys) or "the config"


def _model_of(data: Mapping[str, Any], where: Where) -> type[Config]:
    verb = data.get("verb", "score")
    model = MODELS.get(verb) if isinstance(verb, str) else None
    if model is None:
        raise ConfigError(f"{where(('verb',))}: is {_shown(verb)}; expected one of {', '.join(MODELS)}.")
    return model


def _read_text(path: str, *, at_most: int, expected: str) -> str:
    try:
        # Not by its size: /dev/zero, and the pipe of a shell's `<(...)`, have none.
        with open(path, "rb") as file:
            data = file.read(at_most + 1)
        if len(data) > at_most:
            raise ConfigError(f"{path}: is larger than {at_most:,} bytes; expected {expected}.")
        return data.decode().replace("\r\n", "\n").replace("\r", "\n")
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
            shown = f"{key}=..." if is_credential(key) else text
            raise ConfigError(f"--set {shown}: {name} is no section; expected a key such as output.path.")
    section[last] = parse_value(value, lambda line: f"--set {key}")
    return path


def _place(path: str, tree: yaml.Node | None, loc: Sequence[str | int], flags: Mapping[tuple[str, ...], str]) -> str:
    """`file:line: key`, of the innermost part of `loc` that the file has; of an override the flag."""
    for keys, flag in flags.items():
        if tuple(loc[: len(keys)]) == keys:
            return f"{flag} {key_of(loc)}" if flag == "--set" else flag
    return f"{path}:{line_of(tree, tuple(loc))}: {key_of(loc)}"


def _explain(error: ErrorDetails, model: type[BaseModel]) -> str:
    value = error.get("input")
    if error["type"] == "extra_forbidden" and is_credential(str(error["loc"][-1])):
        return without_credentials()
    if error["type"] == "extra_forbidden":
        return _unknown_key([str(part) for part in error["loc"]], model)
    if error["type"] == "missing":
        return "is missing; expected a value."
    # Whoever has put a credential there has made a mistake that logs need not repeat.
    is_open = "storage_options" not in error["loc"]
    shown = "missing" if value is None else _shown(value) if is_open else "not what it can be"
    return f"is {shown}; expected {_expected(error, model)}.{_remedy(error, value)}"


def _shown(value: Any) -> str:
    text = redacted(repr(value))
    return text if len(text) <= 200 else f"{text[:200]}..."


def _expected(error: ErrorDetails, model: type[BaseModel]) -> str:
    if error["type"] == "model_type":
        return f"a section with keys of its own, such as {_first_key(_section_at(error['loc'], model))}:"
    message = str(error.get("ctx", {}).get("error", error["msg"])).removeprefix("Value error, ")
    plain = message.replace("Input should be ", "").replace("String should have ", "")
    return _EXPECTED.get(error["type"], plain)


def _remedy(error: ErrorDetails, value: Any) -> str:
    if error["type"] == "string_type" and isinstance(value, bool | int | float):
        return " Write it in quotes."
    if error["type"] == "string_unicode":
        return " Rename the file, or give a link to it whose name is UTF-8."
    nearest = get_close_matches(str(value), COLUMNS, n=1) if error["loc"][0] == "columns" else []
    return f" Did you mean {nearest[0]!r}?" if nearest and nearest[0] != value else ""


def _unknown_key(loc: list[str], model: type[BaseModel]) -> str:
    keys = [field.alias or name for name, field in _section_at(loc[:-1], model).model_fields.items()]
    nearest = get_close_matches(loc[-1], keys, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"is no key; expected one of {', '.join(keys)}.{hint}"


def _section_at(loc: Sequence[str | int], model: type[BaseModel]) -> type[BaseModel]:
    """The model of the section that these keys lead to."""
    section: Any = model
    for key in loc:
        annotation = section.model_fields[key].annotation
        section = next((kind for kind in get_args(annotation) if kind is not type(None)), annotation)
    return section  # type: ignore[no-any-return]


def _first_key(section: type[BaseModel]) -> str:
    """One that must be given, where there is one."""
    fields = section.model_fields
    return next((key for key, field in fields.items() if field.is_required()), next(iter(fields)))
