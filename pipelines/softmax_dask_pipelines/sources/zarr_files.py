"""Where the bytes of a Zarr store are: in a folder, or in a zip file. Nothing else knows the difference.

Keys are paths inside the store, `logits/c/0/0`. What zarr-python reads goes through `store_path`.
"""

import os
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from zarr.core.sync import sync
from zarr.storage import LocalStore, StorePath, ZipStore

from softmax_dask_pipelines.errors import CorruptFileError
from softmax_dask_pipelines.sources.formats import ZARR_FILES


class Files(Protocol):
    """The files of one store. Opened once, read by many threads, pickled to other processes."""

    def size(self, key: str) -> int:
        """Bytes of the file; FileNotFoundError where there is none."""

    def read(self, key: str, start: int, length: int) -> bytes:
        """Part of the file."""

    def folders(self, key: str) -> list[str]:
        """Names of the folders in the folder `key`, in order."""

    def stored_bytes(self, key: str) -> int:
        """Size of all files in the folder `key`."""

    def closed(self, key: str) -> bool:
        """Whether there is something at `key` that may not be read."""

    def shown(self, key: str) -> str:
        """The file, for a message."""

    def store_path(self, key: str) -> StorePath:
        """The folder `key`, for zarr-python."""


def files_at(path: str) -> Files:
    """The files of the store at `path`."""
    return FolderFiles(path) if os.path.isdir(path) else ZipFiles(path)


@dataclass(frozen=True, slots=True)
class FolderFiles:
    """A store in a folder."""

    path: str

    def size(self, key: str) -> int:
        """Bytes of the file; FileNotFoundError where there is none."""
        status = os.stat(self._at(key))
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(self._at(key))
        return status.st_size

    def read(self, key: str, start: int, length: int) -> bytes:
        """Part of the file."""
        with open(self._at(key), "rb") as file:
            file.seek(start)
            return file.read(length)

    def folders(self, key: str) -> list[str]:
        """Names of the folders in the folder `key`, in order."""
        return sorted(entry.name for entry in os.scandir(self._at(key)) if entry.is_dir())

    def stored_bytes(self, key: str) -> int:
        """Size of all files in the folder `key`."""
        paths = (os.path.join(parent, name) for parent, _, names in os.walk(self._at(key)) for name in names)
        return sum(status.st_size for status in map(os.stat, paths) if stat.S_ISREG(status.st_mode))

    def closed(self, key: str) -> bool:
        """Whether there is something at `key` that may not be read."""
        path = self._at(key)
        return os.path.exists(path) and not os.access(path, os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK)

    def shown(self, key: str) -> str:
        """The file, for a message."""
        return self._at(key)

    def store_path(self, key: str) -> StorePath:
        """The folder `key`, for zarr-python."""
        return StorePath(LocalStore(self._at(key), read_only=True))

    def _at(self, key: str) -> str:
        return os.path.join(self.path, key) if key else self.path


class ZipFiles:
    """A store in a zip file, at its root or in the only folder there."""

    def __init__(self, path: str) -> None:
        self.path = path

    def size(self, key: str) -> int:
        """Bytes of the file; FileNotFoundError where there is none."""
        try:
            return self._zip.getinfo(self._name(key)).file_size
        except KeyError as error:
            raise FileNotFoundError(self.shown(key)) from error

    def read(self, key: str, start: int, length: int) -> bytes:
        """Part of the file; never more than the zip's index says that it has."""
        try:
            with self._zip.open(self._name(key)) as file:
                file.seek(start)
                return file.read(length)
        except (zipfile.BadZipFile, EOFError) as error:
            raise self._corrupt(error) from error

    def folders(self, key: str) -> list[str]:
        """Names of the folders in the folder `key`, in order."""
        return sorted({name.split("/", 1)[0] for name in self._inside(key) if "/" in name})

    def stored_bytes(self, key: str) -> int:
        """Size of all files in the folder `key`, as they are compressed by their own codecs."""
        prefix = self._name(key, folder=True)
        return sum(entry.file_size for entry in self._zip.infolist() if entry.filename.startswith(prefix))

    def closed(self, key: str) -> bool:
        """Never: the whole zip file can be read."""
        return False

    def shown(self, key: str) -> str:
        """The file, for a message."""
        return f"{self.path}: {self._name(key)}"

    def store_path(self, key: str) -> StorePath:
        """The folder `key`, for zarr-python."""
        store = sync(ZipStore.open(self.path, mode="r"))
        return StorePath(store, path=self._name(key).rstrip("/"))

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}  # an open file goes nowhere

    @cached_property
    def _zip(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, EOFError) as error:
            raise self._corrupt(error) from error

    @cached_property
    def _root(self) -> str:
        names = set(self._zip.namelist())
        folders = sorted({name.split("/", 1)[0] + "/" for name in names if "/" in name})
        if not names.intersection(ZARR_FILES) and len(folders) == 1:
            return folders[0]
        return ""

    def _name(self, key: str, *, folder: bool = False) -> str:
        name = self._root + key
        return name + "/" if folder and name and not name.endswith("/") else name

    def _inside(self, key: str) -> Iterator[str]:
        prefix = self._name(key, folder=True)
        return (name.removeprefix(prefix) for name in self._zip.namelist() if name.startswith(prefix))

    def _corrupt(self, error: Exception) -> CorruptFileError:
        return CorruptFileError(f"{self.path}: is not a whole zip file ({error}); expected one. Copy it again.")
