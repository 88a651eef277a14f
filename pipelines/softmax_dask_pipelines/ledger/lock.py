"""One run at a time builds an output: the lock that the kernel frees when its process ends, however it ends."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from softmax_dask_pipelines import storage
from softmax_dask_pipelines.errors import LockedError, OutputExistsError
from softmax_dask_pipelines.sinks import job_folder

if sys.platform != "win32":
    import fcntl


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Hold the lock of `output` while the block runs; the file is gone afterwards.

    Raises
    ------
    LockedError
        Another run holds it.
    OutputExistsError
        There is something of somebody else's in its place.
    """
    path = job_folder(output) / "lock"
    descriptor = _acquired(path, output)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        storage.remove_if_empty(path.parent)
        os.close(descriptor)


def _acquired(path: Path, output: Path) -> int:
    while True:
        storage.make_folder(path.parent)
        with storage.plain_errors(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        _require_ours(path, descriptor)
        if _is_taken(descriptor):
            os.close(descriptor)
            raise LockedError(f"{output}: another run is writing it; expected none. Wait for it to end, and run again.")
        if _is_still(path, descriptor):
            return descriptor
        os.close(descriptor)  # its last holder has removed it meanwhile: that lock is nobody's


def _require_ours(path: Path, descriptor: int) -> None:
    """Refuse, and close, what no run has made: it would be removed when this one ends."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size:
        os.close(descriptor)
        raise OutputExistsError(
            f"{path}: is there, and no lock of a run; expected nothing that is not ours in {path.parent}. "
            "Move it, or choose another path for the output."
        )


def _is_taken(descriptor: int) -> bool:
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
