"""A compacted dump as Dask arrays, and its rows made whole again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask.array as da
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import DTypeLike, NDArray

from softmax_dask import COLUMNS, result_dtype
from softmax_dask_pipelines.addresses import require_local
from softmax_dask_pipelines.errors import SourceFormatError, SourceNotFoundError
from softmax_dask_pipelines.storage import plain_errors

_NEEDED = ("top_k_labels", "top_k_log_probabilities", "tail_mass")
_NUMBERS = ("target", "row", *(name for name, column in COLUMNS.items() if column.kind != "string"))
_EXPANDED_BYTES = 64 << 20
"""Of a chunk of whole rows."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """What `compact` has written. Nothing is read before an array is computed."""

    classes: int
    """Of the dump."""
    temperature: float
    """That its logits were divided by."""
    columns: Mapping[str, Any]
    """Dask arrays by the names of the columns, (rows,) or (rows, k): those of numbers."""

    @property
    def labels(self) -> Any:
        """(rows, k), int32: the most probable classes, falling; -1 where the row is undecidable."""
        return self.columns["top_k_labels"]

    @property
    def log_probabilities(self) -> Any:
        """(rows, k): the logarithms of their probabilities; NaN where the row is undecidable."""
        return self.columns["top_k_log_probabilities"]

    @property
    def tail_mass(self) -> Any:
        """(rows,): the probability of all other classes together."""
        return self.columns["tail_mass"]

    @property
    def lost(self) -> Any:
        """What was lost, nats a row, as a lazy number: the mean of tail_divergence over the rows that are decidable.

        Raises
        ------
        SourceFormatError
            That column was not written.
        """
        if "tail_divergence" not in self.columns:
            raise SourceFormatError("the output has no tail_divergence; expected that column. Compact with it.")
        return da.nanmean(self.columns["tail_divergence"].astype(np.float64))

    def expand(self, *, dtype: DTypeLike = "float32") -> Any:
        """Whole rows again, lazily: log-probabilities, the mass of the tail spread evenly over its classes.

        Parameters
        ----------
        dtype : float16, bfloat16, float32 or float64

        Returns
        -------
        dask.array.Array, (rows, classes)
            The k largest are as they were stored, so a row sums to 1 but for their rounding (0.2% at most in float16).
        """
        wanted = result_dtype(np.dtype(np.float32), dtype)
        rows = max(1, _EXPANDED_BYTES // (self.classes * wanted.itemsize))
        cut = {0: min(rows, max(1, self.labels.shape[0]))}
        labels, log_probabilities = self.labels.rechunk(cut), self.log_probabilities.rechunk(cut)
        return da.map_blocks(
            expanded_rows,
            labels,
            log_probabilities,
            self.tail_mass.rechunk(cut)[:, None],
            classes=self.classes,
            wanted=wanted,
            chunks=(labels.chunks[0], (self.classes,)),
            dtype=wanted,
            meta=np.empty((0, 0), wanted),
        )


def open_compact(path: str | PathLike[str]) -> Compacted:
    """What `compact` has written, as Dask arrays.

    Parameters
    ----------
    path : an output of `compact`, Zarr or Parquet, here

    Raises
    ------
    SourceNotFoundError, SourceFormatError
        Nothing is there, or no output with top_k_labels, top_k_log_probabilities and tail_mass.
    """
    require_local(fspath(path))
    place = Path(path)
    with plain_errors(place):
        if not place.exists():
            raise SourceNotFoundError(f"{place}: is not there; expected an output of `compact`. Check the path.")
        facts, columns = _of_zarr(place) if (place / "zarr.json").is_file() else _of_parquet(place)
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        raise SourceFormatError(
            f"{place}: has no {', '.join(missing)}; expected an output of `compact`. Compact the dump first."
        )
    return Compacted(facts["classes"], facts["temperature"], columns)


def expanded_rows(
    labels: NDArray[np.int32],
    log_probabilities: NDArray[Any],
    tail_mass: NDArray[Any],
    *,
    classes: int,
    wanted: np.dtype[Any],
) -> NDArray[Any]:
    """(rows, classes): the k largest in their places, elsewhere the logarithm of an equal part of the tail."""
    out: NDArray[Any] = np.empty((len(labels), classes), wanted)
    with np.errstate(divide="ignore", over="ignore"):  # a tail of 0, and what float16 cannot hold
        out[...] = np.log(tail_mass.astype(np.float64) / max(1, classes - labels.shape[1]))
        np.put_along_axis(out, labels, log_probabilities.astype(wanted), axis=1)
    out[labels[:, 0] < 0] = np.nan
    return out


def _of_zarr(place: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    group = zarr.open_group(place, mode="r")
    facts: Any = group.attrs.get("softmax_dask", {})
    return facts, {name: da.from_zarr(group[name]) for name in _NUMBERS if name in group}


def _of_parquet(place: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    files = sorted(place.glob("commit=*/part-*.parquet"))
    if not files:
        raise SourceFormatError(f"{place}: holds no parts; expected an output of `compact`. Check the path.")
    schema = pq.read_schema(files[0])
    rows = tuple(pq.read_metadata(file).num_rows for file in files)
    facts = json.loads((schema.metadata or {}).get(b"softmax_dask", b"{}"))
    found = {name: schema.field(name).type for name in _NUMBERS if name in schema.names}
    return facts, {name: _lazy_column(files, rows, name, kind) for name, kind in found.items()}


def _lazy_column(files: list[Path], rows: tuple[int, ...], name: str, kind: Any) -> Any:
    sample = _numbers(kind, None)
    chunks = (rows, *((length,) for length in sample.shape[1:]))
    return da.map_blocks(
        _read_part,
        files=files,
        column=name,
        chunks=chunks,
        dtype=sample.dtype,
        meta=np.empty((0,) * sample.ndim, sample.dtype),
        # Not a hash of the paths: an output that was replaced must not pass for the old one.
        name=f"{name}-{uuid4().hex}",
    )


def _read_part(*, files: list[Path], column: str, block_id: tuple[int, ...]) -> NDArray[Any]:
    table = pq.read_table(files[block_id[0]], columns=[column], partitioning=None)
    return _numbers(table.schema.field(column).type, table[column].combine_chunks())


def _numbers(kind: Any, values: Any) -> NDArray[Any]:
    """A column as an array, -1 for null; without values one of no rows."""
    if pa.types.is_fixed_size_list(kind):
        flat = pa.array([], kind.value_type) if values is None else values.flatten()
        return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(-1, kind.list_size)
    plain = pa.array([], kind) if values is None else values
    if pa.types.is_boolean(kind):
        plain = plain.cast(pa.int8())
    return np.asarray((plain.fill_null(-1) if plain.null_count else plain).to_numpy(zero_copy_only=False))
