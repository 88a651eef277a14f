"""`score`, `run` and `plan`: flags or a file become one config, and the config becomes a run."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from softmax_dask_pipelines.cli.flags import config_of_flags, run_options, source_options

if TYPE_CHECKING:
    from softmax_dask_pipelines.config import ScoreConfig


@click.command(short_help="Score a dump: logits in, decisions out.")
@click.argument("source")
@click.argument("output")
@click.option("--columns", help="Names with commas between. Default: label,confidence and what else can be known.")
@source_options
@click.option("--output-format", help="zarr or parquet. Default: by the ending of OUTPUT.")
@click.option("--top-k", help="How many classes top_k_labels and top_k_probabilities hold.")
@click.option("--temperature", help="Divides the logits. Default: 1.")
@click.option("--dtype", help="float16, float32 or float64, of probabilities and log_probabilities.")
@click.option("--nonfinite", help="propagate (mark rows with NaN, +inf or only -inf) or error. Default: propagate.")
@click.option("--memory-limit", help="Of the whole process, such as 2GiB. Default: half of what is free.")
@click.option("--threads", help="Default: all cores.")
@click.option("--write-config", metavar="FILE", help="Write these flags as a config for `run`; score nothing.")
@run_options
def score(*, replace: bool, dry_run: bool, as_json: bool, quiet: bool, write_config: str | None, **given: Any) -> None:
    """Score the logits at SOURCE and write the results to OUTPUT.

    SOURCE is a Zarr group or array, a Parquet file or a folder of Parquet files, or a .npy file. OUTPUT ends in .zarr
    or .parquet; it is there when it is complete, and not before.

    \b
    Columns: label, label_name, confidence, margin, entropy, logsumexp, max_logit, probabilities,
    log_probabilities, top_k_labels, top_k_probabilities, and with a target nll, correct,
    target_rank, target_probability.

    \b
    Example:
      softmax-dask score logits.zarr decisions.parquet --columns label,confidence,entropy --target target
      softmax-dask score logits.zarr scores.zarr --temperature 1.7 --write-config score.yaml
    """
    config = config_of_flags(given)
    if write_config is not None:
        _write_config(config, write_config)
    else:
        _execute(config, replace=replace, dry_run=dry_run, as_json=as_json, quiet=quiet)


@click.command(short_help="Score as a YAML config says.")
@click.argument("config")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key, such as output.path=x.zarr."
)
@run_options
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


def _write_config(config: "ScoreConfig", path: str) -> None:
    import os
    from pathlib import Path

    from softmax_dask_pipelines.config_text import text_of_config
    from softmax_dask_pipelines.errors import OutputExistsError
    from softmax_dask_pipelines.storage import make_folder, put

    if os.path.lexists(path):
        raise OutputExistsError(f"{path}: is there already; expected a path where nothing is yet. Choose another one.")
    make_folder(Path(path).absolute().parent)
    put(Path(path), [text_of_config(config).encode()])
    click.echo(f"{path}: written; nothing is scored. Run it: softmax-dask run {path}", err=True)


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
