"""The most and the least certain rows of a scored output, and those that are undecidable; its columns, by chunks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from softmax_dask_pipelines import arrow

CONFIDENCE = "confidence"


@dataclass(frozen=True, slots=True)
class Extremes:
    """Rows as dicts of column -> value, JSON types only; each with the number of the row, `#`."""

    most: tuple[dict[str, Any], ...]
    """Falling confidence; of equal ones the earlier rows first, as below."""
    least: tuple[dict[str, Any], ...]
    """Rising confidence."""
    undecidable: tuple[dict[str, Any], ...]
    """The first ones."""


class Columns(Protocol):
    """An output whose columns are read a part at a time."""

    names: tuple[str, ...]

    def parts(self, name: str) -> Iterator[NDArray[Any]]:
        """One column, in order."""

    def rows(self, numbers: Sequence[int], names: Sequence[str]) -> list[dict[str, Any]]:
        """These rows, in the order of the numbers."""


def columns_of(output: Path) -> Columns:
    """The columns of an output."""
    return _ZarrColumns(output) if (output / "zarr.json").is_file() else _ParquetColumns(output)


def extremes_of(columns: Columns, shown: Sequence[str], number: int) -> Extremes | None:
    """So many rows of each kind, with the columns `shown`; None where the output has no confidence."""
    if CONFIDENCE not in columns.names:
        return None
    most, least, undecidable = _Kept(number), _Kept(number), _Kept(number)
    start = 0
    for values in columns.parts(CONFIDENCE):
        places = np.arange(start, start + len(values))
        known = ~np.isnan(values)
        most.offer(-values[known].astype(np.float64), places[known])
        least.offer(values[known].astype(np.float64), places[known])
        undecidable.offer(np.zeros(np.count_nonzero(~known)), places[~known])
        start += len(values)
    names = [name for name in (*shown, CONFIDENCE) if name in columns.names]
    kept = [each.places.tolist() for each in (most, least, undecidable)]
    rows = {row["#"]: row for row in columns.rows(sorted({*kept[0], *kept[1], *kept[2]}), names)}
    return Extremes(*(tuple(rows[place] for place in places) for places in kept))


class _Kept:
    """The places of the smallest values so far, in order."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._values: NDArray[Any] = np.empty(0)
        self.places: NDArray[Any] = np.empty(0, np.int64)

    def offer(self, values: NDArray[Any], places: NDArray[Any]) -> None:
        if len(values) > self._number:  # with its equals, of which the earlier ones are kept
            bar = np.partition(values, self._number - 1)[self._number - 1]
            values, places = values[values <= bar], places[values <= bar]
        values, places = np.concatenate([self._values, values]), np.concatenate([self.places, places])
        order = np.argsort(values, kind="stable")[: self._number]
        self._values, self.places = values[order], places[order]


class _ZarrColumns:
    def __init__(self, output: Path) -> None:
        self._group = zarr.open_group(output, mode="r")
        self.names = tuple(self._group.array_keys())

    def parts(self, name: str) -> Iterator[NDArray[Any]]:
        array = self._array(name)
        for start in range(0, array.shape[0], array.chunks[0]):
            yield np.asarray(array[start : start + array.chunks[0]])

    def rows(self, numbers: Sequence[int], names: Sequence[str]) -> list[dict[str, Any]]:
        if not numbers:
            return []
        found = {name: np.asarray(self._array(name).oindex[np.array(numbers)]) for name in names}
        values = {name: column.tolist() for name, column in found.items()}
        return [{"#": place, **{name: values[name][i] for name in names}} for i, place in enumerate(numbers)]

    def _array(self, name: str) -> Any:
        return self._group[name]


class _ParquetColumns:
    def __init__(self, output: Path) -> None:
        self._files = sorted(output.glob("commit=*/part-*.parquet"))
        self.names = tuple(pq.read_schema(self._files[0]).names) if self._files else ()

    def parts(self, name: str) -> Iterator[NDArray[Any]]:
        for file in self._files:
            for batch in pq.ParquetFile(file).iter_batches(columns=[name], batch_size=1 << 20):
                yield arrow.stored(batch.column(0))

    def rows(self, numbers: Sequence[int], names: Sequence[str]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        start = 0
        for file in self._files:
            stop = start + pq.read_metadata(file).num_rows
            here = [number for number in numbers if start <= number < stop]
            if here:
                table = pq.read_table(file, columns=list(names), partitioning=None)
                rows = table.take([number - start for number in here]).to_pylist()
                found += [{"#": number, **row} for number, row in zip(here, rows, strict=True)]
            start = stop
        return found
