"""`score`, `run` and `plan`: flags or a file become a config, and the config becomes a run."""

from collections.abc import Sequence
from typing import Any

import click

from softmax_dask_pipelines.cli.flags import cluster_options, config_of_flags, file_options, run_options, source_options
from softmax_dask_pipelines.cli.running import carry_out, print_plan, write_config_file


@click.command(short_help="Score a dump: logits in, decisions out.")
@click.argument("source")
@click.argument("output")
@click.option("--columns", help="Names with commas between. Default: label,confidence and what else can be known.")
@source_options
@click.option("--output-format", help="zarr or parquet. Default: by the ending of OUTPUT.")
@click.option("--top-k", help="How many classes top_k_labels and top_k_probabilities hold.")
@click.option("--temperature", help="Divides the logits. Default: 1.")
@click.option("--calibration", metavar="FILE", help="What `calibrate` wrote: the temperature, and a shift of priors.")
@click.option("--accept", metavar="FILE", help="What `threshold` wrote, for the column accept.")
@click.option("--conformal", metavar="FILE", help="What `conformal` wrote, for the column conformal_set.")
@click.option("--dtype", help="float16, float32 or float64, of probabilities and log_probabilities.")
@click.option(
    "--rename", multiple=True, metavar="OLD=NEW", help="What carried ids or a Hive key is called in the output."
)
@click.option("--nonfinite", help="propagate (mark rows with NaN, +inf or only -inf) or error. Default: propagate.")
@click.option("--backend", help="cpu, cuda (an NVIDIA GPU) or auto (one if it works, else the CPU). Default: cpu.")
@click.option("--memory-limit", help="Of the whole process, such as 2GiB. Default: half of what is free.")
@click.option("--threads", help="Default: all cores.")
@click.option("--on-changed", help="What was scored has changed in SOURCE: error, rescore (all) or ignore.")
@click.option("--durability", help="fsync, or none: what is written may be lost when the machine stops.")
@click.option("--write-config", metavar="FILE", help="Write these flags as a config for `run`; score nothing.")
@cluster_options
@run_options
def score(*, replace: bool, dry_run: bool, as_json: bool, quiet: bool, write_config: str | None, **given: Any) -> None:
    """Score the logits at SOURCE and write the results to OUTPUT.

    SOURCE is a Zarr group or array, a Parquet file or a folder of Parquet files, or a .npy file. OUTPUT ends in .zarr
    or .parquet; it is there when it is complete, and not before.

    \b
    Columns: label, label_name, confidence, margin, entropy, logsumexp, max_logit, probabilities,
    log_probabilities, top_k_labels, top_k_probabilities, and with a target nll, correct,
    target_rank, target_probability, brier; with --accept accept, with --conformal conformal_set.

    \b
    Example:
      softmax-dask score logits.zarr decisions.parquet --columns label,confidence,entropy --target target
      softmax-dask score logits.zarr scores.zarr --temperature 1.7 --write-config score.yaml
    """
    from softmax_dask_pipelines.config import ScoreConfig

    config = config_of_flags(ScoreConfig, given)
    if write_config is not None:
        write_config_file(config, write_config)
    else:
        carry_out(config, replace=replace, dry_run=dry_run, as_json=as_json, quiet=quiet)


@click.command(short_help="Do what a YAML config says.")
@click.argument("config")
@file_options
@cluster_options
@run_options
def run(
    *,
    config: str,
    overrides: Sequence[str],
    date: str | None,
    cluster: str | None,
    scheduler: str | None,
    dashboard: bool,
    replace: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Score, or write Jacobians, as the YAML file CONFIG says. Paths in it are relative to the working directory.

    \b
    Example:
      softmax-dask run configs/score_zarr.yaml --set temperature=1.7
    """
    from softmax_dask_pipelines.config import read_config

    flags = {"cluster": cluster, "scheduler": scheduler, "dashboard": dashboard}
    read = read_config(config, overrides, date=date, flags=flags)
    carry_out(read, replace=replace, dry_run=dry_run, as_json=as_json, quiet=quiet)


@click.command(short_help="Print what a config would do; write nothing.")
@click.argument("config")
@file_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plan(*, config: str, overrides: Sequence[str], date: str | None, as_json: bool) -> None:
    """Check CONFIG against its source, and print partitions, bytes and memory. Nothing is written.

    \b
    Example:
      softmax-dask plan configs/score_zarr.yaml
    """
    from softmax_dask_pipelines.config import read_config

    print_plan(read_config(config, overrides, date=date), as_json=as_json, quiet=False)
