"""What the machine did not give, memory, threads or open files, as errors of the contract: none of it is our bug."""

import errno

from softmax_dask_pipelines import machine
from softmax_dask_pipelines.errors import MemoryBudgetError, PipelineError, TemporaryError

_FILES = (errno.EMFILE, errno.ENFILE)


def shortage(error: Exception) -> PipelineError | None:
    """What an error says that the machine lacks; None where it says no such thing."""
    # Libraries say in many ways that they could not be loaded, or not start, for want of address space.
    if isinstance(error, MemoryError) or machine.address_space_is_short():
        return _of_memory(error)
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return TemporaryError(
            "the system starts no more threads; expected a few for each core. Raise the limit (`ulimit -u`, or that of "
            "the container or job), or take fewer --threads, and run the same command again."
        )
    if isinstance(error, OSError) and error.errno in _FILES:
        return TemporaryError(
            "the system opens no more files; expected some for each thread. Raise the limit (`ulimit -n`), or take "
            "fewer --threads, and run the same command again."
        )
    return None


def _of_memory(error: Exception) -> MemoryBudgetError:
    limit = machine.memory_limit_bytes()
    bound = "" if limit is None else f", the limit of this process is {limit >> 20:,} MiB"
    return MemoryBudgetError(
        f"memory ran out ({str(error) or type(error).__name__}): {machine.free_memory_bytes() >> 20:,} MiB are free"
        f"{bound}; expected more. Give it more, or take fewer --threads or a lower --memory-limit, and run the same "
        "command again: what is finished is not done twice."
    )
