"""`jacobian`: the derivatives of some rows."""

from typing import Any

import click

from softmax_dask_pipelines.cli.flags import config_of_flags, run_options, source_options
from softmax_dask_pipelines.cli.running import carry_out, write_config_file


@click.command(short_help="Write the Jacobians of some rows.")
@click.argument("source")
@click.argument("output")
@click.option("--rows", metavar="A:B", help="Rows A to B - 1 of the dump, such as 0:100 or 5000:.")
@click.option("--where-confidence-below", metavar="C", help="Only rows whose largest probability is below C.")
@click.option("--limit", metavar="N", help="At most so many rows, the first ones.")
@source_options
@click.option("--temperature", help="Divides the logits. Default: 1.")
@click.option("--dtype", help="float16, float32 or float64. Default: float32, of float64 logits float64.")
@click.option(
    "--rename", multiple=True, metavar="OLD=NEW", help="What carried ids or a Hive key is called in the output."
)
@click.option("--memory-limit", help="Of the whole process, such as 2GiB. Default: half of what is free.")
@click.option("--threads", help="Default: all cores.")
@click.option("--write-config", metavar="FILE", help="Write these flags as a config for `run`; do nothing else.")
@run_options
def jacobian(
    *, replace: bool, dry_run: bool, as_json: bool, quiet: bool, write_config: str | None, **given: Any
) -> None:
    """Write the derivatives of the probabilities by the logits of some rows of SOURCE to OUTPUT, a Zarr group.

    Its array `jacobian` has a matrix a row, classes x classes: [r, j, k] is how probability j moves with logit k.
    `row` has the row's number in SOURCE; ids and targets are carried. Say which rows: a range, those of low
    confidence, or both.

    \b
    Example:
      softmax-dask jacobian logits.zarr jacobians.zarr --rows 0:100
      softmax-dask jacobian logits.zarr unsure.zarr --where-confidence-below 0.6 --limit 1000
    """
    from softmax_dask_pipelines.config import JacobianConfig

    config = config_of_flags(JacobianConfig, {"verb": "jacobian", **given})
    if write_config is not None:
        write_config_file(config, write_config)
    else:
        carry_out(config, replace=replace, dry_run=dry_run, as_json=as_json, quiet=quiet)
