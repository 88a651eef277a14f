"""Ids and targets: what is carried beside the logits, checked and in one form whatever the format.

Ids become integers or plain text in Arrow, targets int64 with -1 where a row is unlabelled.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from softmax_dask_pipelines import arrow
from softmax_dask_pipelines.errors import BadTargetError, SchemaMismatchError
from softmax_dask_pipelines.sources.names import nearest

UNLABELLED = -1
_UNLABELLED = arrow.numbers(np.array([UNLABELLED]))[0]
_LARGEST = arrow.numbers(np.array([2**63 - 1], np.uint64))[0]
_NO_TEXT = arrow.texts([""])[0]


@dataclass(frozen=True, slots=True)
class TargetRule:
    """How the values of one array or column become targets."""

    where: str
    """The source and the name in it, for messages."""
    classes: int
    class_names: tuple[str, ...] | None

    def targets(self, values: Any, *, first_row: int) -> NDArray[np.int64]:
        """Classes of the rows from `first_row` on; -1 for -1, null and empty text."""
        if not pa.types.is_string(values.type):
            return self._of_integers(values, first_row)
        return self._of_text(values, first_row)

    def require_type(self, plain: Any) -> None:
        """Refuse text where no class names are known."""
        if not pa.types.is_string(plain):
            return
        if self.class_names is None:
            raise SchemaMismatchError(
                f"{self.where}: targets are text and the source names no classes; expected class names. Give them."
            )
        if len(set(self.class_names)) < self.classes:
            raise SchemaMismatchError(
                f"{self.where}: targets are text, but two classes have one name; expected different names. "
                "Write the targets as class numbers."
            )

    def _of_integers(self, values: Any, first_row: int) -> NDArray[np.int64]:
        targets = _int64(values)
        bad = np.flatnonzero((targets < UNLABELLED) | (targets >= self.classes))
        if bad.size:
            row = int(bad[0])
            raise self._bad(first_row + row, values[row].as_py(), "Correct it, or write -1 where a row is unlabelled.")
        return targets

    def _of_text(self, values: Any, first_row: int) -> NDArray[np.int64]:
        names = self.class_names or ()
        classes = pc.index_in(values, value_set=arrow.texts(names))
        unlabelled = pc.or_kleene(pc.is_null(values), pc.equal(values, _NO_TEXT))
        bad = pc.indices_nonzero(pc.and_(pc.is_null(classes), pc.invert(unlabelled)))
        if len(bad):
            row = bad[0].as_py()
            text = values[row].as_py()
            raise self._bad(first_row + row, text, nearest(text, names) or "Correct it, or leave it empty.")
        return _int64(pc.if_else(unlabelled, _UNLABELLED, classes))

    def _bad(self, row: int, value: object, remedy: str) -> BadTargetError:
        expected = (
            f"0 to {self.classes - 1}" if isinstance(value, int) else f"the name of one of {self.classes} classes"
        )
        return BadTargetError(f"{self.where}: row {row} has target {value!r}; expected {expected}. {remedy.strip()}")


def plain_type(stored: Any, *, where: str) -> Any:
    """Arrow type in which ids or targets of the type `stored` are carried: integers as they are, or text."""
    inner = stored.value_type if pa.types.is_dictionary(stored) else stored
    if pa.types.is_integer(inner):
        return inner
    if pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_string_view(inner):
        return pa.string()
    raise SchemaMismatchError(f"{where}: is {stored}; expected integers or text. Cast it, or name another one.")


def plain_array(values: Any) -> Any:
    """An Arrow array of ids or targets in its `plain_type`."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values if pa.types.is_integer(values.type) else values.cast(pa.string())


def type_of_numpy(dtype: np.dtype[Any], *, where: str) -> Any:
    """Arrow type in which a NumPy array of ids or targets is carried."""
    if dtype.kind in "iu":
        return pa.from_numpy_dtype(dtype.newbyteorder("="))
    if dtype.kind in "USTO":
        return pa.string()
    raise SchemaMismatchError(f"{where}: is {dtype}; expected integers or text. Cast it, or name another one.")


def array_of_numpy(values: NDArray[Any], *, where: str) -> Any:
    """The Arrow array of a 1-D NumPy array of integers, text or UTF-8 bytes."""
    if values.dtype.kind not in "iu":
        texts = values.tolist()
        try:
            return arrow.texts(texts)
        except TypeError:  # bytes, or what is no text
            return arrow.texts([_text(value, where) for value in texts])
    return arrow.numbers(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("=")))


def _text(value: object, where: str) -> str:
    if isinstance(value, str):
        return value
    try:
        return value.decode() if isinstance(value, bytes) else _refuse(value)
    except (UnicodeDecodeError, TypeError) as error:
        raise SchemaMismatchError(f"{where}: holds {value!r:.80}; expected UTF-8 text. Write it as text.") from error


def _refuse(value: object) -> str:
    raise TypeError(type(value).__name__)


def _int64(values: Any) -> NDArray[np.int64]:
    if pa.types.is_uint64(values.type):
        # Above the largest int64, a cast would wrap around, 2**64 - 1 to "unlabelled".
        values = pc.min_element_wise(values, _LARGEST)
    return arrow.stored(pc.fill_null(pc.cast(values, pa.int64()), _UNLABELLED))
