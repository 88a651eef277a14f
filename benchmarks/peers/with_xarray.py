"""xarray with SciPy: `apply_ufunc` of `scipy.special.softmax`, on Dask."""

from typing import Any

import dask.array as da
import scipy.special
import xarray as xr
import zarr

from benchmarks.peers.with_dask import store


def score(logits: "zarr.Array[Any]", out: dict[str, Any], *, rows: int, threads: int) -> None:
    """Columns of `out` from the array, `rows` rows a block, into Zarr arrays of as many rows a chunk."""
    x = xr.DataArray(da.from_zarr(logits).rechunk((rows, -1)).astype("float32"), dims=("row", "class"))
    probabilities = xr.apply_ufunc(
        scipy.special.softmax,
        x,
        kwargs={"axis": -1},
        input_core_dims=[["class"]],
        output_core_dims=[["class"]],
        dask="parallelized",
        output_dtypes=[x.dtype],
    )
    store(probabilities.data, out, threads=threads)
