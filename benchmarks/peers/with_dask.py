"""Dask, as its documentation would have it: whole-array expressions, one `store` of everything that is asked for."""

from typing import Any

import dask.array as da
import dask.threaded
import zarr


def score(logits: "zarr.Array[Any]", out: dict[str, Any], *, rows: int, threads: int) -> None:
    """Columns of `out` from the array, `rows` rows a block, into Zarr arrays of as many rows a chunk."""
    x = da.from_zarr(logits).rechunk((rows, -1)).astype("float32")
    e = da.exp(x - x.max(axis=1, keepdims=True))
    probabilities = e / e.sum(axis=1, keepdims=True)
    store(probabilities, out, threads=threads)


def store(probabilities: Any, out: dict[str, Any], *, threads: int) -> None:
    """What is asked for of the probabilities, in one computation."""
    columns = {
        "label": probabilities.argmax(axis=1).astype("int32"),
        "confidence": probabilities.max(axis=1),
        "probabilities": probabilities,
    }
    lazy = [columns[name] for name in out]
    da.store(lazy, list(out.values()), lock=False, scheduler=dask.threaded.get, num_workers=threads)
