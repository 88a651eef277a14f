"""A Zarr store in a zip file: its directory is judged before it is believed, and entries are inflated in steps.

Python's zipfile reads a directory of any size, and zarr-python's ZipStore inflates an entry whole before it
looks at the size that was declared. Here neither fills the memory, and one directory serves all arrays.
"""

import asyncio
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import pairwise
from typing import Any
from weakref import finalize

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import StorePath, ZipStore

from softmax_dask_pipelines.errors import CorruptFileError, MetadataLimitError, PipelineError, SourceFormatError
from softmax_dask_pipelines.sources.formats import ZARR_FILES

DIRECTORY_BYTES = 8 << 20
"""More than a hundred thousand files. Python holds several times as much, for which the plan's figure for the
process has room."""

_STEP_BYTES = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Those that Python inflates in steps."""
_ENCRYPTED = 0x41
"""Flags: by a password, by certificates."""
_HEADER_BYTES = 30
"""The least that stands before the bytes of an entry."""
_CHUNK_OF_LOGITS = re.compile(r"(?:.*[/.])?\d+[/.]\d+")
"""Two coordinates."""
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, struct.error)
"""What zipfile raises where bytes make no sense."""


class ZipFiles:
    """A store in a zip file, at its root or in the only folder there."""

    is_far = False

    def __init__(self, path: str) -> None:
        self.path = path

    def size(self, key: str) -> int:
        """Bytes of the file; FileNotFoundError where there is none."""
        try:
            return self._zip.getinfo(self._name(key)).file_size
        except KeyError as error:
            raise FileNotFoundError(self.shown(key)) from error

    def stamp(self, key: str) -> tuple[int, int] | None:
        """Its size and checksum in the directory; None where there is no file."""
        try:
            entry = self._zip.getinfo(self._name(key))
        except KeyError:
            return None
        return entry.file_size, entry.CRC

    def read(self, key: str, start: int, length: int) -> bytes:
        """Part of the file."""
        with _named(self.path):
            return self.member(self._name(key), start, length)

    def folders(self, key: str) -> list[str]:
        """Names of the folders in the folder `key`, in order."""
        return sorted({name.split("/", 1)[0] for name in self._inside(key) if "/" in name})

    def stored_bytes(self, key: str) -> int:
        """Size of all files in the folder `key`, as they are compressed by their own codecs."""
        prefix = self._name(key, folder=True)
        return sum(entry.file_size for entry in self._zip.infolist() if entry.filename.startswith(prefix))

    def look_anew(self, key: str) -> None:
        """Nothing: the directory was read once."""

    def closed(self, key: str) -> bool:
        """Never: the whole zip file can be read."""
        return False

    def shown(self, key: str) -> str:
        """The file, for a message."""
        return f"{self.path}: {self._name(key)}"

    def store_path(self, key: str) -> StorePath:
        """The folder `key`, for zarr-python."""
        return StorePath(_Members(self), path=self._name(key).rstrip("/"))

    def member_size(self, name: str) -> int:
        """Bytes of an entry of the zip file; KeyError where there is none."""
        return self._zip.getinfo(name).file_size

    def member(self, name: str, start: int, length: int) -> bytes:
        """Part of an entry of the zip file, inflated no further than that; zipfile's own errors."""
        data = bytearray()
        with self._zip.open(name) as file:
            file.seek(start)
            while len(data) < length:
                part = file.read(min(length - len(data), _STEP_BYTES))
                if not part:
                    raise EOFError(f"{name} is shorter than the directory says")
                data += part
        return bytes(data)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}  # an open file goes nowhere

    @cached_property
    def _zip(self) -> zipfile.ZipFile:
        return _opened(self.path)

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


class _Members(ZipStore):
    """What zarr-python reads of a zip file, by way of `ZipFiles`; it never opens the file itself."""

    def __init__(self, files: ZipFiles) -> None:
        super().__init__(files.path, mode="r")
        self._files = files

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Part of an entry, or None where there is none."""
        try:
            size = self._files.member_size(key)
        except KeyError:
            return None
        part = span(byte_range, size)
        data = await asyncio.to_thread(self._files.member, key, part.start, len(part))
        return prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Parts of entries."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    def __reduce__(self) -> Any:
        return _Members, (self._files,)


class _File(io.BufferedReader):
    """A file of which no more than `limit` bytes are read at once: the directory is what zipfile asks most for."""

    def __init__(self, path: str) -> None:
        super().__init__(io.FileIO(path))
        self.path = path
        self.limit: int | None = DIRECTORY_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        """Bytes, as every file gives them."""
        if self.limit is not None and size is not None and size > self.limit:
            raise MetadataLimitError(
                f"{self.path}: has a directory of {size} bytes; expected at most {self.limit}. Write larger "
                "chunks, or shards, or unpack the zip file into a folder."
            )
        return super().read(size)


def span(request: ByteRequest | None, size: int) -> range:
    """Which of `size` bytes zarr-python asks for."""
    every = range(size)
    if isinstance(request, RangeByteRequest):
        return every[request.start : request.end]
    if isinstance(request, OffsetByteRequest):
        return every[request.offset :]
    if isinstance(request, SuffixByteRequest):
        return every[max(0, size - request.suffix) :]
    return every


def _opened(path: str) -> zipfile.ZipFile:
    """The zip file, once its directory makes sense."""
    file = _File(path)
    try:
        with _named(path):
            archive = zipfile.ZipFile(file)
            file.limit = None
            _require_plain(path, archive)
            _require_places(archive)
            _require_names(archive)
    except BaseException:
        file.close()
        raise
    finalize(archive, file.close)
    return archive


def _require_plain(path: str, archive: zipfile.ZipFile) -> None:
    for entry in archive.infolist():
        if entry.flag_bits & _ENCRYPTED:
            raise SourceFormatError(
                f"{path}: {entry.filename} is encrypted; expected plain files. Pack it again without a password."
            )
        if entry.compress_type not in _METHODS:
            raise SourceFormatError(
                f"{path}: {entry.filename} is packed by method {entry.compress_type}; expected stored or deflated "
                "files. Pack it again, for example with zip -0."
            )


def _require_places(archive: zipfile.ZipFile) -> None:
    """Refuse entries that overlap, lie outside the file, or have two sizes."""
    entries = archive.infolist()
    places = sorted((entry.header_offset, _HEADER_BYTES + entry.compress_size) for entry in entries)
    for (start, length), (following, _) in pairwise([*places, (archive.start_dir, 0)]):
        if start < 0 or start + length > following:
            raise zipfile.BadZipFile("its directory names files that overlap, or that are not in it")
    for entry in entries:
        if entry.compress_type == zipfile.ZIP_STORED and entry.file_size != entry.compress_size:
            raise zipfile.BadZipFile(f"its directory gives {entry.filename} two sizes")


def _require_names(archive: zipfile.ZipFile) -> None:
    """Refuse names other than those that stand before the files: nobody would miss what has another name.

    Not of the chunks of logits: there may be many, and one that is not there is an error anyway.
    """
    for entry in archive.infolist():
        if not _CHUNK_OF_LOGITS.fullmatch(entry.filename):
            archive.open(entry).close()


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Name the file in what zipfile says of it."""
    try:
        yield
    except PipelineError:
        raise
    except _DAMAGE as error:
        raise CorruptFileError(f"{path}: is not a whole zip file ({error}); expected one. Copy it again.") from error
