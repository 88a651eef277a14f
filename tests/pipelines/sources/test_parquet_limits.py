"""Footers that claim too much, and pages that are not what was written: refused before they cost memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from softmax_dask_pipelines.errors import (
    CorruptFileError,
    MetadataLimitError,
    PermissionDeniedError,
    RaggedRowsError,
    SourceFormatError,
)
from softmax_dask_pipelines.sources import Source, SourceRequest, open_source
from tests.pipelines import dumps
from tests.pipelines.sources.parquet_forged import with_claimed_size


def _open(path: Path, **request: Any) -> Source:
    return open_source(SourceRequest(str(path), **request))


def _dump(path: Path, **columns: Any) -> Path:
    return dumps.parquet_file(path / "dump.parquet", pa.table({"logits": dumps.lists(dumps.logits()), **columns}))


@pytest.mark.parametrize(("column", "size"), [("logits", 2**31), ("logits", 2**60), ("logits", -1), ("id", 2**40)])
def test_a_decompression_bomb_is_refused_when_it_is_opened(tmp_path: Path, column: str, size: int) -> None:
    path = _dump(tmp_path, id=pa.array(dumps.ids()))
    with_claimed_size(path, size, column)

    with pytest.raises(CorruptFileError, match=rf"dump\.parquet: column '{column}.*to {size} bytes for \d+ values"):
        _open(path)


def test_values_that_compress_well_are_no_bomb(tmp_path: Path) -> None:
    zeros = np.zeros((200_000, 5), "f4")
    table = pa.table({"logits": dumps.lists(zeros), "id": pa.array(["the same long name of a run"] * 200_000)})
    path = dumps.parquet_file(tmp_path / "dump.parquet", table, compression="zstd", use_dictionary=False)

    chunk = pq.read_metadata(path).row_group(0).column(0)
    assert chunk.total_uncompressed_size / chunk.total_compressed_size > 500
    assert _open(path).facts.rows == 200_000


def test_pages_of_one_value_are_no_bomb(tmp_path: Path) -> None:
    data = dumps.logits(20_000)
    table = pa.table({"logits": dumps.fixed_lists(data)})
    path = dumps.parquet_file(tmp_path / "dump.parquet", table, data_page_size=1, write_batch_size=1)

    assert next(_open(path).read(0, 20_000)).logits.tobytes() == data.tobytes()


def test_rows_that_arrow_drops_without_a_word_are_an_error(tmp_path: Path) -> None:
    """pyarrow 26 takes a page without values, which it writes itself, for the end of a column."""
    path = dumps.parquet_file(
        tmp_path / "a.parquet", pa.table({"logits": dumps.lists(dumps.logits(1))}), data_page_size=1
    )
    assert pq.read_table(path).num_rows == 0

    with pytest.raises(CorruptFileError, match=r"a\.parquet: .*its rows end at 0 of 1"):
        _open(path, column="logits")


def test_a_row_longer_than_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softmax_dask_pipelines.sources.parquet_limits.ROW_BYTES", 19)
    path = _dump(tmp_path)

    with pytest.raises(CorruptFileError, match="has 515 values in 103 rows of row group 0; expected at most 19 bytes"):
        _open(path)


def test_rows_far_longer_than_the_first_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softmax_dask_pipelines.sources.parquet_limits._SLACK_VALUES", 100)
    rows = pa.array([[1.0, 2.0], [3.0] * 1000])
    path = dumps.parquet_file(tmp_path / "dump.parquet", pa.table({"logits": rows}))

    with pytest.raises(RaggedRowsError, match="has 1002 logits in row group 0 of 2 rows; expected 2 a row"):
        _open(path)


def test_a_huge_footer_is_refused_before_it_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softmax_dask_pipelines.sources.parquet_files.FOOTER_BYTES", 100)
    monkeypatch.setattr(pq, "ParquetFile", None)
    path = _dump(tmp_path)

    with pytest.raises(MetadataLimitError, match=r"dump\.parquet: its footer has \d+ bytes; expected at most 100\. W"):
        _open(path)


def test_a_footer_longer_than_its_file_is_corrupt(tmp_path: Path) -> None:
    path = _dump(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-8] + (2**31 - 1).to_bytes(4, "little") + whole[-4:])

    with pytest.raises(CorruptFileError, match=r"dump\.parquet: is no whole Parquet file"):
        _open(path)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("make", [dumps.lists, dumps.fixed_lists])
def test_a_flipped_bit_is_found_by_the_page_checksum(tmp_path: Path, version: str, make: Any) -> None:
    path = dumps.parquet_file(
        tmp_path / "dump.parquet",
        pa.table({"logits": make(dumps.logits(500))}),
        write_page_checksum=True,
        compression="none",
        use_dictionary=False,
        data_page_version=version,
    )
    source = _open(path)
    stored = bytearray(path.read_bytes())
    stored[5000] ^= 4
    path.write_bytes(stored)

    with pytest.raises(CorruptFileError, match=r"dump\.parquet: .*CRC.*Copy it again"):
        list(source.read(0, 500))


def test_a_codec_that_pyarrow_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lzo(*_: object, **__: object) -> None:
        raise pa.ArrowNotImplementedError("LZO")

    table = pa.table({"logits": dumps.lists(dumps.logits())})
    path = dumps.parquet_file(tmp_path / "dump.parquet", table, compression="brotli")  # which only pyarrow decodes
    source = _open(path)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lzo)

    with pytest.raises(SourceFormatError, match=r"dump\.parquet: uses a part of Parquet .*\(LZO\).*Write it again"):
        list(source.read(0, 103))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")  # root may read everything

    path = _dump(tmp_path)
    monkeypatch.setattr(pq, "ParquetFile", refuse)

    with pytest.raises(PermissionDeniedError, match=r"dump\.parquet: cannot be read.*Check its owner"):
        _open(path)
