"""`score`, `run` and `plan`: flags or a file become one config, and the config becomes a run."""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from softmax_dask_pipelines.config import ScoreConfig

Command = TypeVar("Command", bound=Callable[..., Any])

_KEYS = {
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
    "link": "source.link",
    "output_format": "output.format",
    "dtype": "output.dtype",
    "columns": "columns",
    "top_k": "top_k",
    "temperature": "temperature",
    "nonfinite": "nonfinite",
    "memory_limit": "memory_limit",
    "threads": "threads",
}
"""Parameter of `score` -> key of the config."""


def _run_options(command: Command) -> Command:
    """What `score` and `run` share: how to run, not what."""
    options = (
        click.option("--replace", is_flag=True, help="Swap an output that is there for the new one."),
        click.option("--dry-run", is_flag=True, help="Check everything and print the plan; write nothing."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else, on stdout."),
        click.option("--quiet", is_flag=True, help="No progress and no summary."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command(short_help="Score a dump: logits in, decisions out.")
@click.argument("source")
@click.argument("output")
@click.option("--columns", help="Names with commas between. Default: label,confidence and what else can be known.")
@click.option("--array", help="Zarr: the array with the logits.")
@click.option("--column", help="Parquet: the list column with the logits.")
@click.option("--column-prefix", help="Parquet with one column a class: what their names begin with.")
@click.option("--id", help="Array or column of row ids, carried to the output.")
@click.option("--target", help="Array or column of true classes, numbers or class names.")
@click.option("--classes", help="File of class names, one a line or a JSON list.")
@click.option("--class-axis", help="Zarr and npy: axis of the classes, 0 or 1. Default: the last.")
@click.option("--missing-chunks", help="Zarr: error, or fill (read as the fill value). Default: error.")
@click.option("--nulls", help="Parquet: error, or abstain (the row is undecidable). Default: error.")
@click.option("--link", help="sigmoid: the source has one logit z a row, read as 0 and z. Default: softmax.")
@click.option("--source-format", help="zarr, parquet or npy. Default: found out.")
@click.option("--source-dtype", help="bfloat16, where 16-bit integers hold its bits.")
@click.option("--output-format", help="zarr or parquet. Default: by the ending of OUTPUT.")
@click.option("--top-k", help="How many classes top_k_labels and top_k_probabilities hold.")
@click.option("--temperature", help="Divides the logits. Default: 1.")
@click.option("--dtype", help="float16, float32 or float64, of probabilities and log_probabilities.")
@click.option("--nonfinite", help="propagate (mark rows with NaN, +inf or only -inf) or error. Default: propagate.")
@click.option("--memory-limit", help="Of the whole process, such as 2GiB. Default: half of what is free.")
@click.option("--threads", help="Default: all cores.")
@_run_options
def score(*, replace: bool, dry_run: bool, as_json: bool, quiet: bool, **given: Any) -> None:
    """Score the logits at SOURCE and write the results to OUTPUT.

    SOURCE is a Zarr group or array, a Parquet file or a folder of Parquet files. OUTPUT ends in .zarr or .parquet;
    it is there when it is complete, and not before.

    \b
    Columns: label, label_name, confidence, margin, entropy, logsumexp, max_logit, probabilities,
    log_probabilities, and with a target nll, correct, target_rank, target_probability.

    \b
    Example:
      softmax-dask score logits.zarr decisions.parquet --columns label,confidence,entropy --target target
    """
    config = _config_of_flags(given)
    _execute(config, replace=replace, dry_run=dry_run, as_json=as_json, quiet=quiet)


@click.command(short_help="Score as a YAML config says.")
@click.argument("config")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key, such as output.path=x.zarr."
)
@_run_options
def run(*, config: str, overrides: Sequence[str], replace: bool, dry_run: bool, as_json: bool, quiet: bool) -> None:
    """Score as the YAML file CONFIG says. Paths in it are relative to the working directory.

    \b
    Example:
      softmax-dask run configs/score_zarr.yaml --set temperature=1.7
    """
    from softmax_dask_pipelines.config import read_config

    _execute(read_config(config, overrides), replace=replace, dry_run=dry_run, as_json=as_json, quiet=quiet)


@click.command(short_help="Print what a config would do; write nothing.")
@click.argument("config")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key, such as threads=4.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plan(*, config: str, overrides: Sequence[str], as_json: bool) -> None:
    """Check CONFIG against its source, and print partitions, bytes and memory. Nothing is written.

    \b
    Example:
      softmax-dask plan configs/score_zarr.yaml
    """
    from softmax_dask_pipelines.config import read_config

    _print_plan(read_config(config, overrides), replace=False, as_json=as_json, quiet=False)


def _config_of_flags(given: dict[str, Any]) -> "ScoreConfig":
    from softmax_dask_pipelines.config import make_config

    data: dict[str, Any] = {"source": {}, "output": {}}
    for name, value in given.items():
        if value is None:
            continue
        section, _, key = _KEYS[name].rpartition(".")
        (data[section] if section else data)[key] = _columns(value) if name == "columns" else value
    return make_config(data, _flag_of)


def _columns(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _flag_of(place: Sequence[str | int]) -> str:
    """The flag that sets the config key at `place`."""
    names = [str(part) for part in place if isinstance(part, str)]
    key = next((name for name, path in _KEYS.items() if path.split(".") == names[: path.count(".") + 1]), names[-1])
    return key.upper() if key in ("source", "output") else f"--{key.replace('_', '-')}"


def _execute(config: "ScoreConfig", *, replace: bool, dry_run: bool, as_json: bool, quiet: bool) -> None:
    if dry_run:
        _print_plan(config, replace=replace, as_json=as_json, quiet=quiet)
        return
    from softmax_dask_pipelines.cli.progress import progress
    from softmax_dask_pipelines.job import prepare
    from softmax_dask_pipelines.scoring import execute
    from softmax_dask_pipelines.summary import text_of_run

    job = prepare(config)
    with progress(job, quiet=quiet or as_json) as on_receipt:
        result = execute(job, replace=replace, on_receipt=on_receipt)
    if as_json:
        click.echo(json.dumps(result.facts(), indent=2))
    elif not quiet:
        click.echo(text_of_run(result))


def _print_plan(config: "ScoreConfig", *, replace: bool, as_json: bool, quiet: bool) -> None:
    from softmax_dask_pipelines.job import prepare
    from softmax_dask_pipelines.summary import facts_of_plan, text_of_plan

    job = prepare(config)
    if as_json:
        click.echo(json.dumps(facts_of_plan(job), indent=2))
    elif not quiet:
        click.echo(text_of_plan(job))
