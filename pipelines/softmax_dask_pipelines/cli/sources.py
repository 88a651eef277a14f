"""`inspect`: what is at a path, and what `score` would take of it."""

import json
from typing import TYPE_CHECKING, Any

import click

from softmax_dask_pipelines.cli.flags import config_of_flags, source_options
from softmax_dask_pipelines.cli.output import say

if TYPE_CHECKING:
    from softmax_dask_pipelines.config import ScoreConfig
    from softmax_dask_pipelines.job import Job
    from softmax_dask_pipelines.sources import SourceFacts


@click.command(short_help="Say what a dump holds.")
@click.argument("source")
@source_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def inspect(*, as_json: bool, **given: Any) -> None:
    """Say what the dump at SOURCE holds: rows, classes, dtype, layout, codec, class names, ids and targets.

    Also what `score` would do with it when it is told no more, and what a better layout would be.

    \b
    Example:
      softmax-dask inspect logits.zarr
    """
    from softmax_dask_pipelines.config import ScoreConfig
    from softmax_dask_pipelines.summary import facts_of_inspection, text_of_source

    facts, job, refusal = _found(config_of_flags(ScoreConfig, {**given, "output": _nowhere()}))
    if as_json:
        say(json.dumps(facts_of_inspection(facts, job, refusal), indent=2))
    else:
        say(text_of_source(facts, job, refusal))


def _found(config: "ScoreConfig") -> "tuple[SourceFacts, Job | None, str | None]":
    """What the source is, and the run that `score` would make of it, or why it would refuse."""
    from softmax_dask_pipelines.errors import PipelineError
    from softmax_dask_pipelines.job import prepare, source_request
    from softmax_dask_pipelines.sources import open_source

    try:
        job = prepare(config)
    except PipelineError as error:
        # An error of the source itself is raised again here.
        return open_source(source_request(config.source)).facts, None, str(error)
    return job.facts, job, None


def _nowhere() -> str:
    """An output that lies beside no source. Nothing is written to it."""
    import tempfile
    from pathlib import Path

    return str(Path(tempfile.gettempdir(), "softmax-dask-inspect", "decisions.parquet"))
