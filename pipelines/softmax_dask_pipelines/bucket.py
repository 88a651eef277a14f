"""Objects: whole or not there, and durable when the store has answered. A `storage.Store`."""

from collections.abc import Iterator, Sequence
from time import monotonic

from softmax_dask_pipelines.object_path import Buffer, ObjectPath

_EVERY_S = 1.0
_STEP_BYTES = 8 << 20


def put(path: ObjectPath, parts: Sequence[Buffer], *, scratch: ObjectPath | None = None, durable: bool = True) -> int:
    """Write the concatenated `parts` as the object `path`, replacing one that is there; bytes written."""
    data = b"".join(parts)
    path.store.put(path.key, data)
    return len(data)


class Begun:
    """An object that is kept until it is sent."""

    def __init__(self, path: ObjectPath, parts: Sequence[Buffer]) -> None:
        self._path, self._parts = path, parts

    def finish(self) -> int:
        """Send it; bytes written."""
        parts, self._parts = self._parts, ()
        return put(self._path, parts)

    def drop(self) -> None:
        """Nothing: nothing was sent."""


def begin(
    path: ObjectPath, parts: Sequence[Buffer], *, scratch: ObjectPath | None = None, durable: bool = True
) -> Begun:
    """The first half of `put`: nothing yet, all that takes time is the store's."""
    return Begun(path, parts)


def put_new(path: ObjectPath, parts: Sequence[Buffer]) -> bool:
    """Write an object where none is; False, and nothing changed, where there is one: of two writers one wins."""
    return path.store.put_new(path.key, b"".join(parts))


class ObjectLog:
    """Lines that become more, where nothing grows: what was appended in a second becomes an object of its own."""

    def __init__(self, path: ObjectPath) -> None:
        self._path, self._waiting = path, bytearray()
        names = [each.name for each in path.iterdir()]
        self._number = max((int(name) for name in names if name.isdecimal()), default=0)
        self._written = monotonic()

    def append(self, data: bytes) -> None:
        """Add bytes at the end; a process that is killed loses those of the last second."""
        self._waiting += data
        if monotonic() - self._written >= _EVERY_S:
            self.sync()

    def sync(self) -> None:
        """Write what was appended."""
        self._written = monotonic()
        while self._waiting:
            self._number += 1
            if put_new(self._path / f"{self._number:08d}", [bytes(self._waiting)]):
                self._waiting.clear()

    def close(self) -> None:
        """Write what was appended."""
        self.sync()


def open_log(path: ObjectPath) -> ObjectLog:
    """The log at that path; its first line makes it."""
    return ObjectLog(path)


def lines(path: ObjectPath) -> Iterator[bytes]:
    """The lines of a log; none where there is no log."""
    yield from b"".join(each.read_bytes() for each in path.iterdir()).splitlines(keepends=True)


def make_folder(path: ObjectPath) -> None:
    """Nothing: a store has no folders."""


def sync_folder(path: ObjectPath) -> None:
    """Nothing: names in a store are durable."""


def files(folder: ObjectPath) -> Iterator[ObjectPath]:
    """All objects below, at any depth."""
    yield from folder.below()


def parts(path: ObjectPath) -> Iterator[bytes]:
    """The bytes of an object, some at a time; FileNotFoundError where there is none."""
    size = path.stat().st_size
    for start in range(0, size, _STEP_BYTES):
        yield path.store.read(path.key, start, min(_STEP_BYTES, size - start))


def remove(path: ObjectPath) -> None:
    """Remove an object, and all below it; not there is fine."""
    path.remove()
