"""The protocol, broken on purpose in one place each: whoever checks must notice. Applied in a process that ends."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softmax_dask_pipelines import disk, storage
from softmax_dask_pipelines.checksums import crc32c_of_object
from softmax_dask_pipelines.ledger import publication
from softmax_dask_pipelines.receipts import Receipt
from softmax_dask_pipelines.sinks import StoredObject, places
from softmax_dask_pipelines.sinks import zarr as zarr_sink
from softmax_dask_pipelines.tally import Tally

Mutate = Callable[[], None]


def no_fsync() -> None:
    """Names before bytes: files are renamed and never synced."""
    vars(disk.os)["fsync"] = lambda descriptor: None


def no_folder_fsync() -> None:
    """Bytes are synced, names are not."""
    storage.sync_folder = disk.sync_folder = lambda path: None


def root_first() -> None:
    """The root's document is moved before what it tells of."""

    def move(source: Path, target: Path) -> None:
        for entry in sorted(source.iterdir(), key=lambda path: (path.is_dir(), path.name)):
            if entry.is_dir() and (target / entry.name).is_dir():
                move(entry, target / entry.name)
            else:
                storage.rename(entry, target / entry.name)

    places._move = move


def commit_first() -> None:
    """The decision falls before the documents are there."""
    real = publication.put_commit
    sealing: list[Any] = []
    real_seal = publication.Building.seal

    def put_commit(folder: Path, commit: Any) -> bool:
        made = real(folder, commit)
        real_seal(sealing[0])
        return made

    publication.Building.seal = lambda self: sealing.append(self)  # type: ignore[method-assign]
    publication.put_commit = put_commit


def tail_in_place() -> None:
    """The chunk that is partly visible is written where it is, as by a writer that renames nothing."""
    zarr_sink.ZarrSink._folder = lambda self, number: self._place.new  # type: ignore[method-assign]
    zarr_sink._Chunks.begin = _write_directly  # type: ignore[method-assign, assignment]


def existence_is_done() -> None:
    """A partition counts as done when its object is there, whatever is in it."""

    def finished(path: Path, find: Callable[[int, str], Path]) -> Iterator[Receipt]:
        for number in range(100):
            if find(number, f"label/c.{number}").exists():
                yield Receipt(number, (), Tally(), (), 0.0, 0.0, 0.0)

    zarr_sink._Chunks.begin = _write_directly  # type: ignore[method-assign, assignment]
    publication.finished = finished


BY_KILL: dict[str, Mutate] = {
    "root first": root_first,
    "commit first": commit_first,
    "tail in place": tail_in_place,
    "existence is done": existence_is_done,
}


def _write_directly(self: Any, key: str, parts: list[bytes]) -> "_Written":
    path = self.folder / key
    with disk.plain_errors(path), nullcontext():
        path.unlink(missing_ok=True)
        return _Written(StoredObject(key, disk._write_file(path, parts), crc32c_of_object(parts)))


@dataclass(frozen=True)
class _Written:
    """A chunk that was finished before it was begun."""

    stored: StoredObject

    def finish(self) -> StoredObject:
        return self.stored

    def drop(self) -> None:
        """It stays."""
