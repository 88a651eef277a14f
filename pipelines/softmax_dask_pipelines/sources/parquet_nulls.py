"""Numbers of a record batch as NumPy sees them, and what becomes of those that are null."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from softmax_dask_pipelines.errors import NullRowsError
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
class Numbers:
    """How logits are stored, and what a null makes of its row."""

    dtype: np.dtype[Any]
    """As stored, native byte order."""
    abstain: bool
    """A null makes its row NaN, which is undecidable; otherwise it is refused."""

    @property
    def block_dtype(self) -> np.dtype[Any]:
        """As read: integers have no NaN, and become the float dtype that holds all of them."""
        if not self.abstain or self.dtype.kind not in "iu":
            return self.dtype
        return np.dtype(np.float32 if self.dtype.itemsize <= 2 else np.float64)

    @property
    def stored(self) -> np.dtype[Any]:
        """As NumPy has it without bfloat16, whose bits are integers there."""
        return np.dtype(np.uint16) if self.dtype == BFLOAT16 else self.dtype

    def view(self, values: Any) -> NDArray[Any]:
        """The values of a flat array as stored, without a copy; whatever lies there where one is null."""
        if not len(values):
            return np.empty(0, self.dtype)
        whole = np.frombuffer(values.buffers()[1], self.stored, count=values.offset + len(values))
        return whole[values.offset :].view(self.dtype)

    def require_allowed(self, values: Any, name: str, place: Place, *, values_per_row: int = 1) -> None:
        """Refuse nulls, unless they make a row NaN."""
        if self.abstain or not values.null_count:
            return
        row = pc.index(pc.is_null(values), True).as_py() // values_per_row
        raise NullRowsError(
            f"{place.file}: column {name!r}: {place.row(row)} {'holds' if values_per_row > 1 else 'is'} "
            "null; expected a number for every class. Leave the row out, or write NaN, which makes it "
            "undecidable, or give nulls: abstain."
        )


def validity(values: Any) -> NDArray[np.bool_]:
    """Which values of an array are not null."""
    bitmap = values.buffers()[0]
    if not values.null_count or bitmap is None:
        return np.full(len(values), not pa.types.is_null(values.type))
    first = values.offset // 8
    stop = values.offset + len(values)
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8)[first : -(-stop // 8)], bitorder="little")
    return bits[values.offset - 8 * first :][: len(values)].view(np.bool_)
