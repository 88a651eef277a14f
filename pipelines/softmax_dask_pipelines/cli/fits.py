"""`calibrate`, `threshold` and `conformal`: a labelled dump in, a small document out."""

from typing import Any

import click

from softmax_dask_pipelines.cli.flags import Command, config_of_flags, run_options, source_options
from softmax_dask_pipelines.cli.running import carry_out, write_config_file


def _fit_options(command: Command) -> Command:
    """What these verbs share: how to do it."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return run_options(command)


_OPTIONS = (
    click.option("--memory-limit", help="Of the whole process, such as 2GiB. Default: half of what is free."),
    click.option("--threads", help="Default: all cores."),
    click.option("--write-config", metavar="FILE", help="Write these flags as a config for `run`; do nothing else."),
)


@click.command(short_help="Find the temperature of a labelled dump.")
@click.argument("source")
@click.option("-o", "--output", required=True, metavar="FILE", help="The calibration, a JSON document.")
@click.option("--fit-on", metavar="WHICH", help="half of the rows, and report on the others; or all. Default: half.")
@click.option("--train-priors", metavar="FILE", help="How frequent each class was where the model learned, one a line.")
@click.option("--target-priors", metavar="FILE", help="How frequent it is where the model is used, as in SOURCE.")
@source_options
@_fit_options
def calibrate(**given: Any) -> None:
    """Find the temperature at which the logits at SOURCE have the least NLL of their targets.

    `score --calibration FILE` applies it. The fit is on one half of the rows, by a hash of their ids or numbers; NLL
    and ECE before and after are those of the other half.

    \b
    Example:
      softmax-dask calibrate logits.zarr --target target --output calibration.json
    """
    from softmax_dask_pipelines.config import CalibrateConfig

    _fit(CalibrateConfig, "calibrate", given)


@click.command(short_help="Find the confidence from which on decisions are accepted.")
@click.argument("source")
@click.option("-o", "--output", required=True, metavar="FILE", help="The threshold, a JSON document.")
@click.option("--precision", required=True, metavar="P", help="Share of the accepted rows that must be right: 0.99.")
@click.option("--delta", metavar="D", help="How probable it may be that fewer are. Default: 0.05.")
@click.option("--temperature", help="Divides the logits. Default: 1.")
@click.option("--calibration", metavar="FILE", help="What `calibrate` wrote, instead of a temperature.")
@source_options
@_fit_options
def threshold(**given: Any) -> None:
    """Find the lowest confidence from which on decisions are right at least as often as --precision says.

    The promise holds with probability 1 - delta for rows such as those of SOURCE: a dump with targets, or an output of
    `score` with the columns confidence and correct. `score --accept FILE` then writes the column accept.

    \b
    Example:
      softmax-dask threshold logits.zarr --target target --precision 0.8 --output threshold.json
    """
    from softmax_dask_pipelines.config import ThresholdConfig

    _fit(ThresholdConfig, "threshold", given)


@click.command(short_help="Find the level of sets that hold the true class.")
@click.argument("source")
@click.option("-o", "--output", required=True, metavar="FILE", help="The level, a JSON document.")
@click.option("--alpha", metavar="A", help="How often the true class may be missing in a set. Default: 0.1.")
@click.option("--temperature", help="Divides the logits. Default: 1.")
@click.option("--calibration", metavar="FILE", help="What `calibrate` wrote, instead of a temperature.")
@source_options
@_fit_options
def conformal(**given: Any) -> None:
    """Find from which probability on a class must be in a row's set, so that the true one is there as often as 1 - A.

    Half of the rows of SOURCE say the level; coverage and size of the sets are measured on the others. `score
    --conformal FILE` then writes the column conformal_set.

    \b
    Example:
      softmax-dask conformal logits.zarr --target target --alpha 0.1 --output conformal.json
    """
    from softmax_dask_pipelines.config import ConformalConfig

    _fit(ConformalConfig, "conformal", given)


def _fit(model: Any, verb: str, given: dict[str, Any]) -> None:
    how = {name: given.pop(name) for name in ("replace", "dry_run", "as_json", "quiet")}
    write_config = given.pop("write_config")
    config = config_of_flags(model, {"verb": verb, **given})
    if write_config is not None:
        write_config_file(config, write_config)
    else:
        carry_out(config, **how)
