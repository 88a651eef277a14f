"""Where the files of a Parquet source are: in folders, or in an object store. Nothing else knows the difference."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from softmax_dask_pipelines.addresses import is_address
from softmax_dask_pipelines.config_store import StorageOptions
from softmax_dask_pipelines.sources.parquet_paths import hive_keys, name_in, source_files
from softmax_dask_pipelines.sources.range_file import RangeFile
from softmax_dask_pipelines.sources.stamps import look

File = BinaryIO | RangeFile
Keys = tuple[tuple[str, str | None], ...]
Look = tuple[int, int | str]
"""Size, and time of modification or etag."""


class Place(Protocol):
    """The files of one source. Used by many threads, pickled to other processes."""

    @property
    def path(self) -> str:
        """Of the source: a file, a folder or a pattern."""

    @property
    def is_far(self) -> bool:
        """Whether each look into a file costs a request over a network."""

    def files(self) -> list[str]:
        """All files: part-2 before part-10."""

    def name(self, file: str) -> str:
        """Of a file inside its source."""

    def hive_keys(self, file: str) -> Keys:
        """Names and values of the `key=value` folders between the source and the file."""

    def looks(self, files: Sequence[str]) -> list[Look | None]:
        """How files look now; None where one is gone."""

    def is_younger(self, file: str, seconds: float) -> bool:
        """Whether a file may still be being written, for it was changed in the last so many seconds."""

    def opened(self, file: str, *, small: bool = False) -> AbstractContextManager[File]:
        """The file, to be read by `read_at` and by pyarrow; `small`: no more than a few bytes here and there."""


def place_at(path: str, options: StorageOptions | None = None, *, by_content: bool = False) -> Place:
    """Where the source at `path` is; `by_content`: looks at local files are checksums, and not times."""
    if is_address(path):
        from softmax_dask_pipelines.sources.parquet_objects import ObjectPlace

        return ObjectPlace.at(path, options)
    return FolderPlace(path, by_content)


def read_at(file: File, size: int, at: int) -> bytes:
    """So many bytes from there; less where the file ends."""
    return file.blocks.read(at, size) if isinstance(file, RangeFile) else os.pread(file.fileno(), size, at)


def arrow_source(path: str, file: File) -> "str | RangeFile":
    """What pyarrow is given: a path where it can open one itself."""
    return RangeFile(file.blocks) if isinstance(file, RangeFile) else path


@dataclass(frozen=True, slots=True)
class FolderPlace:
    """On a local file system."""

    path: str
    by_content: bool = False

    @property
    def is_far(self) -> bool:
        """No."""
        return False

    def files(self) -> list[str]:
        """All files: part-2 before part-10."""
        return source_files(Path(self.path))

    def name(self, file: str) -> str:
        """Of a file inside its source."""
        return name_in(Path(self.path), file)

    def hive_keys(self, file: str) -> Keys:
        """Names and values of the `key=value` folders between the source and the file."""
        return hive_keys(file, Path(self.path))

    def looks(self, files: Sequence[str]) -> list[Look | None]:
        """Size and time of modification, or checksum; None where a file is gone."""
        return [look(file, by_content=self.by_content) for file in files]

    def is_younger(self, file: str, seconds: float) -> bool:
        """Whether it was changed in the last so many seconds."""
        return time.time() - os.stat(file).st_mtime < seconds

    @contextmanager
    def opened(self, file: str, *, small: bool = False) -> Iterator[File]:
        """The file."""
        with open(file, "rb") as opened:
            yield opened
