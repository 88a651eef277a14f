"""Logits in a record batch, whatever the layout: checks them, makes them (rows, classes)."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softmax_dask_pipelines.errors import RaggedRowsError
from softmax_dask_pipelines.sources.parquet_nulls import Numbers, Place, validity
from softmax_dask_pipelines.sources.parquet_types import column_of, storage


@dataclass(frozen=True, slots=True)
class ListColumn:
    """A column of lists or fixed-size lists, one a row."""

    name: str
    classes: int
    numbers: Numbers
    kind: Literal["fixed lists", "lists"] = field(compare=False)
    """Files of both kinds may stand in one folder."""

    def __str__(self) -> str:
        return f"column {self.name!r}: lists of {self.classes} {self.numbers.dtype}"

    @property
    def names(self) -> tuple[str, ...]:
        """Columns to read."""
        return (self.name,)

    def fits(self, other: "Logits") -> bool:
        """Whether the rows of both can follow each other."""
        return self == other

    def values(self, batch: Any, place: Place) -> NDArray[Any]:
        """The logits of a batch; a view of its memory, unless a row is null."""
        lists = storage(column_of(batch, self.name))
        self.numbers.require_allowed(lists, self.name, place)
        present = validity(lists)
        fixed = pa.types.is_fixed_size_list(lists.type)
        # `values` is the whole child, not the part that a slice stands for; `flatten` would drop null rows.
        first = lists.offset * self.classes if fixed else self._first_value(lists, present, place)
        stored = np.ones(len(lists), np.bool_) if fixed else present.copy()
        numbers = lists.values.slice(first, int(stored.sum()) * self.classes)
        self.numbers.require_allowed(numbers, self.name, place, values_per_row=self.classes)
        logits = self.numbers.view(numbers).reshape(-1, self.classes)
        if numbers.null_count:
            present[stored] &= validity(numbers).reshape(-1, self.classes).all(axis=1)
        return _with_nan(logits, stored, present, self.numbers.block_dtype)

    def _first_value(self, lists: Any, present: NDArray[np.bool_], place: Place) -> int:
        """Where the values of the first row begin, once all rows are found to be equally long, null ones empty."""
        width = np.int64 if pa.types.is_large_list(lists.type) else np.int32
        offsets = np.frombuffer(lists.buffers()[1], width)[lists.offset : lists.offset + len(lists) + 1]
        lengths = np.diff(offsets)
        ragged = np.flatnonzero(lengths != np.where(present, self.classes, 0))
        if ragged.size:
            row = int(ragged[0])
            raise RaggedRowsError(
                f"{place.file}: column {self.name!r}: {place.row(row)} has {lengths[row]} logits; expected "
                f"{self.classes} as in the first row. Write all rows with one number of classes."
            )
        return int(offsets[0])


@dataclass(frozen=True, slots=True)
class BinaryColumn:
    """A column of fixed_size_binary: the bytes of a row's numbers, little-endian."""

    name: str
    classes: int
    numbers: Numbers

    def __str__(self) -> str:
        return f"column {self.name!r}: bytes of {self.classes} {self.numbers.dtype}"

    @property
    def names(self) -> tuple[str, ...]:
        """Columns to read."""
        return (self.name,)

    @property
    def kind(self) -> Literal["fixed lists"]:
        """How a row is stored."""
        return "fixed lists"

    def fits(self, other: "Logits") -> bool:
        """Whether the rows of both can follow each other."""
        return self == other

    def values(self, batch: Any, place: Place) -> NDArray[Any]:
        """The logits of a batch; a view of its memory, unless a row is null."""
        rows = column_of(batch, self.name)
        self.numbers.require_allowed(rows, self.name, place)
        width = self.classes * self.numbers.dtype.itemsize
        whole = np.frombuffer(rows.buffers()[1], np.uint8, count=(rows.offset + len(rows)) * width)
        logits = whole[rows.offset * width :].view(self.numbers.dtype).reshape(len(rows), self.classes)
        present = validity(rows)
        return _with_nan(logits, np.ones(len(rows), np.bool_), present, self.numbers.block_dtype)


@dataclass(frozen=True, slots=True)
class WideColumns:
    """One column a class."""

    name: str
    """The prefix."""
    names: tuple[str, ...]
    numbers: Numbers
    class_names: tuple[str, ...] | None = field(default=None)
    """The ends of the columns' names, where these are not just numbers."""

    def __str__(self) -> str:
        if self.classes == 1:
            return f"column {self.names[0]!r} of {self.numbers.dtype}"
        return f"{self.classes} columns {self.names[0]!r} to {self.names[-1]!r} of {self.numbers.dtype}"

    @property
    def classes(self) -> int:
        """Columns there are."""
        return len(self.names)

    @property
    def kind(self) -> Literal["columns"]:
        """How a row is stored."""
        return "columns"

    def fits(self, other: "Logits") -> bool:
        """Whether the rows of both can follow each other; the columns may stand in another order."""
        if not isinstance(other, WideColumns):
            return False
        return (set(self.names), self.numbers) == (set(other.names), other.numbers)

    def values(self, batch: Any, place: Place) -> NDArray[Any]:
        """The logits of a batch, copied."""
        logits = np.empty((batch.num_rows, self.classes), self.numbers.block_dtype)
        present = np.ones(batch.num_rows, np.bool_)
        for k, name in enumerate(self.names):
            numbers = column_of(batch, name)
            self.numbers.require_allowed(numbers, name, place)
            logits[:, k] = self.numbers.view(numbers)
            if numbers.null_count:
                present &= validity(numbers)
        if not present.all():  # integers, which have no NaN, never come here
            logits[~present] = np.nan
        return logits


Logits = ListColumn | BinaryColumn | WideColumns


def _with_nan(
    logits: NDArray[Any], stored: NDArray[np.bool_], present: NDArray[np.bool_], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """A row for each of `stored`, NaN unless `present`; `logits` has those rows that are stored."""
    if present.all() and dtype == logits.dtype:
        return logits
    rows = np.empty((len(stored), logits.shape[1]), dtype)
    rows[stored] = logits
    rows[~present] = np.nan
    return rows
