"""Which axes of an array are its rows, and which one its classes: an array of any axes as (rows, classes)."""

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_Part = TypeVar("_Part", int, slice)


@dataclass(frozen=True, slots=True)
class Axes:
    """Rows are the places along all axes but that of the classes, in C order."""

    rows: tuple[int, ...]
    classes: int | None
    """None: an array of one axis, with one logit a row."""

    @classmethod
    def of(cls, count: int, class_axis: int) -> "Axes":
        """Of an array with so many axes."""
        if count == 1:
            return cls((0,), None)
        return cls(tuple(axis for axis in range(count) if axis != class_axis), class_axis)

    @property
    def has_classes_last(self) -> bool:
        """Whether the values of a row lie side by side."""
        return self.classes is None or self.classes == len(self.rows)

    def lengths(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        """Along each axis of rows, and along the classes."""
        return tuple(shape[axis] for axis in self.rows), 1 if self.classes is None else shape[self.classes]

    def as_stored(self, rows: tuple[_Part, ...], classes: _Part) -> tuple[_Part, ...]:
        """One for each axis of the array, in its order, from one for each axis of rows and one for the classes."""
        if self.classes is None:
            return rows
        before, after = rows[: self.classes], rows[self.classes :]
        return before + (classes,) + after  # noqa: RUF005 - mypy knows the type of this one

    def as_rows(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values of an array or of a part of it, as (rows, classes); a view where that can be."""
        if self.classes is None:
            return values.reshape(-1, 1)
        return np.moveaxis(values, self.classes, -1).reshape(-1, values.shape[self.classes])
