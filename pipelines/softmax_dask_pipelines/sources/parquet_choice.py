"""Which columns of a Parquet file hold the logits: those that the user names, or the only ones that can."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from softmax_dask_pipelines.errors import ColumnNotFoundError, SourceFormatError
from softmax_dask_pipelines.sources.names import ID_NAMES, TARGET_NAMES, listing, natural_key
from softmax_dask_pipelines.sources.parquet_kinds import (
    BinaryChoice,
    Choice,
    ListChoice,
    Reading,
    ScalarChoice,
    WideChoice,
    consecutive,
)
from softmax_dask_pipelines.sources.parquet_types import (
    can_be_logits,
    can_be_logits_list,
    flat_columns,
    is_list,
    is_number,
)
from softmax_dask_pipelines.sources.protocol import SourceRequest

_NUMBERED = re.compile(r"(.*?)(\d+)", re.DOTALL)
_USUAL = ("logit", "logits")

Columns = Mapping[str, Any]
"""Name and type."""


def choose(schema: Any, request: SourceRequest, *, where: str) -> Choice:
    """The requested column or columns, or else the only ones that can be logits."""
    reading = Reading(bfloat16=request.dtype == "bfloat16", abstain=request.nulls == "abstain")
    columns = flat_columns(schema)
    if request.column is not None:
        return _named(request.column, columns, request.link, reading)
    if request.column_prefix is not None:
        return WideChoice(request.column_prefix, numbered=False, reading=reading)
    carried = {*ID_NAMES, *TARGET_NAMES, request.id, request.target}
    free = {name: stored for name, stored in columns.items() if name not in carried}
    top = {name: stored for name, stored in free.items() if schema.get_field_index(name) >= 0}
    return (
        _only_fitting(top, request.link, where, reading)
        or _only_fitting(free, request.link, where, reading)
        or _nearly_fitting(free, where, reading)
    )


def _named(name: str, columns: Columns, link: str, reading: Reading) -> Choice:
    stored = columns.get(name)
    if stored is not None and pa.types.is_fixed_size_binary(stored):
        return BinaryChoice(name, reading)
    if stored is not None and is_number(stored) and link == "sigmoid":
        return ScalarChoice(name, reading)
    return ListChoice(name, reading)


def _only_fitting(columns: Columns, link: str, where: str, reading: Reading) -> Choice | None:
    """The one candidate, or the one of several that has the usual name; None where nothing fits."""
    choices = _candidates(columns, link, reading)
    if not choices:
        return None
    named = [shown for shown in choices if shown.lower().rstrip("*_-. ") in _USUAL]
    chosen = list(choices) if len(choices) == 1 else named
    if len(chosen) != 1:
        raise ColumnNotFoundError(
            f"{where}: {listing(list(choices))} may all be logits; expected one candidate, or one named 'logits'. "
            "Name the column, or the columns' prefix."
        )
    return choices[chosen[0]]


def _candidates(columns: Columns, link: str, reading: Reading) -> dict[str, Choice]:
    """Everything that fits, by a name for people: lists, sets of columns; then bytes, then single numbers."""
    found: dict[str, Choice] = {
        name: ListChoice(name, reading) for name, stored in columns.items() if can_be_logits_list(stored)
    }
    fitting = [name for name, stored in columns.items() if can_be_logits(stored)]
    for prefix, ends in _prefixes(fitting).items():
        if consecutive(ends):
            found[f"{prefix}*"] = WideChoice(prefix, numbered=True, reading=reading)
    # Bytes are often something else (a hash, a UUID), so their name must say that they are logits.
    for name, stored in columns.items():
        if pa.types.is_fixed_size_binary(stored) and name.lower() in _USUAL:
            found[name] = BinaryChoice(name, reading)
    if not found and link == "sigmoid":
        found = {name: ScalarChoice(name, reading) for name in fitting if pa.types.is_floating(columns[name])}
    return found


def _nearly_fitting(columns: Columns, where: str, reading: Reading) -> Choice:
    """The only thing that looks like logits, so that the checks that follow say what is wrong with it."""
    prefixes = list(_prefixes([name for name, stored in columns.items() if is_number(stored)]))
    lists = [name for name, stored in columns.items() if is_list(stored)]
    if len(prefixes) == 1:
        return WideChoice(prefixes[0], numbered=True, reading=reading)
    if len(lists) == 1:
        return ListChoice(lists[0], reading)
    described = listing([f"{name} {stored}" for name, stored in columns.items()])
    raise SourceFormatError(
        f"{where}: no column can be logits; expected lists of numbers, or one numbered column a class. "
        f"There are: {described}. Name the column, or the prefix of the columns."
    )


def _prefixes(names: Sequence[str]) -> dict[str, list[str]]:
    """What two or more names begin with, and the numbers that follow."""
    ends: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        match = _NUMBERED.fullmatch(name)
        if match:
            ends[match[1]].append(match[2])
    return {prefix: sorted(found, key=natural_key) for prefix, found in ends.items() if len(found) > 1}
