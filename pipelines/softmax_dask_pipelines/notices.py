"""Warnings of the pipelines: the run goes on. On the command line each is one line, whatever PYTHONWARNINGS says."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from softmax_dask import SoftmaxDaskWarning

_FILTERS = Lock()


class PipelineWarning(SoftmaxDaskWarning):
    """Anything that the pipelines warn of."""


class NoteWarning(PipelineWarning):
    """Something in the data that the user should look at."""


class AddressNotice(PipelineWarning):
    """Where something is that was asked for: nothing is wrong."""


class BackendWarning(PipelineWarning):
    """The run computes somewhere else than it might have."""


class RoomWarning(PipelineWarning):
    """The disk may be too small for the output, if it does not compress well."""


class ManifestWarning(PipelineWarning):
    """The output is complete, but there is no record of its run."""


@contextmanager
def silent(message: str = "", category: type[Warning] = Warning) -> Iterator[None]:
    """Ignore warnings of others that begin so, in one thread at a time: Python has one list of filters for all."""
    with _FILTERS, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message, category)
        yield
