"""Thrift's compact protocol: what stands in bytes, and that no bytes do harm."""

from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softmax_dask_pipelines.sources.parquet_files import open_parts
from softmax_dask_pipelines.sources.parquet_thrift import (
    I32,
    I64,
    TEXTS,
    Struct,
    Structs,
    ThriftEndError,
    ThriftError,
    Wanted,
    read_struct,
)
from tests.pipelines import dumps
from tests.pipelines.sources.parquet_forged import varint

ALL: Wanted = {1: I32, 2: I64, 3: TEXTS, 4: Struct({1: I32}), 5: Structs({1: I32, 2: I64})}

WHOLE = bytes.fromhex("15 03 16 8101 19 28 01 61 02 6263 1c 15 06 00 19 2c 15 08 00 15 0a 00 00")
"""Every kind that is read: -2, -65, two texts, a struct and two more in a list."""


def _of_pyarrow(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, row_group_size=40, compression="zstd", write_page_index=True)


def _of_polars(path: Path, table: pa.Table) -> None:
    pl.from_arrow(table).write_parquet(path, row_group_size=40, compression="snappy")  # type: ignore[union-attr]


def _of_duckdb(path: Path, table: pa.Table) -> None:
    duckdb.from_arrow(table).write_parquet(str(path))


@pytest.mark.parametrize("write", [_of_pyarrow, _of_polars, _of_duckdb])
def test_footers_say_to_us_what_they_say_to_pyarrow(tmp_path: Path, write: Any) -> None:
    write(tmp_path / "dump.parquet", dumps.parquet_table({"logits": dumps.lists(dumps.logits())}))

    part = open_parts(str(tmp_path / "dump.parquet"))[0]

    groups = [part.metadata.row_group(i) for i in range(part.metadata.num_row_groups)]
    told = [[group.column(j) for j in range(group.num_columns)] for group in groups]
    assert part.chunks[:, :, 1:4].tolist() == [
        [[chunk.num_values, chunk.total_uncompressed_size, chunk.total_compressed_size] for chunk in group]
        for group in told
    ]
    assert part.chunks[:, :, 4].tolist() == [
        [chunk.dictionary_page_offset or chunk.data_page_offset for chunk in group] for group in told
    ]


def test_what_is_wanted_is_found() -> None:
    found, end = read_struct(b"ab" + WHOLE + b"cd", ALL, 2)

    assert found == {1: -2, 2: -65, 3: [b"a", b"bc"], 4: {1: 3}, 5: [{1: 4}, {1: 5}]}
    assert end == 2 + len(WHOLE)


def test_what_is_not_wanted_is_passed_over() -> None:
    found, end = read_struct(WHOLE, {})

    assert (found, end) == ({}, len(WHOLE))


@pytest.mark.parametrize(
    "value",
    [
        "11",  # true
        "12",  # false
        "13 ff",  # i8
        "14 8001",  # i16
        "17 0102030405060708",  # double
        "18 03 616263",  # text
        "19 21 01 02",  # a list of two booleans
        "19 f5 0f" + 15 * "01",  # a list of 15
        "1a 13 05",  # a set
        "1b 00",  # a map of nothing
        "1b 01 58 07 01 61",  # a map of i32 to text
        "1d" + 16 * "00",  # uuid
    ],
)
def test_every_type_is_passed_over(value: str) -> None:
    data = bytes.fromhex(value + "15 04 00")

    assert read_struct(data, {2: I32}) == ({2: 2}, len(data))


def test_a_field_may_say_its_number_in_full() -> None:
    assert read_struct(b"\x05" + varint(300) + varint(7) + b"\x15\x02\x00", {300: I32, 301: I32})[0] == {300: 7, 301: 1}


def test_a_field_of_another_type_counts_as_absent() -> None:
    assert read_struct(WHOLE, {1: I64, 2: I32, 3: Struct({}), 4: TEXTS, 5: I32})[0] == {}


def test_bits_beyond_those_of_the_type_are_dropped() -> None:
    assert read_struct(b"\x15" + varint(2**32 + 5) + b"\x00", {1: I32})[0] == {1: 5}


@pytest.mark.parametrize("length", range(len(WHOLE)))
@pytest.mark.parametrize("wanted", [ALL, {}], ids=["read", "passed over"])
def test_bytes_that_end_too_early_are_an_error(wanted: Wanted, length: int) -> None:
    with pytest.raises(ThriftEndError, match="end too early"):
        read_struct(WHOLE[:length], wanted)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x15" + b"\xff" * 11 + b"\x00\x00", "a number of more than 10 bytes"),
        (b"\x1c" * 1000, "nested too deeply"),
        (b"\x19" + b"\x19" * 1000, "nested too deeply"),
        (b"\x1b\x01\xcc" + b"\x1c" * 1000, "nested too deeply"),
        (b"\x1f\x00", "a field of type 15, which is none"),
    ],
)
def test_what_is_no_struct_is_named(data: bytes, said: str) -> None:
    with pytest.raises(ThriftError, match=said):
        read_struct(data, {1: I32})


@pytest.mark.parametrize("kind", ["19 fb", "19 f9", "19 fc", "19 f1"])
def test_a_list_that_claims_to_be_endless_takes_no_time(kind: str) -> None:
    with pytest.raises(ThriftError):
        read_struct(bytes.fromhex(kind + "ffffffffff7f 000000"), ALL)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        _, end = read_struct(data, ALL)
    except ThriftError:
        return

    assert 0 < end <= len(data)
