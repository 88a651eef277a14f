"""A number for each row, from its id: which half it belongs to hangs on nothing else.

The same id gives the same number on every machine, in every order of rows and whatever stands beside it, so rows that
are added later change no half.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]

_WORD = 8
_PIECE_BYTES = 4 << 20
"""Of texts that are laid out beside one another at once."""


def number_keys(numbers: NDArray[Any]) -> Keys:
    """Keys of integers: row numbers, or ids."""
    return _mixed(numbers.astype(np.int64).view(np.uint64))


def text_keys(texts: Sequence[str]) -> Keys:
    """Keys of texts."""
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return byte_keys(np.frombuffer(b"".join(encoded), np.uint8), ends)


def byte_keys(data: NDArray[np.uint8], offsets: NDArray[Any]) -> Keys:
    """Keys of texts that lie one after the other in `data`: number i from `offsets[i]` to `offsets[i + 1]`."""
    keys = np.empty(len(offsets) - 1, np.uint64)
    longest = int(np.diff(offsets).max(initial=0))
    step = max(1, _PIECE_BYTES // (longest + _WORD))
    for start in range(0, len(keys), step):
        keys[start : start + step] = _keys_of_piece(data, offsets[start : start + step + 1])
    return keys


def _keys_of_piece(data: NDArray[np.uint8], offsets: NDArray[Any]) -> Keys:
    lengths = np.diff(offsets)
    width = -(-int(lengths.max(initial=0)) // _WORD) * _WORD
    padded = np.zeros((len(lengths), width), np.uint8)
    padded[np.arange(width) < lengths[:, None]] = data[offsets[0] : offsets[-1]]
    keys = _mixed(lengths.astype(np.uint64))  # "a" and "a\0" differ
    for place, word in enumerate(padded.view("<u8").T):
        # What is beyond a text's own end is another one's length.
        keys = np.where(lengths > place * _WORD, _mixed(keys ^ word), keys)
    return keys


def _mixed(values: Keys) -> Keys:
    """Each bit of the result hangs on every bit of the value: the finaliser of SplitMix64 (Steele et al. 2014)."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
