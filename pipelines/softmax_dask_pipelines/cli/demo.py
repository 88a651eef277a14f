"""`demo`: a sample dump, scored to both formats."""

import click

from softmax_dask_pipelines.cli.output import say


@click.command(short_help="Write a sample dump and score it.")
@click.argument("folder", default="softmax-dask-demo")
def demo(*, folder: str) -> None:
    """Write a sample dump of 100,000 rows and 100 classes to FOLDER (Zarr and Parquet, 80 MB), and score both.

    \b
    Example:
      softmax-dask demo
    """
    from pathlib import Path

    from softmax_dask_pipelines.sample import write_sample
    from softmax_dask_pipelines.scoring import score
    from softmax_dask_pipelines.summary import text_of_run

    root = Path(folder)
    for source, output, columns in _RUNS:
        write_sample(root / source)
        say(f"$ softmax-dask score {root / source} {root / output} --columns {','.join(columns)} --replace")
        say(text_of_run(score(root / source, root / output, columns=columns, replace=True)) + "\n")
    say("Open the result in Python:\n")
    say(_OPEN.format(zarr=root / _RUNS[0][1], parquet=root / _RUNS[1][1]))


_RUNS = (
    ("logits.zarr", "scores.zarr", ("label", "label_name", "confidence", "entropy", "probabilities")),
    ("logits.parquet", "decisions.parquet", ("label", "label_name", "confidence", "margin", "nll", "correct")),
)

_OPEN = """\
  import pyarrow.parquet as pq, zarr
  pq.read_table("{parquet}").slice(0, 5).to_pylist()
  zarr.open_group("{zarr}", mode="r")["probabilities"][:5]"""
