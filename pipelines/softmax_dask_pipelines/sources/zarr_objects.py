"""The files of a Zarr store in an object store.

The chunks of an array are listed, a thousand in a request, and not asked for one by one. What a chunk that was listed
answers is the chunk or an error: zarr-python takes any 404 for a chunk that nobody has written.
"""

import asyncio
import posixpath
from collections.abc import AsyncIterator, Iterable
from typing import Any

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import StorePath

from softmax_dask_pipelines.errors import MetadataLimitError
from softmax_dask_pipelines.object_store import ObjectStore, Stat
from softmax_dask_pipelines.sources.formats import DOCUMENT_BYTES, ZARR_FILES
from softmax_dask_pipelines.sources.zarr_zip import span

_DOCUMENTS = (*ZARR_FILES, ".zattrs")
MOST_LISTED = 500_000
"""Files of one array: about 150 MB of memory, for which the plan's figure for the process has room."""


class ObjectFiles:
    """A store below a key."""

    is_far = True

    def __init__(self, store: ObjectStore, key: str) -> None:
        self._store, self._prefix = store, f"{key}/"
        self._listed: dict[str, dict[str, Stat] | None] = {}
        """Folder, with a slash at its end -> file -> how it looked; None in a process that has not listed it yet."""
        self._documents: dict[str, bytes | None] = {}
        """Metadata: many look at it, and a source is what it was when it was opened."""

    def size(self, key: str) -> int:
        """Bytes of the file; FileNotFoundError where there is none."""
        if posixpath.basename(key) in _DOCUMENTS:
            return len(self._document(key))
        return self._stat(key).size

    def stamp(self, key: str) -> Stat | None:
        """Its size and etag; None where there is no file."""
        try:
            return self._stat(key)
        except FileNotFoundError:
            return None

    def read(self, key: str, start: int, length: int) -> bytes:
        """Part of the file, which is there."""
        if posixpath.basename(key) in _DOCUMENTS:
            return self._document(key)[start : start + length]
        return self._store.read_known(self._prefix + key, start, length)

    def folders(self, key: str) -> list[str]:
        """Names of the folders in the folder `key`, in order."""
        return self._store.names(self._prefix + _folder(key))[0]

    def stored_bytes(self, key: str) -> int:
        """Size of all files in the folder `key`."""
        listed = self._listed.get(_folder(key))
        stats = listed.values() if listed is not None else (stat for _, stat in self._listing(_folder(key)))
        return sum(stat.size for stat in stats)

    def look_anew(self, key: str) -> None:
        """List the files in the folder `key`."""
        self._list(_folder(key))

    def closed(self, key: str) -> bool:
        """Who may not read is told so when he does."""
        return False

    def shown(self, key: str) -> str:
        """The file, for a message."""
        return self._store.address(self._prefix + key).rstrip("/")

    def store_path(self, key: str) -> StorePath:
        """The folder `key`, for zarr-python."""
        return StorePath(_Objects(self), path=key)

    def _document(self, key: str) -> bytes:
        if key not in self._documents:
            self._documents[key] = self._read_document(key)
        document = self._documents[key]
        if document is None:
            raise FileNotFoundError(self.shown(key))
        return document

    def _read_document(self, key: str) -> bytes | None:
        # Listed, not asked for: one answer of 404 that is wrong, and ids or targets would be left out without a word.
        found, stat = next(iter(self._store.listing(self._prefix + key)), (None, Stat(0, "")))
        if found != self._prefix + key:
            return None
        if stat.size > DOCUMENT_BYTES:
            raise MetadataLimitError(
                f"{self.shown(key)}: has {stat.size} bytes; expected at most {DOCUMENT_BYTES}. Shorten the attributes."
            )
        return self._store.read_known(self._prefix + key, 0, stat.size)

    def _stat(self, key: str) -> Stat:
        folder = next((folder for folder in self._listed if key.startswith(folder)), None)
        if folder is None:
            return self._store.stat(self._prefix + key)
        listed = self._listed[folder] or self._list(folder)
        if key not in listed:
            raise FileNotFoundError(self.shown(key))
        return listed[key]

    def _list(self, folder: str) -> dict[str, Stat]:
        listed: dict[str, Stat] = {}
        for name, stat in self._listing(folder):
            listed[name] = stat
            if len(listed) > MOST_LISTED:
                raise MetadataLimitError(
                    f"{self.shown(folder)}: has more than {MOST_LISTED:,} objects; expected at most so many. "
                    "Write it with larger chunks, or in shards."
                )
        self._listed[folder] = listed
        return listed

    def _listing(self, folder: str) -> Iterable[tuple[str, Stat]]:
        found = self._store.listing(self._prefix + folder)
        return ((name.removeprefix(self._prefix), stat) for name, stat in found)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_listed": dict.fromkeys(self._listed)}  # large: who needs it lists again


class _Objects(Store):
    """What zarr-python reads, by way of `ObjectFiles`."""

    def __init__(self, files: ObjectFiles) -> None:
        super().__init__(read_only=True)
        self._files = files

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Objects) and self._files is other._files

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Part of a file; None where there is none."""
        stat = await asyncio.to_thread(self._files.stamp, key)
        if stat is None:
            return None
        part = span(byte_range, stat.size)
        return prototype.buffer.from_bytes(await asyncio.to_thread(self._files.read, key, part.start, len(part)))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Parts of files."""
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether there is a file."""
        return await asyncio.to_thread(self._files.stamp, key) is not None

    supports_writes = supports_deletes = supports_listing = False

    async def set(self, key: str, value: Buffer) -> None:
        """Sources are read only."""
        raise NotImplementedError

    async def delete(self, key: str) -> None:
        """Sources are read only."""
        raise NotImplementedError

    def list(self) -> AsyncIterator[str]:
        """Arrays are opened by name."""
        raise NotImplementedError

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Arrays are opened by name."""
        raise NotImplementedError

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Arrays are opened by name."""
        raise NotImplementedError


def _folder(key: str) -> str:
    return f"{key}/" if key else ""
