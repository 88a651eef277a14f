"""Where the objects of one plan are written, and the steps that make them visible once the plan is committed.

`Whole`: all of the output, beside it, then one rename or swap. `Increment`: what comes after the rows that readers
see already; nothing that they can reach is touched before the commit.

Every step may be the last before a crash: `publish` finds out how far it got, and goes on.
"""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Protocol

from softmax_dask_pipelines import storage
from softmax_dask_pipelines.errors import ConfigError, OutputExistsError
from softmax_dask_pipelines.object_path import AnyPath, ObjectPath

_DOCUMENT = "zarr.json"
_COPIES_AT_ONCE = 16


class Place(Protocol):
    """The folders of one plan."""

    @property
    def stage(self) -> AnyPath:
        """For what must not be visible before the commit."""

    @property
    def scratch(self) -> AnyPath:
        """For files that are not whole yet."""

    @property
    def new(self) -> AnyPath:
        """For what nobody sees before the stage is published."""

    @property
    def durable(self) -> bool:
        """Whether what is written must survive a power cut."""

    def prepare(self) -> None:
        """Make the folders; what an earlier attempt at the same plan left in the stage stays."""

    def made(self) -> int | None:
        """What tells the folder that becomes the output from an old one; for `publish`, also in a later process."""

    def publish(self, made: int | None) -> None:
        """Make visible what is staged; again changes nothing."""

    def clear(self) -> None:
        """Remove the folders: what is not published, or what a swap has left of the old output."""


@dataclass(frozen=True, slots=True)
class Whole:
    """Becomes the output in one rename, or with `replaces` in one swap with the old one."""

    output: Path
    stage: Path
    scratch: Path
    replaces: bool = False
    durable: bool = True

    @property
    def new(self) -> Path:
        """Everything is new."""
        return self.stage

    def prepare(self) -> None:
        """Make the stage, and an empty folder for scratch."""
        _make_empty(self.scratch)
        storage.make_folder(self.stage)

    def made(self) -> int | None:
        """The inode of the stage, which stays when it is renamed. Nothing inside could tell: equal plans are equal."""
        return os.stat(self.stage).st_ino

    def publish(self, made: int | None) -> None:
        """Rename the stage to the output, or swap the two."""
        if not self.stage.exists() or _inode(self.output) == made:
            return
        if self.replaces and os.path.lexists(self.output):
            storage.exchange(self.stage, self.output, aside=self._aside)
        else:
            require_absent(self.output)
            storage.rename(self.stage, self.output)

    def clear(self) -> None:
        """Remove stage, scratch, and an old output."""
        _remove(self.stage, self._aside, self.scratch)

    @property
    def _aside(self) -> Path:
        return self.stage.with_name(f"{self.stage.name}.old")


@dataclass(frozen=True, slots=True)
class Increment:
    """Is moved into the output, file by file, the root's document last; whole folders that are new in one step."""

    output: Path
    stage: Path
    scratch: Path
    durable: bool = True

    @property
    def new(self) -> Path:
        """Beyond the edge that the documents of the output tell: nobody looks there before they change."""
        return self.output

    def prepare(self) -> None:
        """Make the stage, and an empty folder for scratch."""
        _make_empty(self.scratch)
        storage.make_folder(self.stage)

    def made(self) -> int | None:
        """Nothing: what is still in the stage is not yet moved."""
        return None

    def publish(self, made: int | None) -> None:
        """Move what is still in the stage."""
        if self.stage.exists():
            _move(self.stage, self.output)

    def clear(self) -> None:
        """Remove stage and scratch."""
        _remove(self.stage, self.scratch)


@dataclass(frozen=True, slots=True)
class Copied:
    """In an object store: copied from the stage to the output, the root's document last.

    All objects of a plan wait in its stage, also those that nobody would look for yet. So only who has seen a commit
    writes into the output, and a process that was thought dead never does.
    """

    output: ObjectPath
    stage: ObjectPath
    durable: bool = True

    @property
    def scratch(self) -> ObjectPath:
        """Not needed: no part of an object is ever seen."""
        return self.stage

    @property
    def new(self) -> ObjectPath:
        """The stage."""
        return self.stage

    def prepare(self) -> None:
        """Nothing: a store has no folders."""

    def made(self) -> int | None:
        """Nothing: what is copied twice is the same."""
        return None

    def publish(self, made: int | None) -> None:
        """Copy what is in the stage: chunks, then the document of each array, then the root's."""
        below = sorted((path.key.removeprefix(f"{self.stage.key}/") for path in self.stage.below()), key=_rank)
        for _, names in groupby(below, key=_rank):
            with ThreadPoolExecutor(_COPIES_AT_ONCE) as pool:
                list(pool.map(self._copy, names))

    def clear(self) -> None:
        """Remove the stage."""
        self.stage.remove()

    def _copy(self, name: str) -> None:
        self.stage.store.copy(f"{self.stage.key}/{name}", f"{self.output.key}/{name}")


def _rank(name: str) -> int:
    return 0 if not name.endswith(_DOCUMENT) else 2 if name == _DOCUMENT else 1


def require_absent(output: AnyPath) -> None:
    """Refuse a path where there is something; an empty folder is nothing."""
    if holds_anything(output):
        raise OutputExistsError(
            f"{output}: is there already, and no run is known that has written it; expected nothing at the output's "
            "path. Choose another path, or replace it with --replace."
        )


def require_output(path: AnyPath) -> None:
    """Refuse to replace a folder that is no output: it may hold anything."""
    if isinstance(path, ObjectPath):
        raise ConfigError(
            f"{path}: is in an object store, where nothing can be swapped; expected another path for another output. "
            "Write to one with the date in it, or remove what is there yourself."
        )
    if not path.is_dir() or not holds_anything(path):
        return
    names = os.listdir(path)
    is_zarr = any(name in names for name in ("zarr.json", ".zgroup", ".zarray"))
    is_parquet = all(name.startswith(("commit=", "_", ".")) or name.endswith(".parquet") for name in names)
    if not is_zarr and not is_parquet:
        raise OutputExistsError(
            f"{path}: is a folder with other things than an output in it; expected an output to replace. "
            "Choose another path, or remove the folder yourself."
        )


def holds_anything(path: AnyPath) -> bool:
    """Whether there is something at `path`; an empty folder is nothing."""
    if isinstance(path, ObjectPath):
        return path.exists()
    return os.path.lexists(path) and not (path.is_dir() and next(path.iterdir(), None) is None)


def sync_folders(folders: Iterable[AnyPath]) -> None:
    """Make the names in these folders durable."""
    for folder in folders:
        storage.sync_folder(folder)


def _move(source: Path, target: Path) -> None:
    """Move what is in a folder into another: folders before files, so that the root's document comes last."""
    for entry in sorted(source.iterdir(), key=lambda path: (path.is_file(), path.name)):
        there = target / entry.name
        if entry.is_dir() and there.is_dir():
            _move(entry, there)
        else:
            storage.rename(entry, there)


def _make_empty(folder: Path) -> None:
    storage.remove(folder)
    storage.make_folder(folder)


def _remove(*paths: Path) -> None:
    for path in paths:
        storage.remove(path)


def _inode(path: Path) -> int | None:
    return os.lstat(path).st_ino if os.path.lexists(path) else None
