"""What is worth trying again: a storage that is away for a moment. Bad data, full disks and bugs never are."""

import errno
import random
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Event
from typing import Any, TypeVar

from softmax_dask_pipelines.errors import PipelineError, SourceUnavailableError, TemporaryError
from softmax_dask_pipelines.notices import NoteWarning

T = TypeVar("T")

FIRST_WAIT_S = 1.0
"""Before the second attempt; then twice as long each time. Up to half of it is left to chance, so that runs which
failed together do not come back together."""
_LONGEST_WAIT_S = 60.0

_NAMES = """
    EAGAIN EBUSY ECONNABORTED ECONNREFUSED ECONNRESET EHOSTDOWN EHOSTUNREACH EINTR EIO EMFILE ENETDOWN ENETRESET
    ENETUNREACH ENFILE ENOLINK EPIPE EPROTO EREMOTEIO ESTALE ETIME ETIMEDOUT
"""
_PASSING = frozenset(getattr(errno, name) for name in _NAMES.split() if hasattr(errno, name))  # Windows lacks some
"""What the system says of disks, networks and servers that may be well again a moment later."""


@dataclass(frozen=True, slots=True)
class Retrying:
    """A task that is tried again where that may help; an attempt writes under names of its own."""

    task: Callable[[int], Any]
    retries: int
    """Attempts beyond the first one."""
    stop: Event
    """Ends the waiting too."""

    def __call__(self, number: int) -> Any:
        """The task's result for partition `number`."""
        return attempted(
            lambda: self.task(number), retries=self.retries, what=f"partition {number}", wait=self.stop.wait
        )


def attempted(call: Callable[[], T], *, retries: int, what: str, wait: Callable[[float], object] = time.sleep) -> T:
    """What `call` returns, tried again up to `retries` times where a storage failed that may be back.

    Raises
    ------
    TemporaryError
        The storage failed each time.
    """
    for attempt in range(retries + 1):
        try:
            return call()
        except Exception as error:
            failure = _passing(error)
            if failure is None:
                raise
            if attempt == retries:
                if isinstance(error, TemporaryError):
                    raise
                raise _unavailable(error, failure, what, attempts=attempt + 1) from error
            text = f"{what}: {failure}; tried again, attempt {attempt + 2} of {retries + 1}."
            warnings.warn(text, NoteWarning, stacklevel=2)
            wait(min(_LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempt) * random.uniform(0.5, 1))
    raise AssertionError(f"{retries} retries, and no attempt")


def _passing(error: BaseException) -> OSError | None:
    """What the system said, where that may pass."""
    return next((found for found in _causes(error) if _may_pass(found)), None)


def _causes(error: BaseException | None) -> Iterator[OSError]:
    while error is not None:
        # Our own errors only tell what the system's mean.
        if isinstance(error, OSError) and not isinstance(error, PipelineError):
            yield error
        error = error.__cause__


def _may_pass(error: OSError) -> bool:
    return isinstance(error, TimeoutError | ConnectionError) or error.errno in _PASSING


def _unavailable(error: Exception, failure: OSError, what: str, *, attempts: int) -> SourceUnavailableError:
    named = str(error).partition(": ")[0] if isinstance(error, PipelineError) else what
    times = "once" if attempts == 1 else f"{attempts} times"
    return SourceUnavailableError(
        f"{failure.filename or named}: cannot be read now ({failure.strerror or failure}), tried {times}; expected "
        "storage that answers. Check it, and run the same command again."
    )
