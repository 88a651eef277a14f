"""crc32c of whole objects and files, whatever their format checks itself.

A Zarr chunk ends in its own crc32c. With it, the crc32c of the whole would be the same number for every chunk:
of such an object that of its body is kept, which is computed once.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import google_crc32c

CHECKSUM_BYTES = 4
_STEP_BYTES = 1 << 20


def with_checksum(body: bytes) -> list[bytes]:
    """A chunk's body, and its checksum."""
    return [body, google_crc32c.value(body).to_bytes(CHECKSUM_BYTES, "little")]


def crc32c_of_object(parts: Sequence[bytes]) -> int:
    """What is kept of an object: of two parts, the second is the checksum of the first."""
    return int.from_bytes(parts[1], "little") if len(parts) == 2 else crc32c_of(parts)


def crc32c_of(parts: Iterable[bytes]) -> int:
    """Of the parts one after the other."""
    checksum = google_crc32c.Checksum()
    for part in parts:
        checksum.update(part)
    return int.from_bytes(checksum.digest(), "big")


def crc32c_of_file(path: str | Path) -> int:
    """Of a file, read a little at a time."""
    with open(path, "rb") as file:
        return crc32c_of(iter(lambda: file.read(_STEP_BYTES), b""))


def is_as_written(parts: Iterable[bytes], key: str, crc32c: int) -> bool:
    """Whether the bytes of the object `key` have the checksum that was kept of it."""
    if not key.rpartition("/")[2].startswith("c."):
        return crc32c_of(parts) == crc32c
    checksum, tail = google_crc32c.Checksum(), b""
    for part in parts:
        whole = tail + part
        checksum.update(whole[:-CHECKSUM_BYTES])
        tail = whole[-CHECKSUM_BYTES:]
    return int.from_bytes(checksum.digest(), "big") == crc32c == int.from_bytes(tail, "little")
