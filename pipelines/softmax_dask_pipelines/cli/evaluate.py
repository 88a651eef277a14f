"""`evaluate`: how good the decisions of a dump are."""

from typing import Any

import click

from softmax_dask_pipelines.cli.flags import config_of_flags, run_options, source_options
from softmax_dask_pipelines.cli.running import carry_out, write_config_file


@click.command(short_help="Say how good a dump's decisions are: accuracy, NLL, calibration, risk.")
@click.argument("source")
@click.option("-o", "--output", metavar="FILE", help="Also write the figures as a .json file: docs/metrics.md.")
@source_options
@click.option("--temperature", help="Divides the logits. Default: 1.")
@click.option("--memory-limit", help="Of the whole process, such as 2GiB. Default: half of what is free.")
@click.option("--threads", help="Default: all cores.")
@click.option("--write-config", metavar="FILE", help="Write these flags as a config for `run`; do nothing else.")
@run_options
def evaluate(
    *, replace: bool, dry_run: bool, as_json: bool, quiet: bool, write_config: str | None, **given: Any
) -> None:
    """Read the logits at SOURCE once, and say how good their decisions are.

    With a target: accuracy, top-k accuracy, NLL, Brier score, calibration (ECE, MCE), risk against coverage,
    precision and recall of each class, the most frequent confusions. Without: confidence, entropy, counts.
    SOURCE may also be what `score` has written: its runs have counted, and no logits are read.

    \b
    Example:
      softmax-dask evaluate logits.zarr -o metrics.json
    """
    from softmax_dask_pipelines.config import EvaluateConfig

    config = config_of_flags(EvaluateConfig, {"verb": "evaluate", **given})
    if write_config is not None:
        write_config_file(config, write_config)
    else:
        carry_out(config, replace=replace, dry_run=dry_run, as_json=as_json, quiet=quiet)
