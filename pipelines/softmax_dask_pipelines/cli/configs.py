"""`validate` and `schema`: what a config file may hold, without its source."""

import json
from collections.abc import Sequence

import click

from softmax_dask_pipelines.cli.flags import file_options
from softmax_dask_pipelines.cli.output import say


@click.command(short_help="Check a config file alone; open no source.")
@click.argument("config")
@file_options
@click.option("--json", "as_json", is_flag=True, help="Print the config, defaults filled in, as one JSON object.")
def validate(*, config: str, overrides: Sequence[str], date: str | None, as_json: bool) -> None:
    """Check that the YAML file CONFIG has known keys and usable values. `plan` checks it against its source too.

    \b
    Example:
      softmax-dask validate configs/score_zarr.yaml
    """
    from softmax_dask_pipelines.config import read_config

    found = read_config(config, overrides, date=date)
    day = "" if found.date is None else f", on {found.date}"
    say(json.dumps(found.model_dump(mode="json"), indent=2) if as_json else f"{config}: ok{day}")


@click.command(short_help="Print the JSON Schema of config files, for editors.")
def schema() -> None:
    """Print the JSON Schema of a config: keys, values and what they mean.

    An editor with YAML support checks a config whose first line is
    `# yaml-language-server: $schema=softmax_dask.schema.json`, the path relative to the config.

    \b
    Example:
      softmax-dask schema > configs/softmax_dask.schema.json
    """
    from softmax_dask_pipelines.config_text import text_of_schema

    say(text_of_schema())
