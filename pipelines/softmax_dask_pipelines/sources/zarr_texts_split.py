"""Texts with their lengths between them, taken apart by compiled code without the GIL.

Nothing here believes a length: what would lead beyond the arrays that are given is answered with False.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_dask import kernel

_LENGTH_BYTES = 4


@kernel
def split_texts(stored: NDArray[np.uint8], ends: NDArray[np.int32], texts: NDArray[np.uint8]) -> Any:
    """Fill `ends` (Arrow's offsets, one more than texts) and `texts`; whether all three arrays are used up.

    Parameters
    ----------
    stored : each text behind its length in 4 bytes, little-endian
    """
    at = done = 0
    ends[0] = 0
    for i in range(1, len(ends)):
        if len(stored) - at < _LENGTH_BYTES:
            return False
        length: Any = 0
        for k in range(_LENGTH_BYTES):
            length |= np.int64(stored[at + k]) << (8 * k)
        at += _LENGTH_BYTES
        if length > len(stored) - at or length > len(texts) - done:
            return False
        for k in range(length):
            texts[done + k] = stored[at + k]
        at, done = at + length, done + length
        ends[i] = done
    return at == len(stored) and done == len(texts)
