"""Page headers of the usual shape are read by a pattern; what it finds is what the reader of any header finds."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from softmax_dask_pipelines.errors import CorruptFileError
from softmax_dask_pipelines.sources import parquet_pages
from softmax_dask_pipelines.sources.parquet_files import open_parts
from softmax_dask_pipelines.sources.parquet_footer import Chunk
from softmax_dask_pipelines.sources.parquet_pages import Page
from tests.pipelines import dumps
from tests.pipelines.sources.parquet_forged import struct

LARGEST, SMALLEST = 2**31 - 1, -(2**31)


def _page(path: Path, data: bytes) -> Page:
    path.write_bytes(data)
    with open(path, "rb") as file:
        return parquet_pages._page(file, 0, "a file")


def _holds(values: int) -> bytes:
    return struct([(1, values), (2, 0), (3, 3), (4, 3)])


@pytest.mark.parametrize("number", [0, 1, 63, 64, 8191, 8192, LARGEST, -1, SMALLEST])
@pytest.mark.parametrize("crc", [[], [(4, -5)]], ids=["no checksum", "checksum"])
def test_numbers_of_a_usual_header_are_those_that_were_written(tmp_path: Path, number: int, crc: Any) -> None:
    data = struct([(1, 0), (2, number), (3, number - (number > 0)), *crc], (5, _holds(number)))

    found = _page(tmp_path / "page", data + b"page")

    assert found == Page(number, number, 2**32 - 5 if crc else None, number - (number > 0), start=len(data), encoding=0)


def test_a_dictionary_holds_no_values(tmp_path: Path) -> None:
    data = struct([(1, 2), (2, 20), (3, 10)], (7, struct([(1, 5), (2, 0)])))

    found = _page(tmp_path / "page", data)

    assert found == Page(20, 0, None, 10, start=len(data), encoding=-1, entries=5)


def test_a_page_of_the_second_kind_says_how_long_its_levels_are(tmp_path: Path) -> None:
    uncompressed = b"\x12"  # a boolean that is false lies in the field's head, here one after field 6
    holds = struct([(1, 9), (2, 0), (3, 9), (4, 7), (5, 3), (6, 2)])[:-1] + uncompressed + b"\x00"
    data = struct([(1, 3), (2, 20), (3, 10)], (8, holds))

    found = _page(tmp_path / "page", data)

    assert found == Page(
        20, 9, None, 10, len(data), encoding=7, levels_bytes=5, repetition_bytes=2, is_compressed=False
    )


def test_what_a_page_is_follows_from_its_type_as_in_arrow(tmp_path: Path) -> None:
    both = struct([(1, 0), (2, 20), (3, 10)], (5, _holds(5)))[:-1] + b"\x3c" + struct([(1, 7), (4, 8)]) + b"\x00"

    found = _page(tmp_path / "page", both)

    assert (found.values, found.encoding, found.levels_bytes) == (5, 0, None)


@pytest.mark.parametrize(
    "again",
    [b"\x05\x02" + b"\x80\x01", b"\x1c\x05\x02\x0e\x00\x05\x02" + b"\x80\x01"],
    ids=["at once", "after statistics"],
)
def test_of_a_count_that_stands_twice_the_last_is_taken_as_arrow_does(tmp_path: Path, again: bytes) -> None:
    data = struct([(1, 0), (2, 20), (3, 10)], (5, _holds(5)[:-1] + again + b"\x00"))

    page = _page(tmp_path / "page", data)

    assert page.values == 64


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"write_page_checksum": True}], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_headers_of_pyarrow_are_read_by_the_pattern(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, options: dict[str, Any]
) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table(dumps.wide(dumps.logits().astype(dtype))), path, **options)
    monkeypatch.delattr(parquet_pages, "_any_header")
    (part,) = open_parts(str(path))
    chunks = [("logits", 0, Chunk._make(chunk)) for chunk in part.chunks[0].tolist()]

    pages = [page for _, _, chunk in chunks for page in parquet_pages.first_pages(str(path), chunk, 9, where="a file")]

    assert sum(page.values for page in pages) == 103 * 5


def test_a_header_cut_short_is_no_usual_one(tmp_path: Path) -> None:
    data = struct([(1, 0), (2, 20), (3, 10)], (5, _holds(5)))

    with pytest.raises(CorruptFileError, match="there is no page at byte 0"):
        _page(tmp_path / "page", data[:-1])
