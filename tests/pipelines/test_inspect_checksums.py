"""What `inspect` says of page checksums in Parquet files."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from softmax_dask_pipelines.sources import SourceFacts, SourceRequest, open_source
from tests.pipelines import dumps
from tests.pipelines.command import softmax_dask

ADVICE = "no checksum, so damage can pass for logits: write it with write_page_checksum=True"

PAGES: dict[str, dict[str, Any]] = {
    "a dictionary": {},
    "none": {"use_dictionary": False, "compression": "none"},
    "version 2": {"data_page_version": "2.0", "compression": "zstd"},
    "many": {"use_dictionary": False, "data_page_size": 64},
}


def _file(path: Path, rows: int = 103, *, checksum: bool, **options: Any) -> Path:
    table = pa.table({"logits": dumps.fixed_lists(dumps.logits(rows))})
    return dumps.parquet_file(path, table, write_page_checksum=checksum, **options)


def _facts(path: Path) -> SourceFacts:
    return open_source(SourceRequest(str(path))).facts


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("pages", PAGES)
def test_checksums_are_seen(tmp_path: Path, pages: str, checksum: bool) -> None:
    path = _file(tmp_path / "dump.parquet", checksum=checksum, **PAGES[pages])

    assert _facts(path).has_checksum is checksum


def test_checksums_of_a_column_a_class_are_seen(tmp_path: Path) -> None:
    path = dumps.parquet_file(tmp_path / "a.parquet", pa.table(dumps.wide(dumps.logits())), write_page_checksum=True)

    assert _facts(path).has_checksum is True


@pytest.mark.parametrize("without", [0, 1, 2])
def test_one_file_without_is_enough(tmp_path: Path, without: int) -> None:
    for index in range(3):
        _file(tmp_path / f"part-{index}.parquet", checksum=index != without)

    assert _facts(tmp_path).has_checksum is False


def test_files_without_rows_say_nothing(tmp_path: Path) -> None:
    _file(tmp_path / "part-0.parquet", 0, checksum=False)
    _file(tmp_path / "part-1.parquet", checksum=True)

    assert _facts(tmp_path).has_checksum is True


def test_without_rows_it_cannot_be_known(tmp_path: Path) -> None:
    facts = _facts(_file(tmp_path / "dump.parquet", 0, checksum=True))

    assert (facts.has_checksum, facts.codec) == (None, "snappy")


@pytest.mark.parametrize(("checksum", "said"), [(True, "zstd, page checksums"), (False, "zstd, no page checksums")])
def test_inspect_tells_people(tmp_path: Path, checksum: bool, said: str) -> None:
    path = _file(tmp_path / "dump.parquet", checksum=checksum, compression="zstd")

    lines = softmax_dask("inspect", path).out.splitlines()

    assert next(line for line in lines if line.startswith("stored")).endswith(said)


@pytest.mark.parametrize("checksum", [True, False])
def test_inspect_tells_machines(tmp_path: Path, checksum: bool) -> None:
    path = _file(tmp_path / "dump.parquet", checksum=checksum)

    assert json.loads(softmax_dask("inspect", path, "--json").out)["has_checksum"] is checksum


@pytest.mark.parametrize(("checksum", "advised"), [(True, False), (False, True)])
def test_inspect_advises_checksums_where_there_are_none(tmp_path: Path, checksum: bool, advised: bool) -> None:
    path = _file(tmp_path / "dump.parquet", checksum=checksum)

    assert (ADVICE in json.loads(softmax_dask("inspect", path, "--json").out)["advice"]) is advised
