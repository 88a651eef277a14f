"""The command line: `softmax-dask`, and `dask softmax`. The group is in `group`, the verbs in the modules beside it."""

from softmax_dask_pipelines.cli.group import main

__all__ = ["main"]
