"""`calibrate`: a labelled dump in, a small document out."""

from typing import Any

import click

from softmax_dask_pipelines.cli.flags import config_of_flags, run_options, source_options
from softmax_dask_pipelines.cli.running import carry_out, write_config_file


@click.command(short_help="Find the temperature of a labelled dump.")
@click.argument("source")
@click.option("-o", "--output", required=True, metavar="FILE", help="The calibration, a JSON document.")
@click.option("--fit-on", metavar="WHICH", help="half of the rows, and report on the others; or all. Default: half.")
@click.option("--train-priors", metavar="FILE", help="How frequent each class was where the model learned, one a line.")
@click.option("--target-priors", metavar="FILE", help="How frequent it is where the model is used, as in SOURCE.")
@source_options
@click.option("--memory-limit", help="Of the whole process, such as 2GiB. Default: half of what is free.")
@click.option("--threads", help="Default: all cores.")
@click.option("--write-config", metavar="FILE", help="Write these flags as a config for `run`; do nothing else.")
@run_options
def calibrate(
    *, replace: bool, dry_run: bool, as_json: bool, quiet: bool, write_config: str | None, **given: Any
) -> None:
    """Find the temperature at which the logits at SOURCE have the least NLL of their targets.

    `score --calibration FILE` applies it. The fit is on one half of the rows, by a hash of their ids or numbers; NLL
    and ECE before and after are those of the other half.

    \b
    Example:
      softmax-dask calibrate logits.zarr --target target --output calibration.json
    """
    from softmax_dask_pipelines.config import CalibrateConfig

    config = config_of_flags(CalibrateConfig, {"verb": "calibrate", **given})
    if write_config is not None:
        write_config_file(config, write_config)
    else:
        carry_out(config, replace=replace, dry_run=dry_run, as_json=as_json, quiet=quiet)
