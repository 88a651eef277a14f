"""Pages in which each text is stored as what it does not share with the one before: how much is shared.

So a page of a few bytes may hold gigabytes. It begins with the lengths of what is shared, packed as Parquet's
DELTA_BINARY_PACKED; see https://github.com/apache/parquet-format/blob/master/Encodings.md
"""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

_LARGEST_COUNT = 2**20
"""Numbers that are unpacked at once: far more than writers put in a page."""
_LARGEST_LENGTH = 2**31 - 1
_LARGEST_BLOCK = 2**16


def shared_lengths(data: bytes, at: int = 0) -> NDArray[np.int64]:
    """Bytes that each text shares with the one before, of a page that begins at `at`.

    Raises
    ------
    ValueError, IndexError
        These bytes are no such page, or of one that no writer makes.
    """
    block, at = _varint(data, at)
    parts, at = _varint(data, at)
    count, at = _varint(data, at)
    first, at = _zigzag(data, at)
    if not (0 < parts <= block <= _LARGEST_BLOCK and count <= _LARGEST_COUNT) or block % parts or block // parts % 32:
        raise ValueError(f"{count} numbers in blocks of {block}, {parts} parts each")
    part = block // parts
    places, minima = _places(data, at, count - 1, parts, part)
    deltas = np.zeros(len(minima) * part, np.int64)
    _unpack(data, places, deltas.reshape(len(minima), part))
    deltas += np.repeat(np.array(minima, np.int64), part)
    lengths = np.concatenate([[first], first + np.cumsum(deltas[: max(0, count - 1)])])[:count]
    if count and not 0 <= lengths.min() <= lengths.max() <= _LARGEST_LENGTH:
        raise ValueError("a length is negative or too large")
    return lengths


_Places = dict[int, list[tuple[int, int]]]


def _places(data: bytes, at: int, count: int, parts: int, part: int) -> tuple[_Places, list[int]]:
    """Of each part its number and where it begins, by its bits a number; and its least difference."""
    places: _Places = defaultdict(list)
    minima: list[int] = []
    while count > 0:
        least, at = _zigzag(data, at)
        widths = data[at : at + min(parts, -(-count // part))]
        at += parts
        for number, width in enumerate(widths, len(minima)):
            places[width].append((number, at))
            at += width * part // 8
        minima += [least] * len(widths)
        count -= part * parts
        if at > len(data):
            raise ValueError("the lengths end too early")
    return places, minima


def _unpack(data: bytes, places: _Places, deltas: NDArray[np.int64]) -> None:
    """Fill the rows of `deltas`, all parts of one width at a time."""
    padded = data + bytes(8)
    # The eight bytes from each byte on: a number of at most 32 bits lies in those from its first bit's byte on.
    words = np.ndarray(len(data) + 1, "<i8", padded, strides=(1,))
    for width, found in places.items():
        if width > 32:
            raise ValueError(f"differences of {width} bits")
        numbers, starts = np.array(found).T
        bits = np.arange(deltas.shape[1]) * width
        deltas[numbers] = (words[starts[:, None] + bits // 8] >> bits % 8) & ((1 << width) - 1)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        digit = data[at]
        at += 1
        number |= (digit & 127) << shift
        if digit < 128:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    number, at = (data[at], at + 1) if data[at] < 128 else _varint(data, at)  # most are: a call less
    if number > 4 * _LARGEST_LENGTH:
        raise ValueError("a length is too large")
    return (number >> 1) ^ -(number & 1), at
