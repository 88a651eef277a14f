"""What verbs that run something share: a config becomes a run, a plan on paper, or a file."""

import json
from typing import TYPE_CHECKING, Any

import click

from softmax_dask_pipelines.cli.output import say

if TYPE_CHECKING:
    from softmax_dask_pipelines.config import Config


def write_config_file(config: "Config", path: str) -> None:
    """Write the config as YAML, where nothing is yet."""
    import os
    from pathlib import Path

    from softmax_dask_pipelines.config_text import text_of_config
    from softmax_dask_pipelines.errors import OutputExistsError
    from softmax_dask_pipelines.storage import make_folder, put

    if os.path.lexists(path):
        raise OutputExistsError(f"{path}: is there already; expected a path where nothing is yet. Choose another one.")
    make_folder(Path(path).absolute().parent)
    put(Path(path), [text_of_config(config).encode()])
    click.echo(f"{path}: written; nothing else is done. Run it: softmax-dask run {path}", err=True)


def carry_out(config: "Config", *, replace: bool, dry_run: bool, as_json: bool, quiet: bool) -> None:
    """Do what the config says, and say what it came to."""
    if dry_run:
        print_plan(config, as_json=as_json, quiet=quiet)
        return
    from softmax_dask_pipelines.cli.progress import progress
    from softmax_dask_pipelines.running import execute, prepare

    job = prepare(config)
    with progress(job, quiet=quiet or as_json) as on_receipt:
        result = execute(job, replace=replace, on_receipt=on_receipt)
    if as_json:
        say(json.dumps(result.facts(), indent=2))
    elif not quiet:
        say(_texts(config).text_of_run(result))


def print_plan(config: "Config", *, as_json: bool, quiet: bool) -> None:
    """Say what would be done."""
    from softmax_dask_pipelines.running import prepare

    job = prepare(config)
    if as_json:
        say(json.dumps(_texts(config).facts_of_plan(job), indent=2))
    elif not quiet:
        say(_texts(config).text_of_plan(job))


def _texts(config: "Config") -> Any:
    """The module that words what a config of this verb is about."""
    from softmax_dask_pipelines import summary, summary_jacobian

    return {"score": summary, "jacobian": summary_jacobian}[config.verb]
