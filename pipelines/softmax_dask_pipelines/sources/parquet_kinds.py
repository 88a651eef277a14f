"""A choice of columns, looked up in each file: is it there, and which numbers does it hold?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from softmax_dask import DtypeError
from softmax_dask_pipelines.errors import NullRowsError, SchemaMismatchError, SourceFormatError
from softmax_dask_pipelines.sources.dtypes import logits_dtype
from softmax_dask_pipelines.sources.names import listing, natural_key, no_such
from softmax_dask_pipelines.sources.parquet_columns import BinaryColumn, ListColumn, Logits, WideColumns
from softmax_dask_pipelines.sources.parquet_files import Part
from softmax_dask_pipelines.sources.parquet_limits import require_plausible, require_sane_rows, require_values
from softmax_dask_pipelines.sources.parquet_nulls import Numbers
from softmax_dask_pipelines.sources.parquet_stream import Columns, batches
from softmax_dask_pipelines.sources.parquet_types import (
    column_of,
    flat_columns,
    is_list,
    is_number,
    numpy_dtype,
    storage,
    storage_type,
)

_PROBE_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Reading:
    """What the user says about the numbers, whichever columns hold them."""

    bfloat16: bool
    abstain: bool

    def numbers(self, stored: Any, where: str) -> Numbers:
        """How columns of this Arrow type are read."""
        return self._numbers(numpy_dtype(stored, where), where)

    def numbers_of_bytes(self, named: str, where: str) -> Numbers:
        """How bytes are read that are said to be of the dtype `named`."""
        try:
            dtype = np.dtype("uint16" if self.bfloat16 else named).newbyteorder("<")
        except TypeError as error:
            raise DtypeError(
                f"{where}: its metadata say dtype {named!r}; expected float16, float32 or float64. Correct it."
            ) from error
        return self._numbers(dtype, where)

    def _numbers(self, stored: np.dtype[Any], where: str) -> Numbers:
        return Numbers(logits_dtype(stored, bfloat16=self.bfloat16, where=where), self.abstain)


@dataclass(frozen=True, slots=True)
class ListChoice:
    """The list column of that name."""

    name: str
    reading: Reading

    def __str__(self) -> str:
        return f"a column {self.name!r} of lists"

    def in_file(self, part: Part) -> Logits | None:
        """The column in one file; None where neither its type nor a row says how many classes there are."""
        where = f"{part.path}: column {self.name!r}"
        stored = storage_type(_type(part, self.name))
        if not part.rows and _is_untyped(stored):
            return None
        if not is_list(stored):
            single = " Or give link: sigmoid, if it is the only logit of a row." if is_number(stored) else ""
            raise SourceFormatError(f"{where} is {stored}; expected lists of numbers. Name another column.{single}")
        numbers = self.reading.numbers(stored.value_type, where)
        require_plausible(part, [self.name], numbers.dtype.itemsize)
        require_sane_rows(part, self.name, numbers.dtype.itemsize)
        fixed = pa.types.is_fixed_size_list(stored)
        classes = stored.list_size if fixed else self._first_length(part)
        if classes is None:
            return None
        require_values(part, self.name, classes)
        return ListColumn(self.name, classes, numbers, "fixed lists" if fixed else "lists")

    def _first_length(self, part: Part) -> int | None:
        rows = range(part.rows if self.reading.abstain else min(1, part.rows))
        for length in self._lengths(part, rows):
            if length is not None:
                return length
            if not self.reading.abstain:
                raise NullRowsError(
                    f"{part.path}: column {self.name!r}: row 0 of this file is null; expected a number for every "
                    "class. Leave the row out, or give nulls: abstain."
                )
        return None

    def _lengths(self, part: Part, rows: range) -> Iterator[int | None]:
        if rows:
            for batch in batches(part, rows, Columns((self.name,)), batch_rows=min(len(rows), _PROBE_ROWS)):
                yield from storage(column_of(batch.numbers, self.name)).value_lengths().to_pylist()


@dataclass(frozen=True, slots=True)
class BinaryChoice:
    """The fixed_size_binary column of that name."""

    name: str
    reading: Reading

    def __str__(self) -> str:
        return f"a column {self.name!r} of bytes"

    def in_file(self, part: Part) -> Logits | None:
        """The column in one file."""
        where = f"{part.path}: column {self.name!r}"
        stored = _type(part, self.name)
        if not pa.types.is_fixed_size_binary(stored):
            raise SourceFormatError(f"{where} is {stored}; expected fixed_size_binary. Score the files apart.")
        named = (part.schema.field(self.name).metadata or {}).get(b"dtype", b"float32").decode(errors="replace")
        numbers = self.reading.numbers_of_bytes(named, where)
        classes, rest = divmod(stored.byte_width, numbers.dtype.itemsize)
        if rest:
            raise SourceFormatError(
                f"{where} has {stored.byte_width} bytes a row; expected whole {numbers.dtype}. Name the dtype in the "
                "column's metadata, as `dtype`, or write lists."
            )
        require_plausible(part, [self.name], stored.byte_width)
        return BinaryColumn(self.name, classes, numbers)


@dataclass(frozen=True, slots=True)
class ScalarChoice:
    """The column of one logit a row."""

    name: str
    reading: Reading

    def __str__(self) -> str:
        return f"a column {self.name!r} of numbers"

    def in_file(self, part: Part) -> Logits | None:
        """The column in one file."""
        where = f"{part.path}: column {self.name!r}"
        stored = _type(part, self.name)
        if not is_number(stored):
            raise SourceFormatError(f"{where} is {stored}; expected one number a row. Score the files apart.")
        numbers = self.reading.numbers(stored, where)
        require_plausible(part, [self.name], numbers.dtype.itemsize)
        return WideColumns(self.name, (self.name,), numbers)


@dataclass(frozen=True, slots=True)
class WideChoice:
    """The numeric columns that begin with `prefix`; where `numbered`, only those that end in a number."""

    prefix: str
    numbered: bool
    reading: Reading

    def __str__(self) -> str:
        return f"columns {self.prefix}*"

    def in_file(self, part: Part) -> Logits | None:
        """The columns in one file."""
        ends = self._ends(part)
        names = tuple(self.prefix + end for end in ends)
        where = f"{part.path}: columns {names[0]!r} to {names[-1]!r}"
        columns = flat_columns(part.schema)
        types = {columns[name] for name in names}
        if len(types) > 1:
            raise SchemaMismatchError(
                f"{where} are {listing(sorted(map(str, types)))}; expected one type. Cast them to one."
            )
        numbers = self.reading.numbers(types.pop(), where)
        require_plausible(part, names, numbers.dtype.itemsize)
        return WideColumns(self.prefix, names, numbers, None if consecutive(ends) else tuple(ends))

    def _ends(self, part: Part) -> list[str]:
        columns = flat_columns(part.schema)
        found = [
            name.removeprefix(self.prefix)
            for name, stored in columns.items()
            if name.startswith(self.prefix) and is_number(stored)
        ]
        ends = [end for end in found if end.isdecimal()] if self.numbered else [end for end in found if end]
        if not ends:
            raise no_such(part.path, "column that begins with", self.prefix, list(columns))
        if all(end.isdecimal() for end in ends):
            ends.sort(key=natural_key)
        if self.numbered and not consecutive(ends):
            raise SchemaMismatchError(
                f"{part.path}: columns {self.prefix}{ends[0]} to {self.prefix}{ends[-1]} leave numbers out; "
                f"expected one for each class. Name the prefix {self.prefix!r} to take the numbers as class names."
            )
        return ends


Choice = ListChoice | BinaryChoice | ScalarChoice | WideChoice


def consecutive(ends: Sequence[str]) -> bool:
    """Whether the ends count the classes, from 0 or from 1."""
    if not all(end.isdecimal() for end in ends):
        return False
    first = int(ends[0])
    return first in (0, 1) and [int(end) for end in ends] == list(range(first, first + len(ends)))


def _is_untyped(stored: Any) -> bool:
    """What pandas writes where there are no rows."""
    return bool(pa.types.is_null(stored) or (is_list(stored) and pa.types.is_null(stored.value_type)))


def _type(part: Part, name: str) -> Any:
    columns = flat_columns(part.schema)
    if name not in columns:
        raise no_such(part.path, "column", name, list(columns))
    return columns[name]
