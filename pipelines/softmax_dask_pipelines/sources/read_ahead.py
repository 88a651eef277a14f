"""Has the system read bytes of a file before anybody asks for them: a disk works while other bytes are decoded and
computed. The system does so by itself inside of a file, but not from one chunk file to the next.
"""

import os
from contextlib import suppress
from typing import Any

_STEP_BYTES = 1 << 20
"""Linux reads no more ahead, for one advice, than the disk takes at once: half a megabyte to a few."""


def read_ahead(file: Any, start: int, length: int) -> bool:
    """Begin to read these bytes of a file that has a descriptor; False where the last of them is in memory already.

    Then nothing is done, as advice takes a tenth of the time of a copy. Nothing fails here: who reads finds out.
    """
    if length <= 0 or not hasattr(os, "posix_fadvise"):
        return False
    descriptor, stop = file.fileno(), start + length
    if _is_in_memory(descriptor, stop - 1):
        return False
    with suppress(OSError):
        for i in range(start, stop, _STEP_BYTES):
            os.posix_fadvise(descriptor, i, min(_STEP_BYTES, stop - i), os.POSIX_FADV_WILLNEED)
    return True


def _is_in_memory(descriptor: int, position: int) -> bool:
    """Whether that byte is; False, too, where the file system cannot tell."""
    try:
        return os.preadv(descriptor, [bytearray(1)], position, os.RWF_NOWAIT) == 1
    except OSError:
        return False
