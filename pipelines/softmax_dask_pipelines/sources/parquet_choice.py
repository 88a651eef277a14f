"""Which columns of a Parquet file hold the logits."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from softmax_dask.errors import DtypeError
from softmax_dask_pipelines.errors import (
    ColumnNotFoundError,
    NullRowsError,
    SchemaMismatchError,
    SourceFormatError,
)
from softmax_dask_pipelines.sources.dtypes import LOGITS_DTYPES, holds_logits, logits_dtype
from softmax_dask_pipelines.sources.names import ID_NAMES, TARGET_NAMES, listing, natural_key, no_such
from softmax_dask_pipelines.sources.parquet_columns import ListColumn, Logits, WideColumns, storage
from softmax_dask_pipelines.sources.parquet_files import Part, batches
from softmax_dask_pipelines.sources.protocol import SourceRequest

_NUMBERED = re.compile(r"(.*?)(\d+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ListChoice:
    """The list column of that name."""

    name: str
    bfloat16: bool

    def in_file(self, part: Part) -> Logits | None:
        """The column in one file; None where neither its type nor a row says how many classes there are."""
        where = f"{part.path}: column {self.name!r}"
        if self.name not in part.schema.names:
            raise no_such(part.path, "column", self.name, part.schema.names)
        stored = _storage_type(part.schema.field(self.name).type)
        if not _is_list(stored):
            raise SourceFormatError(f"{where} is {stored}; expected lists of numbers. Name another column.")
        dtype = logits_dtype(_numpy_dtype(stored.value_type, where), bfloat16=self.bfloat16, where=where)
        classes = stored.list_size if pa.types.is_fixed_size_list(stored) else _first_length(part, self.name)
        return None if classes is None else ListColumn(self.name, classes, dtype)


@dataclass(frozen=True, slots=True)
class WideChoice:
    """The numeric columns that begin with `prefix`; where `numbered`, only those that end in a number."""

    prefix: str
    numbered: bool
    bfloat16: bool

    def in_file(self, part: Part) -> Logits | None:
        """The columns in one file."""
        ends = self._ends(part)
        names = tuple(self.prefix + end for end in ends)
        where = f"{part.path}: columns {names[0]!r} to {names[-1]!r}"
        types = {part.schema.field(name).type for name in names}
        if len(types) > 1:
            raise SchemaMismatchError(
                f"{where} are {listing(sorted(map(str, types)))}; expected one type. Cast them to one."
            )
        dtype = logits_dtype(_numpy_dtype(types.pop(), where), bfloat16=self.bfloat16, where=where)
        return WideColumns(self.prefix, names, dtype, None if _consecutive(ends) else tuple(ends))

    def _ends(self, part: Part) -> list[str]:
        found = [
            column.name.removeprefix(self.prefix)
            for column in part.schema
            if column.name.startswith(self.prefix) and _is_number(column.type)
        ]
        ends = [end for end in found if end.isdecimal()] if self.numbered else [end for end in found if end]
        if not ends:
            raise no_such(part.path, "column that begins with", self.prefix, part.schema.names)
        if all(end.isdecimal() for end in ends):
            ends.sort(key=natural_key)
        if self.numbered and not _consecutive(ends):
            raise SchemaMismatchError(
                f"{part.path}: columns {self.prefix}{ends[0]} to {self.prefix}{ends[-1]} leave numbers out; "
                "expected one for "
                f"each class. Name the prefix {self.prefix!r} to take the numbers as class names."
            )
        return ends


def choose(schema: Any, request: SourceRequest, *, where: str) -> ListChoice | WideChoice:
    """The requested column or columns, or else the only ones that can be logits."""
    bfloat16 = request.dtype == "bfloat16"
    if request.column is not None:
        return ListChoice(request.column, bfloat16)
    if request.column_prefix is not None:
        return WideChoice(request.column_prefix, numbered=False, bfloat16=bfloat16)
    carried = {*ID_NAMES, *TARGET_NAMES, request.id, request.target}
    columns = [column for column in schema if column.name not in carried]
    lists = [column.name for column in columns if _holds_logits(column.type)]
    if lists:
        return ListChoice(_only(lists, "logits", where, "Name the column."), bfloat16)
    prefixes = _prefixes([column.name for column in columns if _is_number(column.type)])
    if prefixes:
        prefix = _only(prefixes, "logit", where, "Name the columns' prefix.")
        return WideChoice(prefix, numbered=True, bfloat16=bfloat16)
    return _only_list(columns, where, bfloat16)


def _only(candidates: Sequence[str], usual: str, where: str, remedy: str) -> str:
    """The only candidate, or the one of the usual name."""
    named = [name for name in candidates if name == usual or name.lower().rstrip("_-. ") in (usual, "logits")]
    chosen = candidates if len(candidates) == 1 else named
    if len(chosen) != 1:
        raise ColumnNotFoundError(
            f"{where}: {listing(candidates)} may all be logits; expected one candidate, or one named "
            f"{usual!r}. {remedy}"
        )
    return chosen[0]


def _only_list(columns: Sequence[Any], where: str, bfloat16: bool) -> ListChoice:
    """A list column of another dtype, so that the checks that follow say what is wrong with it."""
    lists = [column.name for column in columns if _is_list(_storage_type(column.type))]
    if len(lists) == 1:
        return ListChoice(lists[0], bfloat16)
    described = listing([f"{column.name} {column.type}" for column in columns])
    raise SourceFormatError(
        f"{where}: no column can be logits; expected lists of numbers, or one numbered column a class. "
        f"There are: {described}. Name the column, or the prefix of the columns."
    )


def _prefixes(names: Sequence[str]) -> list[str]:
    """What two or more names begin with, a number following."""
    ends: defaultdict[str, int] = defaultdict(int)
    for name in names:
        match = _NUMBERED.fullmatch(name)
        if match:
            ends[match[1]] += 1
    return [prefix for prefix, count in ends.items() if count > 1]


def _consecutive(ends: Sequence[str]) -> bool:
    """Whether the ends count the classes, from 0 or from 1."""
    if not all(end.isdecimal() for end in ends):
        return False
    first = int(ends[0])
    return first in (0, 1) and [int(end) for end in ends] == list(range(first, first + len(ends)))


def _first_length(part: Part, name: str) -> int | None:
    if not part.rows:
        return None
    _, batch = next(batches(part, range(1), [name], batch_rows=1))
    length = storage(batch.column(name)).value_lengths()[0].as_py()
    if length is None:
        raise NullRowsError(
            f"{part.path}: column {name!r}: row 0 of this file is null; expected a number for every class. "
            "Leave the row out."
        )
    return int(length)


def _holds_logits(stored: Any) -> bool:
    inner = _storage_type(stored)
    return (
        _is_list(inner) and _is_number(inner.value_type) and holds_logits(np.dtype(inner.value_type.to_pandas_dtype()))
    )


def _storage_type(stored: Any) -> Any:
    return stored.storage_type if isinstance(stored, pa.BaseExtensionType) else stored


def _is_list(stored: Any) -> bool:
    return bool(pa.types.is_list(stored) or pa.types.is_large_list(stored) or pa.types.is_fixed_size_list(stored))


def _is_number(stored: Any) -> bool:
    return bool(pa.types.is_integer(stored) or pa.types.is_floating(stored))


def _numpy_dtype(stored: Any, where: str) -> np.dtype[Any]:
    if not _is_number(stored):
        raise DtypeError(
            f"{where} holds {stored}; expected bfloat16, {', '.join(LOGITS_DTYPES)}. Cast first, for example "
            "to float32."
        )
    dtype: np.dtype[Any] = np.dtype(stored.to_pandas_dtype())
    return dtype
