"""A path in an object store, with the few methods of `pathlib.Path` that runs use. Asks a store, and imports none."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from softmax_dask_pipelines.addresses import bucket_and_key, require_object_stores
from softmax_dask_pipelines.config_store import BY_ENVIRONMENT, StorageOptions


class Looks(Protocol):
    """How an object is."""

    @property
    def size(self) -> int:
        """Bytes."""


class Objects(Protocol):
    """What is asked of a store: `object_store.ObjectStore`."""

    def address(self, key: str) -> str: ...  # noqa: D102
    def stat(self, key: str) -> Looks: ...  # noqa: D102
    def read(self, key: str, start: int, length: int) -> bytes: ...  # noqa: D102
    def listing(self, prefix: str) -> Iterator[tuple[str, Looks]]: ...  # noqa: D102
    def names(self, folder: str) -> tuple[list[str], list[str]]: ...  # noqa: D102
    def first(self, prefix: str) -> str | None: ...  # noqa: D102
    def put(self, key: str, data: bytes) -> None: ...  # noqa: D102
    def put_new(self, key: str, data: bytes) -> bool: ...  # noqa: D102
    def copy(self, key: str, target: str) -> None: ...  # noqa: D102
    def remove(self, keys: Sequence[str]) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Status:
    """What `stat` tells."""

    st_size: int


@dataclass(frozen=True, slots=True)
class ObjectPath:
    """A key, or what lies below it: a store has no folders, and needs none made."""

    store: Objects
    key: str

    @classmethod
    def at(cls, address: str, options: StorageOptions | None) -> "ObjectPath":
        """That of an address."""
        require_object_stores(address)
        from softmax_dask_pipelines.object_store import ObjectStore

        bucket, key = bucket_and_key(address)
        return cls(ObjectStore(bucket, options or BY_ENVIRONMENT), key)

    def __str__(self) -> str:
        return self.store.address(self.key)

    def __truediv__(self, name: str) -> "ObjectPath":
        return replace(self, key=f"{self.key}/{name}")

    @property
    def name(self) -> str:
        """After the last slash."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> "ObjectPath":
        """What stands before the last slash."""
        return replace(self, key=self.key.rpartition("/")[0])

    def with_name(self, name: str) -> "ObjectPath":
        """One beside it."""
        above = self.key.rpartition("/")[0]
        return replace(self, key=f"{above}/{name}" if above else name)

    def exists(self) -> bool:
        """Whether there is an object, or are some below."""
        return self.store.first(self.key) == self.key or self.is_dir()

    def is_dir(self) -> bool:
        """Whether there are objects below."""
        return self.store.first(f"{self.key}/") is not None

    def iterdir(self) -> Iterator["ObjectPath"]:
        """What is directly below, in the order of names."""
        folders, objects = self.store.names(f"{self.key}/")
        return (self / name for name in sorted([*folders, *objects]))

    def stat(self) -> Status:
        """The size; FileNotFoundError where there is no object."""
        return Status(self.store.stat(self.key).size)

    def read_bytes(self) -> bytes:
        """All of the object."""
        return self.store.read(self.key, 0, self.store.stat(self.key).size)

    def below(self) -> list["ObjectPath"]:
        """All objects below, at any depth."""
        return [replace(self, key=key) for key, _ in self.store.listing(f"{self.key}/")]

    def remove(self) -> None:
        """Remove the object, and all below."""
        self.store.remove([self.key, *(path.key for path in self.below())])


AnyPath = Path | ObjectPath
"""Where outputs may be."""

Buffer = bytes | bytearray | memoryview
"""What is written there."""
