"""How people open an output: each library in the way that its users would. Never imports the program.

Every reader gives the columns as NumPy arrays, or raises what the library raises.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array
import dask.dataframe
import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import xarray
import zarr
from numpy.typing import NDArray

COLUMNS = ("label", "confidence", "probabilities")

Found = dict[str, NDArray[Any]]
Reader = Callable[[Path], Found]


def zarr_group(output: Path) -> Found:
    """Consolidated, and each array by itself: that may be longer for a moment, for its document is moved first."""
    group = zarr.open_group(output, mode="r")
    found = {name: np.asarray(group[name][...]) for name in ("id", *COLUMNS)}
    plain = zarr.open_group(output, mode="r", use_consolidated=False)
    for name, values in found.items():
        longer = np.asarray(plain[name][...])
        assert len(longer) >= len(values), f"{name} has {len(longer)} rows unconsolidated, {len(values)} consolidated"
        assert np.array_equal(longer[: len(values)], values), f"{name} differs between consolidated and not"
    return found


def xarray_dataset(output: Path) -> Found:
    """Lazy until it is loaded, through Dask as is usual."""
    with xarray.open_zarr(output) as dataset:
        loaded = dataset.load()
        return {name: np.asarray(loaded[name].values) for name in ("id", *COLUMNS)}


def dask_arrays(output: Path) -> Found:
    """An array at a time, the ids first: so the others are as long, or longer."""
    names = ("id", *COLUMNS)
    arrays = {name: dask.array.from_zarr(str(output), component=name) for name in names}
    rows = min(len(array) for array in arrays.values())
    return {name: array[:rows].compute(scheduler="sync") for name, array in arrays.items()}


def pyarrow_table(output: Path) -> Found:
    """The folder."""
    return _of_table(pq.read_table(output, partitioning=None))


def duckdb_query(output: Path) -> Found:
    """All files below the folder."""
    with duckdb.connect() as connection:
        query = f"select id, label, confidence, probabilities from read_parquet('{output}/**/*.parquet')"
        return _of_table(connection.execute(query).to_arrow_table())


def polars_frame(output: Path) -> Found:
    """The folder, lazily."""
    return _of_table(polars.scan_parquet(output).select("id", *COLUMNS).collect().to_arrow())


def dask_frame(output: Path) -> Found:
    """The folder, a part a file."""
    frame = dask.dataframe.read_parquet(str(output), columns=["id", *COLUMNS]).compute(scheduler="sync")
    rows = np.array([list(row) for row in frame["probabilities"]])
    return {name: frame[name].to_numpy() for name in ("id", "label", "confidence")} | {"probabilities": rows}


READERS: dict[str, dict[str, Reader]] = {
    ".zarr": {"zarr": zarr_group, "xarray": xarray_dataset, "dask": dask_arrays},
    ".parquet": {"pyarrow": pyarrow_table, "DuckDB": duckdb_query, "polars": polars_frame, "dask": dask_frame},
}


def _of_table(table: Any) -> Found:
    found = {name: table[name].to_numpy() for name in ("id", "label", "confidence")}
    lists = pa.concat_arrays(table["probabilities"].chunks)
    return found | {"probabilities": lists.flatten().to_numpy().reshape(table.num_rows, -1)}
