"""Texts that a Parquet file repeats: megabytes at most on disk, gigabytes decoded. Scored as planned, or refused."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from softmax_dask_pipelines.errors import CorruptFileError, MetadataLimitError
from softmax_dask_pipelines.sources import SourceRequest, open_source
from softmax_dask_pipelines.sources.parquet_files import open_parts
from softmax_dask_pipelines.sources.parquet_footer import Chunk
from softmax_dask_pipelines.sources.parquet_pages import sound_pages
from softmax_dask_pipelines.sources.parquet_stream import text_chunk
from tests.pipelines import dumps

MIB = 2**20
ROWS = 10_000
ALLOWED_BYTES = 96 * MIB
"""Beside what a process takes that reads a sound file: a batch of text while it grows, and what a read may keep."""

DELTA = {"use_dictionary": False, "column_encoding": {"id": "DELTA_BYTE_ARRAY"}}
ENCODINGS: dict[str, dict[str, Any]] = {
    "dictionary": {},
    "dictionary, pages v2": {"data_page_version": "2.0", "compression": "gzip"},
    "delta": DELTA,
    "delta, pages v2": {**DELTA, "data_page_version": "2.0", "compression": "zstd"},
    "delta lengths": {
        "use_dictionary": False,
        "column_encoding": {"id": "DELTA_LENGTH_BYTE_ARRAY"},
        "compression": "zstd",
    },
    "plain": {"use_dictionary": False, "compression": "zstd"},
}
TYPES = {"large_string": pa.large_string(), "string_view": pa.string_view()}

READ = """
import sys
from softmax_dask_pipelines.errors import DataError
from softmax_dask_pipelines.sources import SourceRequest, open_source
try:
    source = open_source(SourceRequest(sys.argv[1], id=sys.argv[2]))
    rows = sum(len(block.logits) for block in source.read(0, source.facts.rows))
