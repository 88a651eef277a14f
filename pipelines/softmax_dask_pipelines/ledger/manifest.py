"""The record of one run, in `OUTPUT.job/runs/`: what was asked, by which versions, and what it came to."""

import glob
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

from softmax_dask import SoftmaxDaskError
from softmax_dask_pipelines import storage
from softmax_dask_pipelines.errors import BUG, OutputExistsError, PipelineError, UsageError, exit_code
from softmax_dask_pipelines.ledger.identity import RunIdentity
from softmax_dask_pipelines.notices import ManifestWarning
from softmax_dask_pipelines.object_path import AnyPath
from softmax_dask_pipelines.sinks import job_folder

FORMAT = 1
"""Of the document. What has another one is left alone, and not compared with: a warning says so."""

PUBLISHED = "published"
FAILED = "failed"

_PACKAGES = ("softmax-dask", "dask", "numba", "numpy", "zarr", "pyarrow", "numcodecs")


@dataclass(frozen=True, slots=True)
class Told:
    """What a run was told and found before it began: JSON types only."""

    config: dict[str, Any]
    """Every key, as it was resolved."""
    source: dict[str, Any]
    """What is known of the input."""


class RunRecord:
    """The manifest of one run, written once: when its output is visible, or when it has failed."""

    def __init__(self, output: AnyPath, run: RunIdentity, told: Told, figures: Callable[[], dict[str, Any]]) -> None:
        self._output, self._run, self.told = output, run, told
        self._figures = figures
        """What the run came to so far: JSON types only."""

    def published(self, figures: dict[str, Any]) -> None:
        """Record that the output is there; a run that cannot be recorded has happened all the same."""
        try:
            self._write(figures, None)
        except PipelineError as error:
            text = f"the output is complete, but its manifest is not written: {error}"
            warnings.warn(text, ManifestWarning, stacklevel=4)

    def failed(self, error: Exception) -> None:
        """Record why the run ended, where that can be written. What was refused before it began leaves nothing."""
        if not isinstance(error, UsageError | OutputExistsError):
            with suppress(PipelineError):
                self._write(self._figures(), error)

    def _write(self, figures: dict[str, Any], error: Exception | None) -> None:
        told = self.told
        document = {
            "format": FORMAT,
            **self._run.facts(),
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "outcome": PUBLISHED if error is None else FAILED,
            "error": None if error is None else _facts_of(error),
            "date": told.config.get("date"),
            "config": told.config,
            "source": told.source,
            "result": figures,
            "versions": dict(_versions()),
        }
        folder = job_folder(self._output) / "runs"
        storage.make_folder(folder)
        storage.put(folder / f"{self._run.run}.json", [json.dumps(document, indent=2).encode()])


@cache
def _versions() -> Mapping[str, str]:
    """Of Python and of the packages that compute; looking them up takes longer than all else of a record."""
    return {"python": python_version(), **{name: version(name) for name in _PACKAGES}}


def _facts_of(error: Exception) -> dict[str, Any]:
    return {
        "class": type(error).__name__,
        "message": str(error),
        "exit_code": exit_code(error) if isinstance(error, SoftmaxDaskError) else BUG,
    }


def published_manifests(outputs: str) -> Iterator[dict[str, Any]]:
    """Records of the runs that published what the pattern `outputs` matches, the run that began last first."""
    # Names begin with the time, to a second: of those of one second, when they were written tells.
    place = outputs.removeprefix("file://").rstrip("/")
    paths = sorted(map(Path, glob.glob(f"{place}.job/runs/*.json")), key=_order, reverse=True)
    for path in paths:
        document = read_manifest(path)
        if document is not None and document.get("outcome") == PUBLISHED:
            yield document


def _order(path: Path) -> tuple[str, int]:
    try:
        return path.name.partition("-")[0], path.stat().st_mtime_ns
    except OSError:  # gone meanwhile
        return path.name, 0


def read_manifest(path: Path) -> dict[str, Any] | None:
    """A record that this program can read."""
    try:
        document: Any = json.loads(path.read_bytes())
    except (OSError, ValueError):
        document = None
    if not isinstance(document, dict):
        _warn(path, "is no record of a run")
        return None
    found = document.get("format", 0)
    if found != FORMAT:
        _warn(path, f"is a record of format {found}, and this program reads {FORMAT}")
        return None
    return document


def _warn(path: Path, what: str) -> None:
    warnings.warn(f"{path}: {what}; it is left alone, and not compared with.", ManifestWarning, stacklevel=4)
