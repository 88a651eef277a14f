"""Files and folders: whole, durable, and atomic where it says so. A `storage.Store`, and what a disk has beyond that.

A file appears under its name only when all of its bytes are on the disk: temporary
name, fsync, rename. A folder's own entry is made durable by `sync_folder`. Who has asked for no
durability (`durable=False`) still gets whole files, as long as the machine itself does not stop.
"""

import ctypes
import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import sleep

from softmax_dask_pipelines.errors import (
    ConfigError,
    DiskFullError,
    PermissionDeniedError,
    PipelineError,
    StorageFailedError,
)
from softmax_dask_pipelines.object_path import Buffer

_TEMPORARY = ".tmp"
_STEP_BYTES = 1 << 20
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
    "the storage failed ({said}); expected one that takes files. Check it, and run the same command again.",
)
_UNFIT = (
    ConfigError,
    "this file system cannot do what is asked of it ({said}); expected one where files grow and get other names. "
    "Choose a path on a disk, or the address of an object store.",
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
    **dict.fromkeys((errno.ESPIPE, errno.ENOSYS, errno.EOPNOTSUPP), _UNFIT),
    errno.ENAMETOOLONG: (ConfigError, "is longer than a path may be; expected a shorter one."),
}

_REMOVAL_WAITS_S = (0.0, 0.01, 0.1, 0.3, 1.0, 0.0)
"""Between attempts to remove a folder: once the folder is gone, whoever writes there fails, and that is fine."""

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_CANNOT_LINK = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)
_CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)
"""What kernels and file systems without RENAME_EXCHANGE answer; some network file systems say EPERM."""


def put(path: Path, parts: Sequence[Buffer], *, scratch: Path | None = None, durable: bool = True) -> int:
    """Write the concatenated `parts` as the file `path`, replacing one that is there; bytes written.

    Parameters
    ----------
    scratch : folder for the temporary file, on the same file system; the file's own, if none is given
    """
    return Begun(path, parts, scratch=scratch, durable=durable).finish()


class Begun:
    """A file whose bytes the system has, so that nobody else need keep them. It has no name before `finish`."""

    def __init__(self, path: Path, parts: Sequence[Buffer], *, scratch: Path | None, durable: bool) -> None:
        self._durable = durable
        with ExitStack() as stack:
            temporary = stack.enter_context(writing(path, scratch=scratch))
            self._descriptor = _open_new(temporary)
            stack.callback(os.close, self._descriptor)
            self._size = sum(_write_all(self._descriptor, part) for part in parts)
            # What was opened stays open until `finish`, or goes with the first error.
            self._open = stack.pop_all()

    def finish(self) -> int:
        """Wait for the disk, and give the file its name; bytes written."""
        with self._open:
            if self._durable:
                os.fsync(self._descriptor)
        return self._size

    def drop(self) -> None:
        """Remove it, unless it was finished."""
        with suppress(_DroppedError), self._open:
            raise _DroppedError


class _DroppedError(Exception):
    """A file that nobody wants any more."""


def begin(path: Path, parts: Sequence[Buffer], *, scratch: Path | None = None, durable: bool = True) -> Begun:
    """The first half of `put`, which hands the bytes over; its `finish` waits for the disk."""
    return Begun(path, parts, scratch=scratch, durable=durable)


def put_new(path: Path, parts: Sequence[Buffer]) -> bool:
    """Write a file where none is, durably; False, and nothing changed, where there is one: of two writers one wins."""
    temporary = _temporary(path, path.parent)
    try:
        with plain_errors(path):
            _write_file(temporary, parts)
            made = _link(temporary, path)
    finally:
        with suppress(OSError, PipelineError):
            remove(temporary)
    sync_folder(path.parent)
    return made


class Log:
    """A file that grows at its end. What was appended survives a kill at once, a power cut after `sync`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with plain_errors(path):
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        sync_folder(path.parent)

    def append(self, data: bytes) -> None:
        """Add bytes at the end; a process that is killed may leave a part of them."""
        with plain_errors(self._path):
            _write_all(self._descriptor, data)

    def sync(self) -> None:
        """Make all that was appended durable."""
        with plain_errors(self._path):
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Give the file back to the system."""
        os.close(self._descriptor)


def open_log(path: Path) -> Log:
    """The log at that path, made where there is none."""
    return Log(path)


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a log; none where there is no log."""
    if path.exists():
        with open(path, "rb") as file:
            yield from file


@contextmanager
def writing(path: Path, *, scratch: Path | None = None) -> Iterator[Path]:
    """A temporary path, renamed to `path` when the block ends well and removed when it does not.

    For writers that want a path of their own, of a file or a folder; whoever writes syncs it.
    """
    temporary = _temporary(path, scratch or path.parent)
    try:
        with plain_errors(path):
            yield temporary
            os.replace(temporary, path)
    except BaseException:
        with suppress(OSError, PipelineError):
            remove(temporary)
        raise


@contextmanager
def plain_errors(path: object) -> Iterator[None]:
    """Turn what a file system says while `path` is written into errors with a remedy."""
    try:
        yield
    except PipelineError:
        raise
    except OSError as error:
        kind, message = _MEANINGS.get(error.errno or 0, _UNSTEADY)
        raise kind(f"{path}: {message.format(said=error.strerror or error)}") from error


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
    """Remove a file, or a folder with all that is in it; not there is fine.

    Raises
    ------
    StorageFailedError
        Somebody writes into the folder all the time.
    """
    with plain_errors(path):
        if not path.is_dir() or path.is_symlink():
            path.unlink(missing_ok=True)
        elif not any(_removed(path, wait_s) for wait_s in _REMOVAL_WAITS_S):
            raise StorageFailedError(
                f"{path}: cannot be removed, for somebody still writes into it; expected workers that have ended. "
                "Wait for them, and run the same command again."
            )


def files(folder: Path) -> Iterator[Path]:
    """All files below a folder, at any depth; none where it is not there."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def parts(path: Path) -> Iterator[bytes]:
    """The bytes of a file, a little at a time; FileNotFoundError where there is none."""
    with open(path, "rb") as file:
        while part := file.read(_STEP_BYTES):
            yield part


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that holds nothing; not there, or not empty, is fine."""
    with suppress(OSError):
        folder.rmdir()


def _removed(folder: Path, wait_s: float) -> bool:
    """Whether the folder is gone; not, where a worker that should have ended has made or moved a file meanwhile."""
    try:
        shutil.rmtree(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise
        sleep(wait_s if folder.exists() else 0)
    return not folder.exists()


def _temporary(path: Path, folder: Path) -> Path:
    # The name is an attempt's own: two attempts at one task never write into one file.
    return folder / f"{path.name}.{uuid.uuid4().hex[:8]}{_TEMPORARY}"


def _open_new(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def _write_file(path: Path, parts: Sequence[Buffer]) -> int:
    descriptor = _open_new(path)
    try:
        size = sum(_write_all(descriptor, part) for part in parts)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return size


def _write_all(descriptor: int, data: Buffer) -> int:
    """Write all of it: the system may take a part at a time."""
    rest = memoryview(data).cast("B")
    size = len(rest)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    return size


def _link(source: Path, target: Path) -> bool:
    """Give a file a second name, unless something has that name."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
        if os.path.lexists(target):
            return False
        # No hard links, as on FAT: the lock of the run is all there is between two writers.
        os.rename(source, target)
    return True


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
