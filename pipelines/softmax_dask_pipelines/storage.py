"""Every write of a run goes through here, to a disk or to a bucket: two stores that can do the same.

A file or object is whole or not there; `put_new` decides between two writers; a log keeps what was appended. What
only a disk can (names that change, folders that are swapped, files that others write) is `disk`'s, and named here too.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from softmax_dask_pipelines import bucket, disk
from softmax_dask_pipelines.disk import (
    exchange,
    plain_errors,
    remove_if_empty,
    rename,
    sync_file,
    writing,
)
from softmax_dask_pipelines.object_path import AnyPath, Buffer, ObjectPath

__all__ = [
    "Begun",
    "Buffer",
    "Log",
    "Store",
    "begin",
    "exchange",
    "files",
    "lines",
    "make_folder",
    "open_log",
    "parts",
    "plain_errors",
    "put",
    "put_new",
    "remove",
    "remove_if_empty",
    "rename",
    "sync_file",
    "sync_folder",
    "writing",
]


class Log(Protocol):
    """What grows at its end."""

    def append(self, data: bytes) -> None:
        """Add bytes at the end; of the last ones a process that is killed may leave a part, or none."""

    def sync(self) -> None:
        """Make all that was appended durable."""

    def close(self) -> None:
        """No more is appended."""


class Begun(Protocol):
    """A file or object that is not there yet; what must be waited for is left to `finish`."""

    def finish(self) -> int:
        """Wait until it is whole and has its name; bytes written."""

    def drop(self) -> None:
        """Leave nothing of it, unless it was finished."""


class Store(Protocol):
    """What runs ask of the place where an output is; paths are its own: `Path` of `disk`, `ObjectPath` of `bucket`."""

    def put(self, path: Any, parts: Sequence[Buffer], *, scratch: Any = None, durable: bool = True) -> int: ...  # noqa: D102
    def begin(self, path: Any, parts: Sequence[Buffer], *, scratch: Any = None, durable: bool = True) -> Begun: ...  # noqa: D102
    def put_new(self, path: Any, parts: Sequence[Buffer]) -> bool: ...  # noqa: D102
    def open_log(self, path: Any) -> Log: ...  # noqa: D102
    def lines(self, path: Any) -> Iterator[bytes]: ...  # noqa: D102
    def make_folder(self, path: Any) -> None: ...  # noqa: D102
    def sync_folder(self, path: Any) -> None: ...  # noqa: D102
    def remove(self, path: Any) -> None: ...  # noqa: D102
    def files(self, folder: Any) -> Iterator[Any]: ...  # noqa: D102
    def parts(self, path: Any) -> Iterator[bytes]: ...  # noqa: D102


def put(path: AnyPath, parts: Sequence[Buffer], *, scratch: AnyPath | None = None, durable: bool = True) -> int:
    """Write the concatenated `parts` under the name `path`, replacing what is there; bytes written.

    Parameters
    ----------
    scratch : of a disk, the folder for the temporary file, on the same file system; the file's own, if none is given
    durable : False: whole, but not safe from a power cut; a bucket knows no such thing
    """
    return _store_of(path).put(path, parts, scratch=scratch, durable=durable)


def begin(path: AnyPath, parts: Sequence[Buffer], *, scratch: AnyPath | None = None, durable: bool = True) -> Begun:
    """`put` in two halves. This one takes over the bytes: of a disk, `parts` are needed no more when it returns."""
    return _store_of(path).begin(path, parts, scratch=scratch, durable=durable)


def put_new(path: AnyPath, parts: Sequence[Buffer]) -> bool:
    """Write where nothing is, durably; False, and nothing changed, where something is: of two writers one wins."""
    return _store_of(path).put_new(path, parts)


def open_log(path: AnyPath) -> Log:
    """The log at that path, made where there is none."""
    return _store_of(path).open_log(path)


def lines(path: AnyPath) -> Iterator[bytes]:
    """The lines of a log; none where there is no log."""
    with plain_errors(path):
        yield from _store_of(path).lines(path)


def make_folder(path: AnyPath) -> None:
    """Make a folder and those above it, where they are not there yet; durably."""
    _store_of(path).make_folder(path)


def sync_folder(path: AnyPath) -> None:
    """Make the names in a folder durable."""
    _store_of(path).sync_folder(path)


def remove(path: AnyPath) -> None:
    """Remove a file, or a folder with all that is in it; not there is fine."""
    _store_of(path).remove(path)


def files(folder: AnyPath) -> Iterator[AnyPath]:
    """All files below a folder, at any depth; none where it is not there."""
    return _store_of(folder).files(folder)


def parts(path: AnyPath) -> Iterator[bytes]:
    """The bytes of a file, a little at a time; FileNotFoundError where there is none."""
    return _store_of(path).parts(path)


def _store_of(path: AnyPath) -> Store:
    return bucket if isinstance(path, ObjectPath) else disk
