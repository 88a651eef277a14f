"""Where the bytes of a Zarr store are: in a folder, a zip file or an object store. Nothing else knows the difference.

Keys are paths inside the store, `logits/c/0/0`. What zarr-python reads goes through `store_path`.
"""

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from zarr.storage import LocalStore, StorePath

from softmax_dask_pipelines.addresses import is_address
from softmax_dask_pipelines.config_store import StorageOptions
from softmax_dask_pipelines.sources.stamps import look
from softmax_dask_pipelines.sources.zarr_zip import ZipFiles


class Files(Protocol):
    """The files of one store. Opened once, read by many threads, pickled to other processes."""

    @property
    def is_far(self) -> bool:
        """Whether an answer takes so long that several are to be asked for at a time."""

    def size(self, key: str) -> int:
        """Bytes of the file; FileNotFoundError where there is none."""

    def stamp(self, key: str) -> tuple[int, int | str] | None:
        """Its size and time of modification, checksum or etag; None where there is no file."""

    def read(self, key: str, start: int, length: int) -> bytes:
        """Part of the file."""

    def folders(self, key: str) -> list[str]:
        """Names of the folders in the folder `key`, in order."""

    def stored_bytes(self, key: str) -> int:
        """Size of all files in the folder `key`."""

    def look_anew(self, key: str) -> None:
        """From now on, know of the files in the folder `key` as they are now. A request for each may cost too much."""

    def closed(self, key: str) -> bool:
        """Whether there is something at `key` that may not be read."""

    def shown(self, key: str) -> str:
        """The file, for a message."""

    def store_path(self, key: str) -> StorePath:
        """The folder `key`, for zarr-python."""


def files_at(path: str, options: StorageOptions | None = None, *, by_content: bool = False) -> Files:
    """The files of the store at `path`; `by_content`: their stamps are checksums, where else they are times."""
    if is_address(path):
        from softmax_dask_pipelines.sources.object_places import store_of
        from softmax_dask_pipelines.sources.zarr_objects import ObjectFiles

        return ObjectFiles(*store_of(path, options))
    return FolderFiles(path, by_content) if os.path.isdir(path) else ZipFiles(path)


@dataclass(frozen=True, slots=True)
class FolderFiles:
    """A store in a folder."""

    path: str
    by_content: bool = False

    @property
    def is_far(self) -> bool:
        """No."""
        return False

    def size(self, key: str) -> int:
        """Bytes of the file; FileNotFoundError where there is none."""
        status = os.stat(self._at(key))
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(self._at(key))
        return status.st_size

    def stamp(self, key: str) -> tuple[int, int] | None:
        """Its size and time of modification in nanoseconds, or checksum; None where there is no file."""
        return look(self._at(key), by_content=self.by_content)

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
        return _bytes_below(self._at(key))

    def look_anew(self, key: str) -> None:
        """Nothing: the system is asked each time."""

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


def _bytes_below(folder: str) -> int:
    """Of all files; folders that may not be read are left out. `os.walk` takes twice as long."""
    total = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                total += _bytes_below(entry.path)
            elif stat.S_ISREG((status := entry.stat()).st_mode):
                total += status.st_size
    return total
