"""Sources beside other packages' readers of the same files: pyarrow, polars, DuckDB, zarr, xarray and NumPy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import xarray as xr
import zarr
from numpy.typing import NDArray

from softmax_dask_pipelines.sources import SourceRequest, open_source
from tests.pipelines import dumps
from tests.pipelines.sources.array_layouts import LAYOUTS as ARRAYS
from tests.pipelines.sources.conftest import LAYOUTS as TABLES

Read = Callable[[Path], Any]

LISTS = (
    "fixed-size list",
    "list",
    "large list",
    "gzip",
    "zstd",
    "byte stream split",
    "data page v2",
    "many row groups",
)
STORES = (
    "v2",
    "v2 big-endian",
    "v2 Fortran order",
    "v3",
    "v3 sharded",
    "v3 transpose",
    "class axis chunked",
    "float16",
)
FILES = ("npy", "npy Fortran order", "npy big-endian", "npy version 2")


def rows_of(path: Path) -> NDArray[Any]:
    source = open_source(SourceRequest(str(path)))
    return np.concatenate([block.logits for block in source.read(0, source.facts.rows)])


def by_duckdb(path: Path) -> Any:
    with duckdb.connect() as connection:
        return [row[0] for row in connection.execute("select logits from read_parquet(?)", [str(path)]).fetchall()]


def by_xarray(path: Path) -> Any:
    return np.asarray(xr.DataArray(zarr.open_group(path, mode="r")["logits"])[:])


TABLE_READERS: dict[str, Read] = {
    "pyarrow": lambda path: pq.read_table(path)["logits"].to_pylist(),
    "polars": lambda path: pl.read_parquet(path)["logits"].to_list(),
    "duckdb": by_duckdb,
}
STORE_READERS: dict[str, Read] = {
    "zarr": lambda path: zarr.open_group(path, mode="r")["logits"][:],
    "xarray": by_xarray,
}


@pytest.mark.parametrize("peer", TABLE_READERS)
@pytest.mark.parametrize("layout", LISTS)
def test_parquet_has_the_rows_that_others_read(tmp_path, layout, peer):
    write, dtype, _ = TABLES[f"parquet {layout}"]
    path = write(tmp_path, dumps.logits(dtype=dtype))

    found = rows_of(path)

    np.testing.assert_array_equal(found, np.array(TABLE_READERS[peer](path), dtype=found.dtype))


@pytest.mark.parametrize("peer", STORE_READERS)
@pytest.mark.parametrize("layout", STORES)
def test_zarr_has_the_rows_that_others_read(tmp_path, layout, peer):
    write, dtype, *_ = ARRAYS[f"zarr {layout}"]
    path = write(tmp_path, dumps.logits(dtype=dtype))

    np.testing.assert_array_equal(rows_of(path), STORE_READERS[peer](path))


@pytest.mark.parametrize("layout", FILES)
def test_npy_has_the_rows_that_numpy_reads(tmp_path, layout):
    write, dtype, *_ = ARRAYS[layout]
    path = write(tmp_path, dumps.logits(dtype=dtype))

    np.testing.assert_array_equal(rows_of(path), np.load(path))
