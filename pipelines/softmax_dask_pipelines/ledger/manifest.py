"""The record of one run, in `OUTPUT.job/runs/`: what was asked, by which versions, how long it took."""

import json
import secrets
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from softmax_dask_pipelines import storage
from softmax_dask_pipelines.sinks import job_folder

_PACKAGES = ("softmax-dask", "dask", "numba", "numpy", "zarr", "pyarrow", "numcodecs")


def write_manifest(output: Path, *, started: datetime, config: dict[str, Any], result: dict[str, Any]) -> Path:
    """Write the record of a run that has published `output`; its path."""
    # Random, not only the clock: two runs may begin within one second.
    run = f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    document = {
        "run": run,
        "started": started.isoformat(),
        "config": config,
        "result": result,
        "versions": {name: version(name) for name in _PACKAGES},
    }
    folder = job_folder(output) / "runs"
    storage.make_folder(folder)
    path = folder / f"{run}.json"
    storage.put(path, [json.dumps(document, indent=2).encode()])
    return path
