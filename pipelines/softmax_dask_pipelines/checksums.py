"""crc32c of whole objects and files, whatever their format checks itself."""

from collections.abc import Iterable
from pathlib import Path

import google_crc32c

_STEP_BYTES = 1 << 20


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
