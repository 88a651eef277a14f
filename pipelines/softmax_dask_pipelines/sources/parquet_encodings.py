"""How the values of Parquet's pages are encoded, decoded by compiled code without the GIL.

Nothing here believes a page: what does not follow the rules, or would lead beyond the arrays that are given, is
answered with False. Arrays of bytes are read-only, so that each kernel is compiled once for each width of values.

References
----------
Runs, packed bits, dictionaries and split streams: https://github.com/apache/parquet-format/blob/master/Encodings.md
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_dask import kernel

Bytes = NDArray[np.uint8]

_HEADER_BITS = 28
"""Of a run's header, beyond which no page is as long."""


def row_pattern(classes: int) -> Bytes:
    """For `rows_begin`: repetition levels as bits, eight from each place of a row, or of rows that are eight long."""
    places = np.arange(classes * -(-8 // classes))
    pattern = np.zeros(len(places), np.uint8)
    for bit in range(8):
        pattern |= ((places + bit) % classes != 0).astype(np.uint8) << bit
    pattern.flags.writeable = False
    return pattern


@kernel
def rows_begin(levels: Bytes, count: int, classes: int, pattern: Bytes, place: int) -> bool:
    """Whether rows begin each `classes` values, and nowhere else, by the repetition levels of a page.

    Parameters
    ----------
    levels : runs and packed bits, one bit a level: 0 where a row begins
    count : levels there are
    pattern : `row_pattern(classes)`
    place : of the first value in its row
    """
    at = 0
    while count > 0:
        header, at = run_header(levels, at)
        length = header >> 1
        if header < 0 or length == 0:
            return False
        if header & 1:
            if length > len(levels) - at:
                return False
            wrong = 0
            for i in range(at, at + min(length, count >> 3)):
                wrong |= levels[i] ^ pattern[place]
                place += 8
                if place >= len(pattern):
                    place -= len(pattern)
            rest = count & 7 if length > count >> 3 else 0
            if rest:  # of the byte that the last levels are in, the other bits say nothing
                wrong |= (levels[at + (count >> 3)] ^ pattern[place]) & ((1 << rest) - 1)
            if wrong:
                return False
            at += length
            count -= 8 * length
        else:
            if at >= len(levels) or levels[at] > 1:
                return False
            length = min(length, count)
            place %= classes
            within_row = 0 < place <= classes - length
            begins_rows = classes == 1 or (length == 1 and place == 0)
            if not (within_row if levels[at] else begins_rows):
                return False
            at += 1
            count -= length
            place = (place + length) % classes
    return True


@kernel
def look_up(indices: Bytes, dictionary: NDArray[Any], values: NDArray[Any]) -> bool:
    """Fill `values` with entries of `dictionary`; `indices` are runs and packed bits, after a byte with their width."""
    if len(indices) == 0 or indices[0] > 32:
        return False
    bits: Any = np.int64(indices[0])
    at, done = 1, 0
    while done < len(values):
        header, at = run_header(indices, at)
        if header >> 1 <= 0:
            return False
        if header & 1:
            count = min((header >> 1) * 8, len(values) - done)
            packed = indices[at : at + (header >> 1) * bits]
            if len(packed) < (header >> 1) * bits:
                return False
            if not _look_up_packed(packed, bits, dictionary, values[done : done + count]):
                return False
            at += len(packed)
        else:
            count = min(header >> 1, len(values) - done)
            entry = np.int64(0)
            for shift in range(0, bits, 8):
                if at >= len(indices):
                    return False
                entry |= np.int64(indices[at]) << shift
                at += 1
            if entry >= len(dictionary):
                return False
            values[done : done + count] = dictionary[entry]
        done += count
    return True


@kernel
def _look_up_packed(packed: Bytes, bits: int, dictionary: NDArray[Any], values: NDArray[Any]) -> bool:
    words = packed[: len(packed) & ~3].view(np.uint32)
    held: Any = np.uint64(0)
    held_bits, word, byte = 0, 0, len(words) * 4
    for i in range(len(values)):
        if held_bits < bits and word < len(words):  # in fewer turns than byte by byte
            held |= np.uint64(words[word]) << np.uint64(held_bits)
            word += 1
            held_bits += 32
        while held_bits < bits:
            held |= np.uint64(packed[byte]) << np.uint64(held_bits)
            byte += 1
            held_bits += 8
        entry = held & np.uint64((1 << bits) - 1)
        if entry >= np.uint64(len(dictionary)):
            return False
        values[i] = dictionary[entry]
        held >>= np.uint64(bits)
        held_bits -= bits
    return True


@kernel
def join_streams(streams: Bytes, values: NDArray[Any]) -> None:
    """Fill `values`, unsigned integers, from a stream of their first bytes, one of their second bytes, and so on."""
    count = len(values)
    values[:] = 0
    for j in range(values.itemsize):
        stream, shift = streams[j * count : (j + 1) * count], 8 * j
        for i in range(count):
            values[i] |= values.dtype.type(stream[i]) << shift


@kernel
def run_header(data: Bytes, at: int) -> tuple[int, int]:
    """A number as runs begin with, and where what follows begins; -1 where there is none, or an absurd one."""
    header: Any = np.int64(0)
    bits = 0
    while at < len(data) and bits <= _HEADER_BITS:
        byte = np.int64(data[at])
        header |= (byte & 0x7F) << bits
        at += 1
        bits += 7
        if byte < 0x80:
            return header, at
    return -1, at
