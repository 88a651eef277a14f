"""A file that is fetched in blocks has the bytes of the file, and fetches few of them twice."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softmax_dask_pipelines.sources import range_file
from softmax_dask_pipelines.sources.range_file import Blocks, RangeFile

DATA = bytes(range(256)) * 4


def _file(block_bytes: int = 100) -> tuple[RangeFile, list[tuple[int, int]]]:
    fetched: list[tuple[int, int]] = []

    def fetch(start: int, length: int) -> bytes:
        assert 0 <= start < start + length <= len(DATA)
        fetched.append((start, length))
        return DATA[start : start + length]

    return RangeFile(Blocks(len(DATA), fetch, block_bytes=block_bytes)), fetched


@given(st.lists(st.tuples(st.integers(0, 1100), st.integers(-1, 1100)), max_size=8), st.integers(1, 300))
def test_it_reads_as_bytes_do(steps, block_bytes):
    file, plain = _file(block_bytes)[0], io.BytesIO(DATA)

    for at, size in steps:
        assert file.seek(at) == plain.seek(at)
        assert file.read(size) == plain.read(size)
        assert file.tell() == plain.tell()


@pytest.mark.parametrize(("offset", "whence"), [(-8, io.SEEK_END), (5, io.SEEK_CUR), (7, io.SEEK_SET)])
def test_it_goes_where_a_file_goes(offset, whence):
    file, plain = _file()[0], io.BytesIO(DATA)

    assert file.seek(offset, whence) == plain.seek(offset, whence)
    assert file.read(3) == plain.read(3)


def test_a_block_is_fetched_once():
    file, fetched = _file()

    for at in range(0, len(DATA), 10):
        file.seek(at)
        file.read(10)

    assert fetched == [(start, min(100, len(DATA) - start)) for start in range(0, len(DATA), 100)]


def test_what_is_larger_than_all_that_is_held_is_fetched_alone(monkeypatch):
    monkeypatch.setattr(range_file, "HELD_BYTES", 300)
    file, fetched = _file()

    assert file.read() == DATA
    assert fetched == [(0, len(DATA))]


def test_what_is_expected_is_fetched_once_as_there_is_room(monkeypatch):
    monkeypatch.setattr(range_file, "HELD_BYTES", 300)
    file, fetched = _file()
    file.blocks.expect([(0, 150), (150, 250), (400, 600)])

    for start, length in ((0, 150), (150, 250), (400, 200), (600, 200), (800, 200)):
        file.blocks.fetch_ahead(start)
        assert len(file.blocks._held) <= 3
        file.seek(start)
        assert file.read(length) == DATA[start : start + length]
    file.blocks.close()

    assert sorted(fetched) == [(start, 100) for start in range(0, 1000, 100)]


def test_an_error_is_raised_where_the_block_is_read():
    def fetch(start: int, length: int) -> bytes:
        if start == 100:
            raise ConnectionError("away")
        return DATA[start : start + length]

    file = RangeFile(Blocks(len(DATA), fetch, block_bytes=100))
    file.blocks.expect([(0, 300)])
    file.blocks.fetch_ahead(0)

    assert file.read(100) == DATA[:100]
    with pytest.raises(ConnectionError):
        file.read(100)
    file.blocks.close()


@pytest.mark.parametrize("part", [(-1, -1), (5, -1), (0, 0), (10**12, 10)])
def test_parts_that_cannot_be_are_not_fetched(part):
    file, fetched = _file()

    file.blocks.expect([part])
    file.blocks.fetch_ahead(0)
    file.blocks.close()

    assert fetched == []
