"""Every write of a run goes through here: whole, durable, and atomic where it says so.

A file appears under its name only when all of its bytes are on the disk: temporary
name, fsync, rename. A folder's own entry is made durable by `sync_folder`.
"""

import ctypes
import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from softmax_dask_pipelines.errors import (
    ConfigError,
    DiskFullError,
    PermissionDeniedError,
    PipelineError,
    StorageFailedError,
)

Buffer = bytes | bytearray | memoryview

_TEMPORARY = ".tmp"
_FULL = (
    DiskFullError,
    "no space left on the device; the output needs more. Free some, and run the same command again.",
)
_FORBIDDEN = (
    PermissionDeniedError,
    "cannot be written; expected a path that you may write to. Check its owner and mode.",
)
_UNSTEADY = (
    StorageFailedError,
    "the storage failed; expected one that takes files. Check it, and run the same command again.",
)
_IN_THE_WAY = (
    ConfigError,
    "cannot be made, something else is in the way; expected folders above it. Choose another path.",
)
_MEANINGS: dict[int, tuple[type[PipelineError], str]] = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: _FORBIDDEN,
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENOTEMPTY), _IN_THE_WAY),
    errno.ENAMETOOLONG: (ConfigError, "is longer than a path may be; expected a shorter one."),
}

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)
"""What kernels and file systems without RENAME_EXCHANGE answer; some network file systems say EPERM."""


def put(path: Path, parts: Sequence[Buffer]) -> int:
    """Write the concatenated `parts` as the file `path`, replacing one that is there; bytes written."""
    with writing(path) as temporary, open(temporary, "wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when it does not.

    For writers that want a path of their own, of a file or a folder; whoever writes syncs it.
    """
    # The name is an attempt's own: two attempts at one task never write into one file.
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{_TEMPORARY}")
    try:
        with plain_errors(path):
            yield temporary
            os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            remove(temporary)
        raise


@contextmanager
def plain_errors(path: Path) -> Iterator[None]:
    """Turn what a file system says while `path` is written into errors with a remedy."""
    try:
        yield
    except PipelineError:
        raise
    except OSError as error:
        kind, message = _MEANINGS.get(error.errno or 0, _UNSTEADY)
        raise kind(f"{path}: {message}") from error


def sync_file(path: Path) -> None:
    """Make the bytes of a file durable."""
    _sync(path)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    _sync(path)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there yet; durably."""
    with plain_errors(path):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_folder(folder.parent)


def rename(source: Path, target: Path) -> None:
    """Give a file or folder another name on the same file system, durably."""
    with plain_errors(target):
        os.rename(source, target)
    sync_folder(target.parent)
    if source.parent != target.parent:
        sync_folder(source.parent)


def exchange(one: Path, other: Path, *, aside: Path) -> None:
    """Swap two files or folders in one atomic step, so that a reader sees the old one or the new one.

    Where the kernel or the file system cannot (`renameat2` is Linux's), three renames do it: `other`
    waits at `aside`, and a reader may for a moment find nothing at `other`.
    """
    with plain_errors(other):
        atomic = _renameat2_exchange(one, other)
    if not atomic:
        rename(other, aside)
        rename(one, other)
        rename(aside, one)
    sync_folder(other.parent)
    sync_folder(one.parent)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; not there is fine."""
    with plain_errors(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that holds nothing; not there, or not empty, is fine."""
    with suppress(OSError):
        folder.rmdir()


def remove_temporaries(folder: Path) -> None:
    """Remove from a folder what writers that were killed have left there."""
    with plain_errors(folder), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(_TEMPORARY):
                os.unlink(entry.path)


def _sync(path: Path) -> None:
    with plain_errors(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _renameat2_exchange(one: Path, other: Path) -> bool:
    """Whether the swap was made; False where this kernel or file system has no such call."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    result = renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    if result == 0:
        return True
    code = ctypes.get_errno()
    if code in _CANNOT_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))
