"""What others make of our outputs: xarray, Zarr, pandas, Polars, DuckDB, pyarrow."""

import dataclasses
import json
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import xarray as xr
import zarr
from numpy.testing import assert_array_equal

from tests.pipelines.sinks.outputs import CLASS_NAMES, SPECS, files_under, values_of, write


@pytest.fixture
def values():
    return values_of(SPECS["everything"])


@pytest.fixture
def names(values):
    return values.label_names(CLASS_NAMES)


@pytest.fixture
def group(tmp_path):
    return _published(tmp_path, "everything", "zarr")


@pytest.fixture
def folder(tmp_path):
    return _published(tmp_path, "everything", "parquet")


def test_xarray_opens_the_group_with_dimensions_and_class_names(group, values, names):
    with xr.open_zarr(group) as dataset:
        dataset.load()

    assert dict(dataset.sizes) == {"row": 50, "rank": 3, "class": 5, "member": 4}
    assert dataset["probabilities"].dims == ("row", "class")
    assert dataset["class"].values.tolist() == list(CLASS_NAMES)
    assert dataset["label_name"].values.tolist() == [name or "" for name in names]
    assert_array_equal(dataset["probabilities"].values, values.columns["probabilities"])


def test_zarr_finds_the_metadata_consolidated(group):
    metadata = zarr.open_group(group, mode="r").metadata.consolidated_metadata

    assert metadata is not None
    assert "probabilities" in metadata.metadata


def test_zarr_columns_of_a_value_a_row_are_planes_of_bits_and_others_of_bytes(group):
    arrays = dict(zarr.open_group(group, mode="r").arrays())

    for name in ("label", "confidence"):
        assert _blosc_of(arrays[name]) == ("lz4", "bitshuffle")
    for name in ("probabilities", "target", "top_k_labels"):
        assert _blosc_of(arrays[name]) == ("zstd", "shuffle")


def test_zarr_arrays_explain_themselves(group):
    opened = zarr.open_group(group, mode="r")

    assert opened.attrs["softmax_dask"] == {"temperature": 1.5, "source": "logits.zarr"}
    assert opened["entropy"].attrs["units"] == "nat"
    assert opened["label"].attrs["flag_values"] == [0, 1, 2, 3, 4]
    assert opened["label"].attrs["flag_meanings"] == "Katze ein_Hund crane crane 鳥"


def test_zarr_chunks_carry_a_checksum(group):
    chunk = Path(group) / "probabilities" / "c.0.0"
    damaged = bytearray(chunk.read_bytes())
    damaged[20] ^= 1
    chunk.write_bytes(damaged)

    with pytest.raises(ValueError, match="checksum"):
        zarr.open_group(group, mode="r")["probabilities"][:]


def test_zarr_chunks_that_are_all_fill_are_stored(tmp_path):
    spec = dataclasses.replace(SPECS["narrow"], path=str(tmp_path / "scores.zarr"))
    values = values_of(spec)
    values.columns["label"][:] = -1

    write(spec, values=values).publish()

    assert "label/c.3" in files_under(tmp_path / "scores.zarr")


def test_zarr_can_be_opened_without_consolidated_metadata(group, values):
    opened = zarr.open_group(group, mode="r", use_consolidated=False)

    assert_array_equal(opened["label"][:], values.columns["label"])


def test_pyarrow_reads_the_types_that_were_promised(folder):
    schema = pq.read_schema(folder / "commit=000001" / "part-00000.parquet")

    assert schema.names == ["id", "day", "target", *SPECS["everything"].columns]
    assert schema.field("label_name").type == pa.dictionary(pa.int32(), pa.string())
    assert schema.field("correct").type == pa.bool_()
    assert schema.field("label").type == pa.int32()
    probabilities = schema.field("probabilities")
    assert probabilities.type.list_size == 5
    assert not probabilities.nullable
    assert not probabilities.type.value_field.nullable


def test_pyarrow_finds_nulls_where_undecidable(folder, values, names):
    table = ds.dataset(folder, partitioning="hive").to_table()

    assert table["label_name"].to_pylist() == names
    assert table["target"].to_pylist() == [None if target < 0 else target for target in values.targets]
    assert table["correct"].to_pylist() == [None if c < 0 else bool(c) for c in values.columns["correct"]]
    assert table["commit"].to_pylist() == [1] * 50


def test_parquet_metadata_holds_the_facts_of_the_plan(folder):
    metadata = pq.read_schema(folder / "commit=000001" / "part-00003.parquet").metadata

    facts = json.loads(metadata[b"softmax_dask"])
    assert facts == {"temperature": 1.5, "source": "logits.zarr", "class_names": list(CLASS_NAMES)}


