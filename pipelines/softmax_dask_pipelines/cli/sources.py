"""`inspect`: what is at a path, and what `score` would take of it."""

import json
from typing import Any

import click


@click.command(short_help="Say what a dump holds.")
@click.argument("source")
@click.option("--array", help="Zarr: the array with the logits.")
@click.option("--column", help="Parquet: the list column with the logits.")
@click.option("--column-prefix", help="Parquet with one column a class: what their names begin with.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def inspect(*, source: str, as_json: bool, **names: Any) -> None:
    """Say what the dump at SOURCE holds: rows, classes, dtype, layout, codec, class names, ids and targets.

    \b
    Example:
      softmax-dask inspect logits.zarr
    """
    from softmax_dask_pipelines.sources import SourceRequest, open_source
    from softmax_dask_pipelines.summary import facts_of_source, text_of_source

    facts = open_source(SourceRequest(path=source, **names)).facts
    click.echo(json.dumps(facts_of_source(facts), indent=2) if as_json else text_of_source(facts))
