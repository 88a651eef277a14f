"""Flags that verbs share, and the config that flags make."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from softmax_dask_pipelines.config import ConfigT

Command = TypeVar("Command", bound=Callable[..., Any])

_KEYS = {
    "verb": "verb",
    "source": "source.path",
    "output": "output.path",
    "source_format": "source.format",
    "array": "source.array",
    "column": "source.column",
    "column_prefix": "source.column_prefix",
    "source_dtype": "source.dtype",
    "id": "source.id",
    "target": "source.target",
    "classes": "source.classes",
    "class_axis": "source.class_axis",
    "missing_chunks": "source.missing_chunks",
    "nulls": "source.nulls",
    "settle": "source.settle",
    "verify_input": "source.verify_input",
    "link": "source.link",
    "storage_option": "source.storage_options",
    "output_format": "output.format",
    "dtype": "output.dtype",
    "rename": "output.rename",
    "columns": "columns",
    "top_k": "top_k",
    "temperature": "temperature",
    "nonfinite": "nonfinite",
    "backend": "backend",
    "memory_limit": "memory_limit",
    "threads": "threads",
    "on_changed": "on_changed",
    "durability": "durability",
    "scheduler": "cluster.connect",
    "cluster": "cluster",
    "rows": "rows",
    "where_confidence_below": "where_confidence_below",
    "limit": "limit",
    "fit_on": "fit_on",
    "train_priors": "train_priors",
    "target_priors": "target_priors",
    "calibration": "calibration",
    "accept": "accept",
    "conformal": "conformal",
    "precision": "precision",
    "delta": "delta",
    "alpha": "alpha",
}
"""Parameter of `score` -> key of the config."""

_STORAGE_HELP = "Of s3://: profile, endpoint_url, region, anon, requester_pays. Default: by the environment."

_SOURCE_OPTIONS = (
    click.option("--array", help="Zarr: the array with the logits."),
    click.option("--column", help="Parquet: the list column with the logits."),
    click.option("--column-prefix", help="Parquet with one column a class: what their names begin with."),
    click.option("--id", help="Array or column of row ids, carried to the output."),
    click.option("--target", help="Array or column of true classes, numbers or class names."),
    click.option("--classes", help="File of class names, one a line or a JSON list."),
    click.option("--class-axis", help="Zarr and npy: axis of the classes, 0 or 1. Default: the last."),
    click.option("--missing-chunks", help="Zarr: error, or fill (read as the fill value). Default: error."),
    click.option("--nulls", help="Parquet: error, or abstain (the row is undecidable). Default: error."),
    click.option(
        "--settle",
        metavar="SECONDS",
        help="Of many Parquet files, one that is not whole and younger waits for another run. Default: 60.",
    ),
    click.option(
        "--verify-input",
        help="What tells that scored input has changed: metadata, or content (all is read twice more).",
    ),
    click.option("--link", help="sigmoid: the source has one logit z a row, read as 0 and z. Default: softmax."),
    click.option("--storage-option", multiple=True, metavar="KEY=VALUE", help=_STORAGE_HELP),
    click.option("--source-format", help="zarr, parquet or npy. Default: found out."),
    click.option("--source-dtype", help="bfloat16, where 16-bit integers hold its bits."),
)

_PAIRS = {
    "rename": "expected OLD=NEW, such as day=source_day, each OLD once.",
    "storage_option": "expected KEY=VALUE, such as profile=research, each KEY once.",
}
"""Flags that are given several times, a pair each; what was expected."""

_FILE_OPTIONS = (
    click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key, such as output.path=x.zarr."
    ),
    click.option(
        "--date", metavar="D", help="Day of {date:...} in paths: 2026-11-26, yesterday, today. Default: today."
    ),
)

_RUN_OPTIONS = (
    click.option("--replace", is_flag=True, help="Swap an output that is there for the new one."),
    click.option("--dry-run", is_flag=True, help="Check everything and print the plan; write nothing."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else, on stdout."),
    click.option("--quiet", is_flag=True, help="No progress and no summary."),
)


_CLUSTER_OPTIONS = (
    click.option("--cluster", help="local (threads) or processes. Default: local. A config file can say more."),
    click.option("--scheduler", metavar="ADDRESS", help="Of a Dask scheduler, or its scheduler file: score there."),
    click.option("--dashboard", is_flag=True, help="Print the address of Dask's dashboard: of processes or a cluster."),
)


def source_options(command: Command) -> Command:
    """What can be said of a source."""
    return _with(command, _SOURCE_OPTIONS)


def storage_options(command: Command) -> Command:
    """How what is on s3:// is reached: a dict, None where nothing is said."""
    return click.option(
        "--storage-option",
        "storage_options",
        multiple=True,
        metavar="KEY=VALUE",
        help=_STORAGE_HELP,
        callback=lambda _, __, texts: _pairs("storage_option", texts) or None,
    )(command)


def file_options(command: Command) -> Command:
    """What verbs that read a config file share: what is other than in the file."""
    return _with(command, _FILE_OPTIONS)


def run_options(command: Command) -> Command:
    """What `score` and `run` share: how to run, not what."""
    return _with(command, _RUN_OPTIONS)


def cluster_options(command: Command) -> Command:
    """What `score` and `run` share: where to run."""
    return _with(command, _CLUSTER_OPTIONS)


def config_of_flags(model: type["ConfigT"], given: dict[str, Any]) -> "ConfigT":
    """The config that the parameters of a verb make; an error names the flag."""
    from softmax_dask_pipelines.config import cluster_of_flags, make_config, tell_both_ends

    data: dict[str, Any] = {"source": {}, "output": {}}
    for cluster in cluster_of_flags(given).values():
        data["cluster"] = cluster
    for name, value in given.items():
        if value is None or value == () or name in ("cluster", "scheduler", "dashboard"):
            continue
        section, _, key = _KEYS[name].rpartition(".")
        (data[section] if section else data)[key] = _value(name, value)
    tell_both_ends(data)
    return make_config(model, data, _flag_of)


def _with(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def _value(name: str, text: Any) -> Any:
    if name == "columns":
        return [column.strip() for column in text.split(",")]
    if name in _PAIRS:
        return _pairs(name, text)
    whole = name == "class_axis" and text.removeprefix("-").isdecimal()
    return int(text) if whole else text


def _pairs(name: str, texts: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key in pairs:
            from softmax_dask_pipelines.errors import ConfigError

            shown = f"is {text!r}" if name == "rename" else "is no such pair"  # it may be a credential
            raise ConfigError(f"--{name.replace('_', '-')}: {shown}; {_PAIRS[name]}")
        pairs[key] = value
    return pairs


def _flag_of(place: Sequence[str | int]) -> str:
    """The flag that sets the config key at `place`."""
    names = [str(part) for part in place if isinstance(part, str)]
    key = next((name for name, path in _KEYS.items() if path.split(".") == names[: path.count(".") + 1]), names[-1])
    return key.upper() if key in ("source", "output") else f"--{key.replace('_', '-')}"