def test_parquet_floats_are_split_by_byte_without_dictionary_or_statistics(folder):
    file = pq.ParquetFile(folder / "commit=000001" / "part-00000.parquet").metadata
    columns = {column["path_in_schema"]: column for column in map(_column(file), range(file.num_columns))}

    for path in ("confidence", "probabilities.list.element"):
        assert "BYTE_STREAM_SPLIT" in columns[path]["encodings"]
        assert columns[path]["statistics"] is None
        assert columns[path]["compression"] == "ZSTD"
    assert columns["label"]["statistics"]["min"] == -1


def test_parquet_integers_are_packed_differences_and_not_compressed_again(folder):
    file = pq.ParquetFile(folder / "commit=000001" / "part-00000.parquet").metadata
    columns = {column["path_in_schema"]: column for column in map(_column(file), range(file.num_columns))}

    for path in ("label", "target", "target_rank"):
        assert "DELTA_BINARY_PACKED" in columns[path]["encodings"]
        assert columns[path]["compression"] == "UNCOMPRESSED"
    for path in ("id", "label_name", "top_k_labels.list.element"):
        assert columns[path]["compression"] == "ZSTD"


def test_parquet_row_groups_are_the_chunks_of_the_wide_columns(folder):
    file = pq.ParquetFile(folder / "commit=000001" / "part-00000.parquet").metadata

    assert [file.row_group(number).num_rows for number in range(file.num_row_groups)] == [8, 8]


def test_parquet_of_narrow_columns_has_one_row_group_a_partition(tmp_path):
    folder = _published(tmp_path, "narrow", "parquet")

    file = pq.ParquetFile(folder / "commit=000001" / "part-00000.parquet").metadata

    assert file.num_row_groups == 1
    assert file.num_rows == 16


def test_parquet_pages_carry_a_checksum(folder):
    part = folder / "commit=000001" / "part-00000.parquet"
    column = pq.ParquetFile(part).metadata.row_group(0).column(2)
    damaged = bytearray(part.read_bytes())
    damaged[column.data_page_offset + column.total_compressed_size - 3] ^= 1
    part.write_bytes(damaged)

    with pytest.raises(OSError, match="CRC"):
        pq.read_table(part, page_checksum_verification=True, partitioning=None)


def test_parquet_without_ids_has_row_numbers(tmp_path):
    folder = _published(tmp_path, "narrow", "parquet")

    assert pq.read_table(folder)["row"].to_pylist() == list(range(50))


def test_parquet_without_rows_has_the_schema(tmp_path):
    folder = _published(tmp_path, "no rows", "parquet")

    table = pq.read_table(folder, partitioning=None)

    assert table.num_rows == 0
    assert table.schema.names == ["id", "target", *SPECS["no rows"].columns]


def test_pandas_reads_the_folder(folder, values, names):
    frame = pd.read_parquet(folder)

    assert [None if pd.isna(name) else name for name in frame["label_name"]] == names
    assert_array_equal(frame["label"], values.columns["label"])
    assert_array_equal(np.stack(frame["probabilities"]), values.columns["probabilities"])


def test_polars_reads_the_folder(folder, values, names):
    frame = pl.read_parquet(folder)

    assert frame["label_name"].cast(pl.String).to_list() == names
    assert_array_equal(frame["probabilities"].to_numpy(), values.columns["probabilities"])


def test_duckdb_reads_the_folder(folder, values, names):
    rows = duckdb.sql(
        f"select label, label_name, list_sum(probabilities) from '{folder}/*/*.parquet' "
        "order by filename, file_row_number"
    ).fetchall()

    assert [row[0] for row in rows] == values.columns["label"].tolist()
    assert [row[1] for row in rows] == names
    sums = values.columns["probabilities"].astype(np.float64).sum(axis=1)
    np.testing.assert_allclose([row[2] for row in rows], sums, rtol=1e-6)  # DuckDB sums float32


@pytest.mark.parametrize("read", [pd.read_parquet, pl.read_parquet], ids=["pandas", "polars"])
def test_float16_probabilities_are_read(tmp_path, read):
    spec = SPECS["wide float16"]
    folder = _published(tmp_path, "wide float16", "parquet")

    found = np.stack([np.asarray(row, np.float16) for row in read(folder)["probabilities"]])

    assert_array_equal(found, values_of(spec).columns["probabilities"])


def test_duckdb_reads_float16_probabilities(tmp_path):
    spec = SPECS["wide float16"]
    folder = _published(tmp_path, "wide float16", "parquet")

    rows = duckdb.sql(f"select probabilities[1] from '{folder}/*/*.parquet' order by row").fetchall()

    assert_array_equal(np.array(rows, np.float16)[:, 0], values_of(spec).columns["probabilities"][:, 0])


def _published(folder: Path, name: str, file_format: str) -> Path:
    output = folder / f"scores.{file_format}"
    write(dataclasses.replace(SPECS[name], path=str(output), format=file_format)).publish()
    return output


def _column(file):
    return lambda number: file.row_group(0).column(number).to_dict()


def _blosc_of(array):
    """The name and the shuffle of an array's compressor."""
    settings = array.metadata.codecs[1].to_dict()["configuration"]
    return settings["cname"], settings["shuffle"]
