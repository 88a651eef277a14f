"""Every write to a file system goes through here: whole, durable, and atomic where it says so.

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

from softmax_dask_pipelines.errors import DiskFullError, PermissionDeniedError

Buffer = bytes | bytearray | memoryview

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


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

    For writers that want a path of their own (Parquet); whoever writes syncs the file.
    """
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with _plain_errors(path):
            yield temporary
            os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def sync_file(path: Path) -> None:
    """Make the bytes of a file durable."""
    with _plain_errors(path), open(path, "rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    with _plain_errors(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there yet."""
    with _plain_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def rename(source: Path, target: Path) -> None:
    """Give a file or folder another name on the same file system, durably."""
    with _plain_errors(target):
        os.rename(source, target)
    sync_folder(target.parent)


def exchange(one: Path, other: Path) -> None:
    """Swap two folders in one atomic step, so that a reader sees the old one or the new one.

    Where the kernel or the file system cannot (`renameat2` is Linux's), two renames do it, and
    a reader may for a moment find neither.
    """
    if not _renameat2_exchange(one, other):
        aside = one.with_name(f"{one.name}.{uuid.uuid4().hex[:8]}.old")
        rename(other, aside)
        rename(one, other)
        rename(aside, one)
    sync_folder(other.parent)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; not there is fine."""
    with _plain_errors(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _renameat2_exchange(one: Path, other: Path) -> bool:
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


@contextmanager
def _plain_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise PermissionDeniedError(f"{path}: cannot be written; expected a path that you may write to. Check its owner.") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(f"{path}: no space left on the device. Free some, and run the same command again.") from error
        raise
