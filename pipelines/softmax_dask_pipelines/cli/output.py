"""What verbs print on stdout."""

import os
import sys

import click

from softmax_dask_pipelines.errors import StorageFailedError


def say(text: str) -> None:
    """Print `text` on stdout. A reader who has gone has read enough: no error.

    Raises
    ------
    StorageFailedError
        Stdout cannot be written: its disk is full, say.
    """
    try:
        click.echo(text)
    except BrokenPipeError:
        _forget_stdout()
    except OSError as error:
        raise lost(error) from error


def lost(error: OSError) -> StorageFailedError:
    """What to raise where stdout cannot be written; what is left in its buffer goes nowhere."""
    _forget_stdout()
    return StorageFailedError(
        f"stdout: cannot be written ({error.strerror}); expected a place for what is printed. "
        "Only the text is lost: what was to be written elsewhere is there."
    )


def _forget_stdout() -> None:
    """Send what is left in its buffer nowhere, or Python would fail once more when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    finally:
        os.close(nowhere)
