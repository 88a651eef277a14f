"""Logits in a record batch, a list column or one column a class: checks them, makes them (rows, classes)."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from softmax_dask_pipelines.errors import NullRowsError, RaggedRowsError
from softmax_dask_pipelines.sources.dtypes import BFLOAT16


@dataclass(frozen=True, slots=True)
class Place:
    """Where a batch begins."""

    file: str
    file_row: int
    source_row: int

    def row(self, offset: int) -> str:
        """The row of the batch's `offset`, for a message."""
        same = self.file_row == self.source_row
        return f"row {self.source_row + offset}" + ("" if same else f" (row {self.file_row + offset} of this file)")


@dataclass(frozen=True, slots=True)
class ListColumn:
    """A column of lists or fixed-size lists, one a row."""

    name: str
    classes: int
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"column {self.name!r}: lists of {self.classes} {self.dtype}"

    @property
    def names(self) -> tuple[str, ...]:
        """Columns to read."""
        return (self.name,)

    def values(self, batch: Any, place: Place) -> NDArray[Any]:
        """The logits of a batch; a view of its memory."""
        lists = storage(batch.column(self.name))
        _require_no_null(lists, self.name, place)
        first = self._first_value(lists, place)
        numbers = lists.values.slice(first, len(lists) * self.classes)
        _require_no_null(numbers, self.name, place, values_per_row=self.classes)
        return _view(numbers, self.dtype).reshape(len(lists), self.classes)

    def _first_value(self, lists: Any, place: Place) -> int:
        """Where the values of the first row begin, once all rows are found to be equally long."""
        if pa.types.is_fixed_size_list(lists.type):
            # `values` is the whole child, not the part that a slice stands for.
            return int(lists.offset) * self.classes
        width = np.int64 if pa.types.is_large_list(lists.type) else np.int32
        offsets = np.frombuffer(lists.buffers()[1], width)[lists.offset : lists.offset + len(lists) + 1]
        lengths = np.diff(offsets)
        ragged = np.flatnonzero(lengths != self.classes)
        if ragged.size:
            row = int(ragged[0])
            raise RaggedRowsError(
                f"{place.file}: column {self.name!r}: {place.row(row)} has {lengths[row]} logits; expected "
                f"{self.classes} "
                "as in the first row. Write all rows with one number of classes."
            )
        return int(offsets[0])


@dataclass(frozen=True, slots=True)
class WideColumns:
    """One column a class."""

    name: str
    """The prefix."""
    names: tuple[str, ...]
    dtype: np.dtype[Any]
    class_names: tuple[str, ...] | None = field(default=None)
    """The ends of the columns' names, where these are not just numbers."""

    def __str__(self) -> str:
        return f"{self.classes} columns {self.names[0]!r} to {self.names[-1]!r} of {self.dtype}"

    @property
    def classes(self) -> int:
        """Columns there are."""
        return len(self.names)

    def values(self, batch: Any, place: Place) -> NDArray[Any]:
        """The logits of a batch, copied."""
        logits = np.empty((batch.num_rows, self.classes), self.dtype)
        for k, name in enumerate(self.names):
            numbers = batch.column(name)
            _require_no_null(numbers, name, place)
            logits[:, k] = _view(numbers, self.dtype)
        return logits


Logits = ListColumn | WideColumns


def storage(values: Any) -> Any:
    """The array itself, of an extension type (fixed_shape_tensor) what it is stored as."""
    return values.storage if isinstance(values, pa.ExtensionArray) else values


def _view(numbers: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Numbers without nulls as NumPy sees them, without a copy."""
    if not len(numbers):
        return np.empty(0, dtype)
    stored = np.dtype(np.uint16) if dtype == BFLOAT16 else dtype
    whole = np.frombuffer(numbers.buffers()[1], stored, count=numbers.offset + len(numbers))
    return whole[numbers.offset :].view(dtype)


def _require_no_null(values: Any, name: str, place: Place, *, values_per_row: int = 1) -> None:
    if values.null_count:
        row = pc.index(pc.is_null(values), True).as_py() // values_per_row
        raise NullRowsError(
            f"{place.file}: column {name!r}: {place.row(row)} {'holds' if values_per_row > 1 else 'is'} "
            "null; expected a "
            "number for every class. Leave the row out, or write NaN, which makes it undecidable."
        )
