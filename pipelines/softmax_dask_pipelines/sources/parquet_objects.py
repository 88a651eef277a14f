"""The files of a Parquet source in an object store: listed once, and read in blocks of 4 MiB."""

import posixpath
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from urllib.parse import unquote

from softmax_dask_pipelines.addresses import bucket_and_key
from softmax_dask_pipelines.config_store import StorageOptions
from softmax_dask_pipelines.errors import SourceAbsentError
from softmax_dask_pipelines.object_store import ObjectStore
from softmax_dask_pipelines.sources.names import natural_key
from softmax_dask_pipelines.sources.object_places import is_object, matches, root_of, store_of
from softmax_dask_pipelines.sources.parquet_paths import NULL_KEY, is_data
from softmax_dask_pipelines.sources.parquet_places import File, Keys, Look
from softmax_dask_pipelines.sources.range_file import BLOCK_BYTES, SMALL_BLOCK_BYTES, Blocks, RangeFile


@dataclass(frozen=True, slots=True)
class ObjectPlace:
    """An object, the objects below a prefix, or those that a pattern matches."""

    store: ObjectStore
    key: str
    root: str
    """Of a pattern what stands before it; else the key."""

    @classmethod
    def at(cls, address: str, options: StorageOptions | None) -> "ObjectPlace":
        """What is at that address."""
        store, key = store_of(address, options)
        return cls(store, key, root_of(store, key))

    @property
    def path(self) -> str:
        """The address."""
        return self.store.address(self.key)

    @property
    def is_far(self) -> bool:
        """Yes."""
        return True

    def files(self) -> list[str]:
        """Addresses of all files: part-2 before part-10."""
        found = sorted(self._listed(), key=lambda key: (natural_key(key), key))
        if not found:
            raise SourceAbsentError(f"{self.path}: matches no Parquet file; expected at least one. Check the pattern.")
        return [self.store.address(key) for key in found]

    def name(self, file: str) -> str:
        """Of a file inside its source."""
        return self._inside(file) or posixpath.basename(file)

    def hive_keys(self, file: str) -> Keys:
        """Names and values of the `key=value` folders between the source and the file."""
        folders = self._inside(file).split("/")[:-1]
        pairs = (folder.split("=", 1) for folder in folders if "=" in folder)
        return tuple((unquote(key), None if value == NULL_KEY else unquote(value)) for key, value in pairs)

    def looks(self, files: Sequence[str]) -> list[Look | None]:
        """Size and etag; None where a file is gone."""
        listed = self._listed()
        return [listed.get(bucket_and_key(file)[1]) for file in files]

    def is_younger(self, file: str, seconds: float) -> bool:
        """Never: an object is whole when it is there."""
        return False

    @contextmanager
    def opened(self, file: str, *, small: bool = False) -> Iterator[File]:
        """The file."""
        key = bucket_and_key(file)[1]
        block_bytes = SMALL_BLOCK_BYTES if small else BLOCK_BYTES
        size = self.store.stat_known(key).size
        blocks = Blocks(size, partial(self.store.read_known, key), block_bytes=block_bytes)
        try:
            yield RangeFile(blocks)
        finally:
            blocks.close()

    def _listed(self) -> dict[str, Look]:
        if self.root == self.key and is_object(self.store, self.key):
            return {self.key: self.store.stat(self.key)}
        prefix = f"{self.root}/" if self.root else ""
        listing = self.store.listing(prefix)
        return {key: stat for key, stat in listing if self._is_wanted(key, key.removeprefix(prefix))}

    def _is_wanted(self, key: str, inside: str) -> bool:
        if not all(map(is_data, inside.split("/"))) or not key.endswith(".parquet"):
            return False
        return self.root == self.key or matches(key, self.key)

    def _inside(self, file: str) -> str:
        key = bucket_and_key(file)[1]
        return "" if key == self.root else key.removeprefix(f"{self.root}/")
