"""Warnings of the pipelines: the run goes on. On the command line each is one line, whatever PYTHONWARNINGS says."""

from softmax_dask import SoftmaxDaskWarning


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
