"""`status` and `verify`: what is known of an output, and whether it is still what was written."""

import json
from typing import Any

import click

from softmax_dask_pipelines.cli.flags import storage_options
from softmax_dask_pipelines.cli.output import say


@click.command(short_help="Say what is known of an output.")
@click.argument("output")
@storage_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(*, output: str, storage_options: dict[str, str] | None, as_json: bool) -> None:
    """Say what OUTPUT holds, whether a run is open and how far it is, and who is writing. Changes nothing.

    \b
    Example:
      softmax-dask status softmax-dask-demo/scores.zarr
    """
    from softmax_dask_pipelines.output_status import status as known

    found = known(output, storage_options=storage_options)
    say(json.dumps(found, indent=2) if as_json else _text_of_status(found))


@click.command(short_help="Read an output again, and compare it with what was written.")
@click.argument("output")
@click.option("--against-input", is_flag=True, help="Also compute some partitions again, and compare them.")
@storage_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify(*, output: str, against_input: bool, storage_options: dict[str, str] | None, as_json: bool) -> None:
    """Read all of OUTPUT again, and compare every object with the size and checksum that it was written with.

    Exit code 3 where one is missing, damaged, or not of the output.

    \b
    Example:
      softmax-dask verify softmax-dask-demo/scores.zarr --against-input
    """
    from softmax_dask_pipelines.summary import size
    from softmax_dask_pipelines.verifying import verify as verified

    found = verified(output, against_input=against_input, storage_options=storage_options)
    if as_json:
        say(json.dumps(found.facts(), indent=2))
        return
    again = f"; {found.recomputed:,} partitions computed again, and equal" if against_input else ""
    say(f"{found.output}: {found.rows:,} rows, {found.objects:,} objects, {size(found.bytes_read)}: as written{again}")


def _text_of_status(found: dict[str, Any]) -> str:
    from softmax_dask_pipelines.summary import table

    lines = [("output", found["output"]), ("rows", f"{found['rows']:,}")]
    lines += [
        (f"commit {each['number']}", f"{each['at']}, {each['new_rows']:,} rows, {each['rows']:,} with them")
        for each in found["commits"]
    ]
    opened, running = found["open"], found["running"]
    if opened is not None:
        progress = f"{opened['done']:,} of {opened['partitions']:,} partitions are done"
        lines.append(("open", f"{opened['kind']} of {opened['new_rows']:,} rows, {progress}"))
    text = (
        "nobody" if running is None else f"run {running.get('run')} on {running.get('host')}, pid {running.get('pid')}"
    )
    return table([*lines, ("writing", text)])
