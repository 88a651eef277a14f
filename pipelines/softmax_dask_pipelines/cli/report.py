"""`report`: what is known of an output, on one page."""

import json
from typing import Any

import click

from softmax_dask_pipelines.cli.output import say


@click.command(short_help="Write what is known of an output as one HTML page.")
@click.argument("output")
@click.option("-o", "--output", "path", metavar="FILE", required=True, help="Of the report; ends in .html or .md.")
@click.option("--markdown", is_flag=True, help="Also write Markdown, beside the page.")
@click.option("--metrics", metavar="FILE", help="Also write the metrics of the output there, JSON.")
@click.option(
    "--evaluation", metavar="FILE", help="Metrics of `evaluate`. Default: what the output's runs have counted."
)
@click.option("--calibration", metavar="FILE", help="What `calibrate` wrote: show figures before and after it.")
@click.option("--previous", metavar="OUTPUT", help="Compare labels with it. Default: the run of this output before.")
@click.option("--rows", default=10, show_default=True, type=click.IntRange(0, 1000), help="Most and least certain.")
@click.option("--json", "as_json", is_flag=True, help="Print all that the report says, as one JSON object.")
def report(*, output: str, path: str, as_json: bool, **given: Any) -> None:
    """Write what is known of OUTPUT, which `score` has written, as one HTML page that loads nothing: figures, plots,
    labels and how they have shifted, the rows that are most and least certain, undecidable rows, time and bytes.

    Instead of OUTPUT, the record of one of its runs: OUTPUT.job/runs/RUN.json. Needs the extra `report`:
    pip install 'softmax-dask[report]'.

    \b
    Example:
      softmax-dask report softmax-dask-demo/scores.zarr -o report.html --markdown
    """
    from softmax_dask_pipelines.reporting import report as written

    found = written(output, path, **given)
    if as_json:
        say(json.dumps({"paths": list(found.paths), **found.facts}, indent=2))
    else:
        say("\n".join(f"{each}: written" for each in found.paths))
