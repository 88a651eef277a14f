"""Writes the manifest of a run, whatever it comes to. A run that cannot be recorded has happened all the same."""

import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from softmax_dask import SoftmaxDaskError
from softmax_dask_pipelines.errors import BUG, OutputExistsError, PipelineError, UsageError, exit_code
from softmax_dask_pipelines.ledger.identity import RunIdentity
from softmax_dask_pipelines.ledger.manifest import Told, write_manifest
from softmax_dask_pipelines.notices import ManifestWarning


class Result(Protocol):
    """What a run came to."""

    def record(self) -> dict[str, Any]:
        """Its figures, for the manifest: JSON types only."""


@dataclass(frozen=True, slots=True)
class Recorder:
    """Of one run."""

    output: Path
    run: RunIdentity
    told: Told
    result: Callable[[], Result]
    """What it has come to, now."""

    def published(self, result: Result) -> None:
        """The output is there."""
        try:
            write_manifest(self.output, self.run, self.told, result=result.record())
        except PipelineError as error:
            text = f"the output is complete, but its manifest is not written: {error}"
            warnings.warn(text, ManifestWarning, stacklevel=4)

    def failed(self, error: BaseException) -> None:
        """It ended with an error. What was refused before anything was written leaves no record."""
        if isinstance(error, Exception) and not isinstance(error, UsageError | OutputExistsError):
            with suppress(PipelineError):
                write_manifest(self.output, self.run, self.told, result=self.result().record(), error=_facts_of(error))


def _facts_of(error: Exception) -> dict[str, Any]:
    return {
        "class": type(error).__name__,
        "message": str(error),
        "exit_code": exit_code(error) if isinstance(error, SoftmaxDaskError) else BUG,
    }
