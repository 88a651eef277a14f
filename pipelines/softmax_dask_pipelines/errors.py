"""Errors of the pipelines, and the exit code that each gives the command line.

SoftmaxDaskError (the library's)
└── PipelineError
    ├── UsageError                             exit 2: the command or the config is wrong
    │   ├── ConfigError (ValueError)           a value or key of a config file, or a flag
    │   ├── SourceNotFoundError (FileNotFoundError)
    │   │   └── SourceAbsentError              nothing is there yet: `on_missing` says what that means
    │   ├── ColumnNotFoundError (LookupError)  an array or column that the source does not have
    │   ├── WorkerMismatchError                workers with other versions or kernels than here
    │   ├── PathConflictError (ValueError)     output and input are one, or one inside the other
    │   └── PermissionDeniedError (PermissionError)
    ├── DataError                              exit 3: the data is bad, or breaks a contract
    │   ├── SourceFormatError (ValueError)     not a dump of logits
    │   ├── SchemaMismatchError (ValueError)   files, ids, targets or classes that do not fit together
    │   ├── RaggedRowsError (ValueError)       lists of unequal length
    │   ├── NullRowsError (ValueError)         a null where a logit is expected
    │   ├── BadTargetError (ValueError)        a target that is none of the classes
    │   ├── NonFiniteRowsError (ValueError)    undecidable rows, where the config allows none
    │   ├── InputChangedError (ValueError)     rows that are scored already are not what they were
    │   ├── ExpectationError (ValueError)      a run that did not come to what `expect` says
    │   ├── OutputDamagedError (OSError)       an output is not what was written
    │   ├── MissingChunkError (OSError)
    │   ├── CorruptChunkError (OSError)
    │   ├── CorruptFileError (OSError)
    │   ├── UnsafeCodecError (ValueError)      a codec that is unknown, or can run code
    │   ├── MetadataLimitError (ValueError)    metadata, texts or pages larger than can be planned for
    │   ├── NoFitError (ValueError)            rows that no temperature, threshold or level of sets can be found for
    │   ├── PoisonPartitionError               a partition that ends every worker which scores it
    │   └── MemoryBudgetError (MemoryError)    the plan does not fit the memory limit
    ├── OutputExistsError (FileExistsError)    exit 4: not ours, or of other settings; never touched without `--replace`
    ├── NothingToDoError                       exit 0: no source is there, and `on_missing: nothing`
    └── TemporaryError                         exit 75: the same command may work later
        ├── LockedError                        another run is writing this output
        ├── SourceNotReadyError                no source is there and `on_missing: retry`, or no file of it is whole
        ├── SourceUnavailableError (OSError)   the storage of the source fails, again and again
        ├── DiskFullError (OSError)
        ├── StorageFailedError (OSError)       the file system of the output fails
        ├── ClusterUnavailableError (OSError)  a Dask cluster that cannot be reached, has no workers, or was lost
        └── InterruptedRunError                SIGINT, SIGTERM or SIGHUP
"""

from softmax_dask import ClassAxisError, DtypeError, SoftmaxDaskError, TargetError

BUG = 1
"""Exit code of an error that is our own fault."""


class PipelineError(SoftmaxDaskError):
    """Anything that the pipelines raise on purpose."""

    exit_code = BUG


class UsageError(PipelineError):
    """The command or the config is wrong; nothing was written."""

    exit_code = 2


class ConfigError(UsageError, ValueError):
    """A key or value of a config file, or a flag, is wrong."""


class SourceNotFoundError(UsageError, FileNotFoundError):
    """There is nothing at the source's path."""


class SourceAbsentError(SourceNotFoundError):
    """There is nothing at the source's path yet: no such path, an empty folder, a pattern that matches no file."""


class ColumnNotFoundError(UsageError, LookupError):
    """The source has no array or column of that name."""


class WorkerMismatchError(UsageError):
    """A worker of the cluster has other versions, or kernels, than the process that has the plan."""


class PathConflictError(UsageError, ValueError):
    """Output and input are the same place, or one lies inside the other."""


class PermissionDeniedError(UsageError, PermissionError):
    """A path cannot be read, or cannot be written."""


class DataError(PipelineError):
    """The data is bad, or breaks a contract; nothing was published."""

    exit_code = 3


class SourceFormatError(DataError, ValueError):
    """What lies at the path is not a dump of logits that can be read."""


class SchemaMismatchError(DataError, ValueError):
    """Parts of a source do not fit together."""


class RaggedRowsError(DataError, ValueError):
    """A list column whose rows have unequal lengths."""


class NullRowsError(DataError, ValueError):
    """A null row, or a null inside a row of logits."""


class BadTargetError(DataError, ValueError):
    """A target that is none of the classes and not missing."""


class NonFiniteRowsError(DataError, ValueError):
    """Rows with NaN, +inf or only -inf, and `nonfinite: error`."""


class InputChangedError(DataError, ValueError):
    """Part of the source was changed, or is gone, after it was scored."""


class ExpectationError(DataError, ValueError):
    """A run did not come to what `expect` says."""


class OutputDamagedError(DataError, OSError):
    """An output is not what was written, or not what its input gives."""


class MissingChunkError(DataError, OSError):
    """A chunk of the logits is not there."""


class CorruptChunkError(DataError, OSError):
    """A chunk is empty, cut short or fails to decode."""


class CorruptFileError(DataError, OSError):
    """A Parquet file is cut short or is none."""


class UnsafeCodecError(DataError, ValueError):
    """A codec that is not known to be safe: pickles and objects among them. Nothing was decoded."""


class MetadataLimitError(DataError, ValueError):
    """Metadata, texts or pages that are too long, or describe more than there can be."""


class NoFitError(DataError, ValueError):
    """What a fit is about cannot be found in these rows."""


class PoisonPartitionError(DataError):
    """A partition that ends every worker which scores it, also where nothing else runs."""


class MemoryBudgetError(DataError, MemoryError):
    """The run does not fit the memory limit."""


class OutputExistsError(PipelineError, FileExistsError):
    """What is at the output's path is not ours, or has other settings; it was not touched."""

    exit_code = 4


class NothingToDoError(PipelineError):
    """There is no source, and `on_missing` is nothing: all is well."""

    exit_code = 0


class TemporaryError(PipelineError):
    """The same command may work later."""

    exit_code = 75


class LockedError(TemporaryError):
    """Another run is writing this output."""


class SourceNotReadyError(TemporaryError):
    """There is no source yet, and `on_missing` is retry; or none of its files is whole yet."""


class SourceUnavailableError(TemporaryError, OSError):
    """The storage of the source failed, and did so again when it was tried again."""


class DiskFullError(TemporaryError, OSError):
    """No space left where the output goes."""


class StorageFailedError(TemporaryError, OSError):
    """The file system that the output goes to fails."""


class ClusterUnavailableError(TemporaryError, OSError):
    """A Dask cluster cannot be reached, has no workers, or was lost."""


class InterruptedRunError(TemporaryError):
    """The run was asked to stop by SIGINT, SIGTERM or SIGHUP."""


def exit_code(error: SoftmaxDaskError) -> int:
    """Exit code of the command line for `error`: 2 usage, 3 data, 4 output exists, 75 try again."""
    if isinstance(error, PipelineError):
        return error.exit_code
    about_data = isinstance(error, DtypeError | ClassAxisError | TargetError)
    return DataError.exit_code if about_data else UsageError.exit_code
