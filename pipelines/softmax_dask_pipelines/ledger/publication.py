"""From the first write of an output to its publication: locked, whole or not at all, recorded."""

import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any, Protocol, TypeVar

from softmax_dask import SoftmaxDaskError
from softmax_dask_pipelines.errors import (
    BUG,
    InterruptedRunError,
    OutputExistsError,
    PipelineError,
    UsageError,
    exit_code,
)
from softmax_dask_pipelines.ledger.identity import RunIdentity
from softmax_dask_pipelines.ledger.lock import locked
from softmax_dask_pipelines.ledger.manifest import Told, write_manifest
from softmax_dask_pipelines.notices import ManifestWarning
from softmax_dask_pipelines.sinks import Sink


class Result(Protocol):
    """What a run came to."""

    def record(self) -> dict[str, Any]:
        """Its figures, for the manifest: JSON types only."""


ResultT = TypeVar("ResultT", bound=Result)


def publish(
    sink: Sink,
    output: Path,
    *,
    told: Told,
    write: Callable[[], None],
    result: Callable[[], ResultT],
) -> ResultT:
    """Prepare `sink`, call `write`, and make the output visible; whatever ends it before that, nothing of it stays.

    Parameters
    ----------
    told : what the run was told and found, for its manifest
    result : called when the output is visible, or when the run has failed

    Raises
    ------
    OutputExistsError, TemporaryError
        As `Sink.prepare`; another run holds the lock; interrupted; the disk is full.
    """
    with locked(output) as run:
        with _failure_recorded(output, run, told, result), _discarding(sink):
            sink.prepare()
            write()
        with _uninterrupted():
            with _failure_recorded(output, run, told, result), _discarding(sink):
                sink.publish()
            found = result()
            _record(output, run, told, found)
    return found


def _record(output: Path, run: RunIdentity, told: Told, result: Result) -> None:
    """Write the manifest. The output is there by now: a run that cannot be recorded has happened all the same."""
    try:
        write_manifest(output, run, told, result=result.record())
    except PipelineError as error:
        text = f"the output is complete, but its manifest is not written: {error}"
        warnings.warn(text, ManifestWarning, stacklevel=4)


@contextmanager
def _failure_recorded(output: Path, run: RunIdentity, told: Told, result: Callable[[], Result]) -> Iterator[None]:
    """If the block ends with an error, write the manifest of a run that has failed, where it can be written."""
    try:
        yield
    except (UsageError, OutputExistsError):
        raise  # refused before anything was written, and so it stays
    except Exception as error:
        with suppress(PipelineError):
            write_manifest(output, run, told, result=result().record(), error=_facts_of(error))
        raise


def _facts_of(error: Exception) -> dict[str, Any]:
    return {
        "class": type(error).__name__,
        "message": str(error),
        "exit_code": exit_code(error) if isinstance(error, SoftmaxDaskError) else BUG,
    }


@contextmanager
def _discarding(sink: Sink) -> Iterator[None]:
    """If the block ends with an error, nothing that it wrote stays."""
    try:
        yield
    except KeyboardInterrupt as error:
        sink.discard()
        raise InterruptedRunError("interrupted; no output was published. Run the same command again.") from error
    except BaseException:
        sink.discard()
        raise


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore SIGINT, SIGTERM and SIGHUP: too late to stop, and a few milliseconds from done."""
    if current_thread() is not main_thread():
        yield
        return
    stops = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(stop, signal.SIG_IGN) for stop in stops]
    try:
        yield
    finally:
        for stop, handler in zip(stops, before, strict=True):
            signal.signal(stop, handler)