except DataError:
    rows = "refused"
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(rows, int(peak.split()[1]) * 1024)
"""


def _dump(path: Path, texts: Any, **options: Any) -> Path:
    table = pa.table({"logits": dumps.fixed_lists(dumps.logits(len(texts))), "id": texts})
    return dumps.parquet_file(path, table, **options)


def _read_alone(path: Path, name: str = "id") -> tuple[str, int]:
    """Rows or `refused`, and the most memory that a process of its own takes."""
    done = subprocess.run([sys.executable, "-c", READ, str(path), name], capture_output=True, text=True, check=True)
    rows, peak_bytes = done.stdout.split()
    return rows, int(peak_bytes)


def _hidden() -> list[str]:
    """Most entries of the dictionary are short, most rows are long: its size does not tell."""
    return [f"{i:09}" for i in range(1000)] + ["x" * 100_000] * (ROWS - 1000)


@pytest.fixture(scope="module")
def sound_bytes(tmp_path_factory: pytest.TempPathFactory) -> int:
    ids = [f"{i:09}" for i in range(ROWS)]
    rows, peak_bytes = _read_alone(_dump(tmp_path_factory.mktemp("sound") / "in.parquet", ids))
    assert rows == str(ROWS)
    return peak_bytes


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_long_text_that_repeats_takes_no_memory(tmp_path: Path, sound_bytes: int, encoding: str) -> None:
    path = _dump(tmp_path / "bomb.parquet", ["x" * 100_000] * ROWS, **ENCODINGS[encoding])
    assert path.stat().st_size < MIB

    rows, peak_bytes = _read_alone(path)

    assert rows == "refused"
    assert peak_bytes < sound_bytes + ALLOWED_BYTES


@pytest.mark.long
@pytest.mark.parametrize("kind", TYPES)
def test_whatever_type_the_text_has(tmp_path: Path, sound_bytes: int, kind: str) -> None:
    path = _dump(tmp_path / "bomb.parquet", pa.array(["x" * 100_000] * ROWS, TYPES[kind]))

    rows, peak_bytes = _read_alone(path)

    assert rows == "refused"
    assert peak_bytes < sound_bytes + ALLOWED_BYTES


@pytest.mark.long
def test_a_member_of_a_struct_that_repeats_takes_no_memory(tmp_path: Path, sound_bytes: int) -> None:
    members = [pa.array(["x" * 100_000] * ROWS), dumps.fixed_lists(dumps.logits(ROWS))]
    table = pa.table({"outputs": pa.StructArray.from_arrays(members, ["key", "logits"])})
    path = dumps.parquet_file(tmp_path / "bomb.parquet", table)

    rows, peak_bytes = _read_alone(path, "outputs.key")

    assert rows == "refused"
    assert peak_bytes < sound_bytes + ALLOWED_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pa.string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_a_long_text_hidden_among_short_ones_takes_no_memory(tmp_path: Path, sound_bytes: int, kind: Any) -> None:
    texts = pa.array(_hidden()).dictionary_encode().cast(kind)
    path = _dump(tmp_path / "bomb.parquet", texts, dictionary_pagesize_limit=16 * MIB)

    rows, peak_bytes = _read_alone(path)

    assert rows == "refused"
    assert peak_bytes < sound_bytes + ALLOWED_BYTES


@pytest.mark.parametrize("encoding", ["dictionary", "delta", "delta, pages v2"])
def test_the_error_names_file_column_and_a_remedy(tmp_path: Path, encoding: str) -> None:
    path = _dump(tmp_path / "bomb.parquet", ["x" * 100_000] * 100, **ENCODINGS[encoding])

    with pytest.raises(MetadataLimitError, match=r"bomb\.parquet: column 'id' of row group 0: .*; expected.* name ano"):
        open_source(SourceRequest(str(path)))


def test_a_read_refuses_more_text_than_was_planned_for(tmp_path: Path) -> None:
    texts = [f"{i:09}" for i in range(1000)] + ["x" * 100_000] * 1000
    path = _dump(tmp_path / "bomb.parquet", texts, dictionary_pagesize_limit=16 * MIB)
    source = open_source(SourceRequest(str(path)))

    with pytest.raises(MetadataLimitError, match=r"bomb\.parquet: column 'id' holds far longer texts .*name another"):
        list(source.read(0, 2000))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("nulls", [False, True], ids=["", "nulls"])
def test_long_ids_are_read_as_they_are(tmp_path: Path, encoding: str, nulls: bool) -> None:
    lengths = np.random.default_rng(3).integers(0, 5000, ROWS // 10).tolist()
    texts = [None if nulls and i % 7 == 3 else f"{i % 50}é" + "y" * length for i, length in enumerate(lengths)]
    path = _dump(tmp_path / "in.parquet", texts, row_group_size=400, **ENCODINGS[encoding])

    blocks = list(open_source(SourceRequest(str(path))).read(3, len(texts)))

    assert [text for block in blocks for text in block.carried["id"].to_pylist()] == texts[3:]
    assert np.concatenate([block.logits for block in blocks]).tobytes() == dumps.logits(len(texts))[3:].tobytes()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_texts_that_are_decoded_a_few_rows_at_a_time_stay_beside_their_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setattr("softmax_dask_pipelines.sources.parquet_stream.TEXT_BATCH_BYTES", 1000)
    texts = [f"{i}" * (1 + i % 30) for i in range(1000)]
    path = _dump(tmp_path / "in.parquet", texts, row_group_size=301, **ENCODINGS[encoding])

    blocks = list(open_source(SourceRequest(str(path))).read(299, 905))

    assert [text for block in blocks for text in block.carried["id"].to_pylist()] == texts[299:905]
    assert np.concatenate([block.logits for block in blocks]).tobytes() == dumps.logits(1000)[299:905].tobytes()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("shape", ["one length", "short", "long", "sorted", "empty"])
@pytest.mark.parametrize("nulls", [False, True], ids=["", "nulls"])
def test_no_run_of_rows_is_longer_than_its_bound(tmp_path: Path, encoding: str, shape: str, nulls: bool) -> None:
    chance = np.random.default_rng(5)
    lengths = {
        "one length": np.full(700, 32),
        "short": chance.integers(0, 250, 700),
        "long": chance.integers(0, 3000, 700),
        "sorted": np.arange(700),
        "empty": np.zeros(700, int),
    }[shape]
    texts = [None if nulls and i % 5 == 0 else "a" * int(length) for i, length in enumerate(lengths)]
    path = _dump(tmp_path / "in.parquet", texts, data_page_size=5000, write_batch_size=10, **ENCODINGS[encoding])
    part = open_parts(str(path))[0]
    chunk = Chunk._make(part.chunks[0, 1].tolist())

    with open(path, "rb") as file:
        pages = list(sound_pages(file, chunk, "a file"))
        largest = text_chunk(file, part, 1, chunk).largest(iter(pages), rows=1, allowed_bytes=0)

    sizes = np.array([len(text or "") for text in texts])
    runs = [int(np.convolve(sizes, np.ones(rows, int)).max()) for rows in (1, 10, 100)]
    page = max(page.uncompressed_bytes for page in pages)
    assert all(run <= rows * largest + 2 * page for rows, run in zip((1, 10, 100), runs, strict=True))


@pytest.mark.parametrize("encoding", ["dictionary", "delta", "delta, pages v2", "plain"])
def test_ids_of_ordinary_length_are_decoded_at_once(tmp_path: Path, encoding: str) -> None:
    texts = [f"train/shard-{i % 97:03}/{i * 7919 % 100003:07}" for i in range(60_000)]
    path = _dump(tmp_path / "in.parquet", texts, **ENCODINGS[encoding])
    part = open_parts(str(path))[0]
    chunk = Chunk._make(part.chunks[0, 1].tolist())

    with open(path, "rb") as file:
        largest = text_chunk(file, part, 1, chunk).largest(sound_pages(file, chunk, "-"), rows=60_000, allowed_bytes=0)

    assert largest <= 2 * len(texts[0])


def test_a_page_that_is_not_what_its_header_says_is_corrupt(tmp_path: Path) -> None:
    path = _dump(tmp_path / "in.parquet", [f"{i:020}" for i in range(60_000)], **DELTA, compression="none")
    part = open_parts(str(path))[0]
    with open(path, "rb") as file:
        page = next(sound_pages(file, Chunk._make(part.chunks[0, 1].tolist()), "-"))
    whole = bytearray(path.read_bytes())
    whole[page.start + 6 : page.start + 40] = bytes([255] * 34)
    path.write_bytes(whole)

    with pytest.raises((CorruptFileError, MetadataLimitError), match=r"in\.parquet: "):
        list(open_source(SourceRequest(str(path))).read(0, 60_000))


def test_texts_take_what_is_planned_for_them(tmp_path: Path) -> None:
    table = pa.table({"logits": dumps.fixed_lists(dumps.logits(3000)), "id": ["y" * 4000] * 3000})
    long = dumps.parquet_file(tmp_path / "long.parquet", table)
    assert pq.read_metadata(long).row_group(0).total_byte_size < MIB

    carried = open_source(SourceRequest(str(long))).facts.id

    assert carried is not None
    assert carried.text_bytes is not None
    assert carried.text_bytes >= 4000
