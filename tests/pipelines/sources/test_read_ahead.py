"""What comes next is read from the disk while a block is computed; nothing is asked for that is in memory already."""

import os
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest

from softmax_dask_pipelines.errors import MissingChunkError
from softmax_dask_pipelines.sources import SourceRequest, blocks, open_source, read_ahead
from tests.pipelines import dumps

LAYOUTS: dict[str, dict[str, Any]] = {
    "a chunk a block": {"chunks": (20, 5)},
    "chunks": {"chunks": (10, 5)},
    "classes chunked": {"chunks": (10, 2)},
    "shards": {"chunks": (5, 5), "shards": (40, 5)},
}
ROWS, BLOCK_ROWS = 103, 20

Asked = list[tuple[str, int, int]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """File, start and length of what the system is advised of; nothing is in its memory."""
    found: Asked = []

    def advise(descriptor: int, start: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        found.append((os.readlink(f"/proc/self/fd/{descriptor}"), start, length))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    monkeypatch.setattr(read_ahead, "_is_in_memory", lambda descriptor, position: False)
    return found


@pytest.fixture(params=LAYOUTS)
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(blocks, "READ_BYTES", 20 * BLOCK_ROWS)
    path = dumps.zarr_array(tmp_path / "a", dumps.logits(), **LAYOUTS[request.param])
    return open_source(SourceRequest(str(path)))


def test_the_files_of_the_next_block_are_asked_for_before_a_block_is_there(source: Any, asked: Asked) -> None:
    for block in range(-(-ROWS // BLOCK_ROWS)):
        asked.clear()
        rows = range(block * BLOCK_ROWS, min(ROWS, (block + 1) * BLOCK_ROWS))
        following = range(rows.stop, min(ROWS, rows.stop + BLOCK_ROWS))
        expected = {key for key, _, _ in source._chunks.parts(following)} if following else set()

        next(source.read(rows.start, ROWS))

        assert {str(Path(path).relative_to(source.facts.path)) for path, _, _ in asked} == expected


def test_every_byte_of_a_chunk_that_is_no_shard_is_asked_for_once(source: Any, asked: Asked) -> None:
    list(source.read(0, ROWS))

    assert len(set(asked)) == len(asked)
    if source._chunks.index is None:
        assert all((start, length) == (0, Path(path).stat().st_size) for path, start, length in asked)


def test_inner_chunks_that_lie_side_by_side_are_asked_for_as_one(
    tmp_path: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "READ_BYTES", 20 * BLOCK_ROWS)
    path = dumps.zarr_array(tmp_path / "a", dumps.logits(), compressors=None, **LAYOUTS["shards"])
    source: Any = open_source(SourceRequest(str(path)))

    next(source.read(0, ROWS))

    assert [length for _, _, length in asked] == [BLOCK_ROWS * 5 * 4]


def test_nothing_is_asked_for_that_is_in_memory(source: Any, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "_is_in_memory", lambda descriptor, position: True)

    list(source.read(0, ROWS))

    assert asked == []


def test_long_files_are_asked_for_in_steps(tmp_path: Path, asked: Asked) -> None:
    path = tmp_path / "long"
    path.write_bytes(bytes(5 << 19))

    with path.open("rb") as file:
        assert read_ahead.read_ahead(file, 100, (5 << 19) - 100)

    assert [(start, length) for _, start, length in asked] == [
        (100, 1 << 20),
        (100 + (1 << 20), 1 << 20),
        (100 + (2 << 20), (1 << 19) - 100),
    ]


def test_a_chunk_that_is_gone_is_found_by_who_reads_it(source: Any, asked: Asked) -> None:
    for key, _, _ in source._chunks.parts(range(80, ROWS)):
        (Path(source.facts.path) / key).unlink()
    rows = source.read(40, ROWS)

    assert np.array_equal(next(rows).logits, dumps.logits()[40:60])
    assert np.array_equal(next(rows).logits, dumps.logits()[60:80])
    with pytest.raises(MissingChunkError):
        next(rows)


def test_a_system_that_takes_no_advice_is_no_error(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any) -> None:
        raise OSError("no advice here")

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    monkeypatch.setattr(os, "preadv", refuse)

    assert np.array_equal(np.concatenate([block.logits for block in source.read(0, ROWS)]), dumps.logits())


def test_bytes_that_were_not_in_memory_are_there_soon(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(3 << 20))
    os.sync()

    with path.open("rb") as file:
        descriptor, last = file.fileno(), (3 << 20) - 1
        if not read_ahead._is_in_memory(descriptor, 0):  # which was just written
            pytest.skip("the file system cannot tell what is in memory, as tmpfs")
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        if not read_ahead.read_ahead(file, 0, 3 << 20):  # no look before it: that alone may have the byte read
            pytest.skip("the file system keeps what it was told to drop: it is in memory itself")
        deadline = monotonic() + 20
        while not read_ahead._is_in_memory(descriptor, last) and monotonic() < deadline:
            sleep(0.01)

        assert read_ahead._is_in_memory(descriptor, last)
        assert not read_ahead.read_ahead(file, 0, 3 << 20)
