"""`compact`: a dump reduced to the k largest classes of each row."""

from typing import Any

import click

from softmax_dask_pipelines.cli.flags import cluster_options, config_of_flags, run_options, source_options
from softmax_dask_pipelines.cli.running import carry_out, write_config_file


@click.command(short_help="Reduce a dump to the k largest classes of each row.")
@click.argument("source")
@click.argument("output")
@click.option("--k", "--top-k", "top_k", metavar="K", help="How many classes of each row are kept. Default: 64.")
@click.option("--dtype", help="float16, float32 or float64, of the log-probabilities. Default: float16.")
@click.option(
    "--columns",
    help="Names with commas between. Default: top_k_labels,top_k_log_probabilities,logsumexp,tail_mass,"
    "tail_divergence, and with a target nll.",
)
@source_options
@click.option("--output-format", help="zarr or parquet. Default: by the ending of OUTPUT.")
@click.option("--temperature", help="Divides the logits. Default: 1.")
@click.option(
    "--rename", multiple=True, metavar="OLD=NEW", help="What carried ids or a Hive key is called in the output."
)
@click.option("--nonfinite", help="propagate (mark rows with NaN, +inf or only -inf) or error. Default: propagate.")
@click.option("--backend", help="cpu, cuda (an NVIDIA GPU) or auto (one if it works, else the CPU). Default: cpu.")
@click.option("--memory-limit", help="Of the whole process, such as 2GiB. Default: half of what is free.")
@click.option("--threads", help="Default: all cores.")
@click.option("--on-changed", help="What was compacted has changed in SOURCE: error, rescore (all) or ignore.")
@click.option("--durability", help="fsync, or none: what is written may be lost when the machine stops.")
@click.option("--write-config", metavar="FILE", help="Write these flags as a config for `run`; do nothing else.")
@cluster_options
@run_options
def compact(
    *, replace: bool, dry_run: bool, as_json: bool, quiet: bool, write_config: str | None, **given: Any
) -> None:
    """Reduce the logits at SOURCE to the K largest classes of each row, for distillation and audit.

    OUTPUT has for each row the labels of these classes and their log-probabilities, the logsumexp of the row, the
    probability of all other classes together (tail_mass), and what is lost where it is spread over them evenly
    (tail_divergence, a Kullback-Leibler divergence in nats). With a target, nll is minus its log-probability.
    `softmax_dask_pipelines.open_compact` reads it back, lazily.

    \b
    Example:
      softmax-dask compact logits.zarr teacher.zarr --k 20
    """
    from softmax_dask_pipelines.config import ScoreConfig

    config = config_of_flags(ScoreConfig, {"verb": "compact", **given})
    if write_config is not None:
        write_config_file(config, write_config)
    else:
        carry_out(config, replace=replace, dry_run=dry_run, as_json=as_json, quiet=quiet)
