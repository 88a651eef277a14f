"""Levels, dictionaries and split streams: what the compiled parts find, beside the same said in NumPy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from softmax_dask_pipelines.sources.parquet_encodings import (
    join_streams,
    look_up,
    row_pattern,
    rows_begin,
    run_header,
)

CLASSES = st.sampled_from([1, 2, 3, 5, 7, 8, 9, 10, 16, 33])
CUTS = st.lists(st.integers(0, 200), max_size=5)


def fixed(data: Any) -> NDArray[np.uint8]:
    """Bytes as a page has them: nobody may write there."""
    return np.frombuffer(bytes(data), np.uint8)


def varint(number: int) -> bytes:
    digits = []
    while number > 127:
        digits.append(number % 128 + 128)
        number //= 128
    return bytes([*digits, number])


def run(value: int, count: int, bits: int) -> bytes:
    return varint(2 * count) + value.to_bytes(-(-bits // 8), "little")


def packed(values: Sequence[int], bits: int) -> bytes:
    """Groups of eight; the last one filled up with ones, which say nothing."""
    groups = -(-len(values) // 8)
    filled = [*values, *[(1 << bits) - 1] * (8 * groups - len(values))]
    ones = [value >> bit & 1 for value in filled for bit in range(bits)]
    return varint(2 * groups + 1) + np.packbits(np.array(ones, np.uint8), bitorder="little").tobytes()


def encoded(values: Sequence[int], bits: int, cuts: Sequence[int]) -> bytes:
    """Runs where a piece is all the same, packed bits elsewhere; those are cut at multiples of eight only."""
    data, at = b"", 0
    for cut in [*sorted(cuts), len(values)]:
        piece = values[at:cut]
        if piece and len(set(piece)) == 1:
            data += run(piece[0], len(piece), bits)
        elif cut == len(values):
            data += packed(piece, bits) if piece else b""
        else:
            whole = len(piece) // 8 * 8
            data += packed(piece[:whole], bits) if whole else b""
            cut = at + whole
        at = cut
    return data


def levels_of(classes: int, place: int, count: int) -> list[int]:
    return [int((place + i) % classes != 0) for i in range(count)]


@given(CLASSES, st.integers(0, 40), st.integers(0, 200), CUTS)
def test_rows_of_full_length_are_found_however_levels_are_cut(
    classes: int, place: int, count: int, cuts: list[int]
) -> None:
    place %= classes
    data = encoded(levels_of(classes, place, count), 1, [min(cut, count) for cut in cuts])

    assert rows_begin(fixed(data), count, classes, row_pattern(classes), place)


@given(CLASSES, st.integers(0, 40), st.integers(1, 200), CUTS, st.data())
def test_one_level_that_is_wrong_is_found(
    classes: int, place: int, count: int, cuts: list[int], chosen: st.DataObject
) -> None:
    place %= classes
    levels = levels_of(classes, place, count)
    levels[chosen.draw(st.integers(0, count - 1))] ^= 1
    data = encoded(levels, 1, [min(cut, count) for cut in cuts])

    assert not rows_begin(fixed(data), count, classes, row_pattern(classes), place)


@given(CLASSES, st.binary(max_size=40), st.integers(1, 300))
def test_bytes_are_rows_only_if_they_decode_to_their_levels(classes: int, data: bytes, count: int) -> None:
    found = rows_begin(fixed(data), count, classes, row_pattern(classes), 0)

    assert found == (decoded(data, 1, count) == levels_of(classes, 0, count))


def decoded(data: bytes, bits: int, count: int) -> list[int] | None:
    """As the specification says, a number at a time; None where it ends too soon, or nothing is said."""
    values: list[int] = []
    at = 0
    while len(values) < count:
        header = shift = 0
        while True:
            if at >= len(data) or shift > 28:
                return None
            header |= (data[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 128:
                break
        size = (header >> 1) * bits if header & 1 else -(-bits // 8)
        if header < 2 or at + size > len(data):
            return None
        number = int.from_bytes(data[at : at + size], "little")
        if header & 1:
            # Without bits a few bytes may say that billions follow.
            values += [number >> bits * i & ((1 << bits) - 1) for i in range(min(8 * (header >> 1), count))]
        else:
            values += [number] * min(header >> 1, count)
        at += size
    return values[:count]


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64])
@given(bits=st.integers(0, 20), count=st.integers(1, 200), cuts=CUTS, seed=st.integers(0, 99))
def test_entries_are_looked_up(dtype: Any, bits: int, count: int, cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    dictionary = rng.integers(0, np.iinfo(dtype).max, min(1 << bits, 300), dtype)
    dictionary.flags.writeable = False
    indices = rng.integers(0, len(dictionary), count).tolist()
    values = np.zeros(count, dtype)

    found = look_up(fixed(bytes([bits]) + encoded(indices, bits, cuts)), dictionary, values)

    assert found
    assert np.array_equal(values, dictionary[indices])


@given(st.integers(0, 40), st.binary(max_size=40), st.integers(1, 100), st.integers(0, 300))
@example(bits=0, data=varint(2**35 - 1), count=5, entries=1)
def test_bytes_are_indices_only_if_they_lead_to_entries(bits: int, data: bytes, count: int, entries: int) -> None:
    dictionary = np.arange(entries, dtype=np.uint32)
    dictionary.flags.writeable = False
    values = np.zeros(count, np.uint32)

    found = look_up(fixed(bytes([bits]) + data), dictionary, values)

    wanted = decoded(data, bits, count) if bits <= 32 else None
    assert found == (wanted is not None and max(wanted) < entries)
    assert not found or values.tolist() == wanted


def test_no_indices_at_all_are_refused() -> None:
    assert not look_up(fixed(b""), np.zeros(0, np.uint32), np.zeros(3, np.uint32))


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64])
def test_split_streams_are_joined(dtype: Any) -> None:
    wanted = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, 1001, dtype)
    streams = wanted.view(np.uint8).reshape(len(wanted), -1).T
    values = np.ones(len(wanted), dtype)

    join_streams(fixed(streams.tobytes()), values)

    assert np.array_equal(values, wanted)


@given(st.integers(0, 2**35 - 1))
def test_a_number_is_read_and_where_it_ends(number: int) -> None:
    data = varint(number)

    assert run_header(fixed(b"\xff" + data + b"more"), 1) == (number, 1 + len(data))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 5 + b"\x01", b"\xff" * 20], ids=repr)
def test_a_number_without_an_end_is_none(data: bytes) -> None:
    assert run_header(fixed(data), 0)[0] == -1


@pytest.mark.parametrize("classes", [1, 2, 3, 8, 10, 1000])
def test_the_pattern_of_rows_has_eight_levels_from_each_place(classes: int) -> None:
    pattern = row_pattern(classes)

    assert len(pattern) >= 8
    assert [int(byte) for byte in pattern] == [
        sum(level << bit for bit, level in enumerate(levels_of(classes, place, 8))) for place in range(len(pattern))
    ]
