"""What lies at an address in an object store: is it there, may it be read, and which format is it?"""

import fnmatch
import glob

from softmax_dask_pipelines.addresses import bucket_and_key, checked_address
from softmax_dask_pipelines.config_store import BY_ENVIRONMENT, StorageOptions
from softmax_dask_pipelines.errors import ConfigError, SourceAbsentError, SourceFormatError, SourceNotFoundError
from softmax_dask_pipelines.object_store import BucketAbsentError, ObjectStore
from softmax_dask_pipelines.sources.formats import ZARR_FILES
from softmax_dask_pipelines.sources.names import nearest
from softmax_dask_pipelines.sources.protocol import Format

_READ = "Read are: a Zarr v2 or v3 group or array, a Parquet file, a folder or pattern of *.parquet files."
_LEFT_ON_DISKS = (".npy", ".npz", ".zip")


def store_of(address: str, options: StorageOptions | None) -> tuple[ObjectStore, str]:
    """The store, and the key in it, of an address.

    Raises
    ------
    ConfigError
        It is no address, or holds credentials.
    """
    try:
        bucket, key = bucket_and_key(checked_address(address))
    except ValueError as error:
        raise ConfigError(f"source: is no address that can be read; expected {error}") from None
    return ObjectStore(bucket, options or BY_ENVIRONMENT), key


def located(given: str, options: StorageOptions | None) -> tuple[str, Format]:
    """The address without slashes at its end, and the format of what is there.

    Raises
    ------
    SourceNotFoundError, SourceAbsentError
        There is no such bucket; nothing is there.
    SourceFormatError
        What is there are no logits.
    """
    store, key = store_of(given, options)
    address = store.address(key)
    try:
        return address, _format(store, key)
    except BucketAbsentError as error:
        raise SourceNotFoundError(
            f"{address}: {error}; expected one that is there. Check its name, and which endpoint is asked."
        ) from error


def is_pattern(store: ObjectStore, key: str) -> bool:
    """Whether a key is to be matched (`*`, `?`, `[..]`): one that is there, or begins others, is itself."""
    return glob.has_magic(key) and not is_object(store, key) and not store.holds(f"{key}/")


def is_object(store: ObjectStore, key: str) -> bool:
    """Whether there is an object of that key."""
    return store.first(key) == key


def root_of(store: ObjectStore, key: str) -> str:
    """The key itself; of a pattern the folder above its first part that is one."""
    if not is_pattern(store, key):
        return key
    parts = key.split("/")
    plain = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return "/".join(parts[:plain])


def matches(key: str, pattern: str) -> bool:
    """Whether a key, or a folder above it, matches: `*` in one name, `**` in any."""
    return _matches(key.split("/"), pattern.split("/"))


def _matches(parts: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return True  # the rest lies in a folder that matches
    if pattern[0] == "**":
        return any(_matches(parts[skipped:], pattern[1:]) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _format(store: ObjectStore, key: str) -> Format:
    if is_object(store, key):
        return _format_of_object(store, key)
    if is_pattern(store, key):
        return "parquet"
    folders, names = store.names(f"{key}/")
    if not folders and not names:
        raise _absent(store, key)
    if set(names) & set(ZARR_FILES):
        return "zarr"
    if any(name.endswith(".parquet") and not name.startswith(("_", ".")) for name in names):
        return "parquet"
    return _format_of_deep_folder(store, key, sorted([*folders, *names]))


def _format_of_object(store: ObjectStore, key: str) -> Format:
    if key.endswith(_LEFT_ON_DISKS):
        raise SourceFormatError(
            f"{store.address(key)}: is a file of a kind that is read from local disks only; expected Zarr or Parquet. "
            f"Copy it here first. {_READ}"
        )
    if key.endswith(".parquet") or store.read(key, 0, min(4, store.stat(key).size)) == b"PAR1":
        return "parquet"
    raise SourceFormatError(f"{store.address(key)}: is an object that is not Parquet; expected logits. {_READ}")


def _format_of_deep_folder(store: ObjectStore, key: str, names: list[str]) -> Format:
    if any(name.endswith(".parquet") for name, _ in store.listing(f"{key}/")):
        return "parquet"
    inside = f"holds {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
    raise SourceFormatError(f"{store.address(key)}: is a folder that {inside}; expected logits. {_READ}")


def _absent(store: ObjectStore, key: str) -> SourceAbsentError:
    folder, _, name = key.rpartition("/")
    above = f"{folder}/" if folder else ""
    folders, names = store.names(above)
    hint = nearest(name, [*folders, *names]) or " Check the path."
    return SourceAbsentError(
        f"{store.address(key)}: there is no {name!r} in {store.address(above)}; expected logits.{hint}"
    )
