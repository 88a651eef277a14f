"""Pages whose headers lie about what they decompress to or hold: refused before they cost memory."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from softmax_dask_pipelines.errors import CorruptFileError, MetadataLimitError
from softmax_dask_pipelines.sources import Source, SourceRequest, open_source
from tests.pipelines import dumps
from tests.pipelines.sources import parquet_forged

MIB = 2**20
BOMB_BYTES = 256 * MIB
ALLOWED_BYTES = 64 * MIB
"""Beside what a process takes that reads a sound file: the largest of these files is 12 MiB, and read whole."""

CODECS = {"zstd": "zstd", "snappy": "snappy", "gzip": "gzip", "lz4": "lz4_raw", "brotli": "brotli"}
"""What pyarrow calls a codec in Parquet, and elsewhere."""

READ = """
import sys
from softmax_dask_pipelines.errors import CorruptFileError
from softmax_dask_pipelines.sources import SourceRequest, open_source
try:
    source = open_source(SourceRequest(sys.argv[1]))
    rows = sum(len(block.logits) for block in source.read(0, source.facts.rows))
except CorruptFileError:
    rows = "refused"
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(rows, int(peak.split()[1]) * 1024)
"""


def _header_lies(path: Path, codec: str, size: int) -> Path:
    """The footer says that the column is small, the page that it is large, and so it is."""
    stored = pa.compress(bytes(size), codec=CODECS[codec], asbytes=True)
    parquet_forged.with_page(parquet_forged.one_page(path, compression=codec), stored, uncompressed=size)
    return path


def _stream_lies(path: Path, codec: str, size: int) -> Path:
    """Footer and page say that the page is small, but what is compressed is large."""
    stored = pa.compress(bytes(size), codec=CODECS[codec], asbytes=True)
    parquet_forged.with_page(parquet_forged.one_page(path, compression=codec), stored, uncompressed=3000)
    return path


def _nulls(path: Path, count: int) -> Path:
    """A list of so many nulls, of which the footer knows nothing."""
    stored = parquet_forged.page_of_nulls(count)
    one_page = parquet_forged.one_page(path, compression="none")
    parquet_forged.with_page(one_page, stored, uncompressed=len(stored), values=count)
    return path


def _read_alone(path: Path) -> tuple[str, int]:
    """Rows or `refused`, and the most memory that a process of its own takes."""
    done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True)
    rows, peak_bytes = done.stdout.split()
    return rows, int(peak_bytes)


def _open(path: Path) -> Source:
    return open_source(SourceRequest(str(path)))


@pytest.fixture(scope="module")
def sound_bytes(tmp_path_factory: pytest.TempPathFactory) -> int:
    rows, peak_bytes = _read_alone(parquet_forged.one_page(tmp_path_factory.mktemp("sound") / "sound.parquet"))
    assert rows == "103"
    return peak_bytes


@pytest.mark.slow
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("forge", [_header_lies, _stream_lies])
def test_a_bomb_takes_no_memory(
    tmp_path: Path, sound_bytes: int, forge: Callable[[Path, str, int], Path], codec: str
) -> None:
    path = forge(tmp_path / "bomb.parquet", codec, BOMB_BYTES)

    rows, peak_bytes = _read_alone(path)

    assert rows == "refused"
    assert peak_bytes < sound_bytes + ALLOWED_BYTES


@pytest.mark.slow
def test_a_list_of_very_many_nulls_takes_no_memory(tmp_path: Path, sound_bytes: int) -> None:
    path = _nulls(tmp_path / "bomb.parquet", BOMB_BYTES)

    rows, peak_bytes = _read_alone(path)

    assert rows == "refused"
    assert peak_bytes < sound_bytes + ALLOWED_BYTES


@pytest.mark.parametrize("codec", CODECS)
def test_a_page_larger_than_its_column_names_file_column_and_row_group(tmp_path: Path, codec: str) -> None:
    path = _header_lies(tmp_path / "bomb.parquet", codec, 16 * MIB)

    with pytest.raises(
        CorruptFileError, match=rf"bomb\.parquet: column 'logits.*' of row group 0: .* to {16 * MIB} bytes; expected at"
    ):
        _open(path)


@pytest.mark.parametrize("codec", CODECS)
def test_a_page_that_is_more_than_its_header_says_is_corrupt(tmp_path: Path, codec: str) -> None:
    path = _stream_lies(tmp_path / "bomb.parquet", codec, 16 * MIB)

    with pytest.raises(CorruptFileError, match=r"bomb\.parquet: is no whole Parquet file"):
        _open(path)


def test_a_page_of_more_values_than_its_column_is_refused(tmp_path: Path) -> None:
    path = _nulls(tmp_path / "bomb.parquet", 516)

    with pytest.raises(CorruptFileError, match=r"bomb\.parquet: column 'logits.*' of row group 0: .*holds 516 values"):
        _open(path)


@pytest.mark.parametrize(("uncompressed", "values"), [(-1, None), (2**31 - 1, None), (100, -1)])
def test_a_page_of_impossible_size_is_refused(tmp_path: Path, uncompressed: int, values: int | None) -> None:
    path = parquet_forged.one_page(tmp_path / "bomb.parquet", compression="none")
    parquet_forged.with_page(path, bytes(100), uncompressed=uncompressed, values=values)

    with pytest.raises(CorruptFileError, match=r"a page says that it .*; expected at most what the footer says"):
        _open(path)


def test_a_later_page_is_checked_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"logits": dumps.fixed_lists(dumps.logits(2000))})
    path = dumps.parquet_file(tmp_path / "dump.parquet", table, use_dictionary=False, data_page_size=1000)
    source = _open(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:8000] + bytes(4000) + whole[12000:])
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", None)

    with pytest.raises(CorruptFileError, match="row group 0: a page says that it decompresses from -1 to -1 bytes"):
        next(source.read(0, 1))


def test_a_page_header_as_long_as_its_texts_is_read(tmp_path: Path) -> None:
    texts = [f"{i:03}" * 700 for i in range(103)]
    table = pa.table({"logits": dumps.lists(dumps.logits()), "id": texts})
    path = dumps.parquet_file(tmp_path / "dump.parquet", table, use_dictionary=False)

    block = next(open_source(SourceRequest(str(path))).read(0, 103))

    assert block.carried["id"].to_pylist() == texts


def test_one_page_of_a_whole_row_group_is_planned_for(tmp_path: Path) -> None:
    table = pa.table({"logits": dumps.fixed_lists(dumps.logits(20_000, 100))})
    small, large = (
        dumps.parquet_file(tmp_path / f"{size}.parquet", table, use_dictionary=False, data_page_size=size)
        for size in (MIB, 64 * MIB)
    )

    planned = [_open(path).facts.read_overhead_bytes for path in (small, large)]

    assert planned[1] - planned[0] > 2 * (8_000_000 - 2 * MIB)


def _with_later_pages_of(path: Path, rows: int, groups: int) -> Path:
    """Row groups with pages of about 100 kB, then one that is a page of so many rows of 400 bytes."""
    small = pa.table({"logits": dumps.fixed_lists(dumps.logits(1000, 100))})
    large = pa.table({"logits": dumps.fixed_lists(dumps.logits(rows, 100))})
    options = {"use_dictionary": False, "data_page_size": 100_000, "compression": "none", "write_batch_size": 100}
    with pq.ParquetWriter(path, small.schema, **options) as writer:
        for _ in range(groups):
            writer.write_table(small)
    pq.write_table(large, path.with_name("z.parquet"), **{**options, "data_page_size": 64 * MIB})
    return path.parent


def test_a_later_page_that_is_much_larger_is_planned_for(tmp_path: Path) -> None:
    folder = _with_later_pages_of(tmp_path / "a.parquet", rows=20_000, groups=3)

    planned = open_source(SourceRequest(str(folder))).facts.read_overhead_bytes

    assert planned > 2 * 20_000 * 400


def test_a_page_that_no_memory_is_planned_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softmax_dask_pipelines.sources.parquet_survey._PAGES", 8)
    folder = _with_later_pages_of(tmp_path / "a.parquet", rows=20_000, groups=10)
    source = open_source(SourceRequest(str(folder)))

    with pytest.raises(
        MetadataLimitError, match=r"z\.parquet: column 'logits.*' of row group 0: a page .* about 1 MiB"
    ):
        list(source.read(0, source.facts.rows))
