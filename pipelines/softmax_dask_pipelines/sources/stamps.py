"""How a source looked: enough to see later what was changed in it, and what was added.

Sizes and times of modification, not contents: an edit that keeps both, and a Parquet file's footer, is not seen.
With `verify_input: content` checksums of all bytes, which see it, and do not mind a file that was copied or touched.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_dask_pipelines.checksums import crc32c_of_file

DIGEST_BYTES = 8


@dataclass(frozen=True, slots=True)
class ArrayStamps:
    """Of an array that grows at its end: one digest for each piece, such as a chunk of rows."""

    name: str
    rows: int
    height: int
    """Rows of a piece."""
    digests: NDArray[np.uint64]
    tail: str
    """Digest of the values in the last piece, where it is not full: whoever appends rows writes that piece again.
    "" where it is full, or does not decode."""

    @property
    def full(self) -> int:
        """Pieces that are full."""
        return self.rows // self.height

    @property
    def tail_rows(self) -> range:
        """Rows of the piece that is not full."""
        return range(self.full * self.height, self.rows)


@dataclass(frozen=True, slots=True)
class FileStamps:
    """Of files that do not grow, but become more."""

    names: tuple[str, ...]
    """Relative to the source, in the order of their rows."""
    rows: tuple[int, ...]
    digests: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Stamps:
    """Of a whole source."""

    document: str
    """Digest of what says how arrays are decoded; their length is no part of it."""
    arrays: tuple[ArrayStamps, ...] = ()
    files: FileStamps | None = None


def look(path: str, *, by_content: bool) -> tuple[int, int] | None:
    """Size and time of modification of a local file, or checksum of its bytes; None where it is not there."""
    try:
        status = os.stat(path)
        return status.st_size, crc32c_of_file(path) if by_content else status.st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return None


def digest(values: Any) -> int:
    """Of anything whose `repr` tells all."""
    return int.from_bytes(blake2b(repr(values).encode(), digest_size=DIGEST_BYTES).digest(), "little")


def digests_of(values: Iterable[Any], count: int) -> NDArray[np.uint64]:
    """One for each of `count` values."""
    return np.fromiter(map(digest, values), np.uint64, count)
