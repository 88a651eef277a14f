"""Columns by name, those inside structs included, and what the Arrow types of logits are."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from softmax_dask import DtypeError
from softmax_dask_pipelines.errors import SchemaMismatchError
from softmax_dask_pipelines.sources.dtypes import LOGITS_DTYPES, holds_logits


def flat_columns(schema: Any) -> dict[str, Any]:
    """Type of each column; a struct's members follow it under dotted names, `outputs.logits`."""
    return {name: stored for column in schema for name, stored in _named(column, "")}


def require_distinct_names(schema: Any, *, where: str) -> None:
    """Refuse a file where one name could mean two columns."""
    counts = Counter(name for column in schema for name, _ in _named(column, ""))
    twice = next((name for name, count in counts.items() if count > 1), None)
    if twice is not None:
        raise SchemaMismatchError(
            f"{where}: two columns have the name {twice!r}; expected different names. Write it again with one of them."
        )


def column_of(batch: Any, name: str) -> Any:
    """The column of that name, or the member of a struct; null where a struct above it is null."""
    index = batch.schema.get_field_index(name)
    if index >= 0:
        return batch.column(index)
    above = next(column for column in batch.schema.names if name.startswith(f"{column}."))
    return _member(batch.column(above), name.removeprefix(f"{above}."))


def storage(values: Any) -> Any:
    """The array itself, of an extension type (fixed_shape_tensor) what it is stored as."""
    return values.storage if isinstance(values, pa.ExtensionArray) else values


def storage_type(stored: Any) -> Any:
    """The type itself, of an extension type what it is stored as."""
    return stored.storage_type if isinstance(stored, pa.BaseExtensionType) else stored


def is_list(stored: Any) -> bool:
    """Whether each row is a list, of one length or of any."""
    inner = storage_type(stored)
    return bool(pa.types.is_list(inner) or pa.types.is_large_list(inner) or pa.types.is_fixed_size_list(inner))


def is_number(stored: Any) -> bool:
    """Whether each row is one number."""
    return bool(pa.types.is_integer(stored) or pa.types.is_floating(stored))


def can_be_logits(stored: Any) -> bool:
    """Whether each row is a number that can be a logit."""
    return is_number(stored) and holds_logits(np.dtype(stored.to_pandas_dtype()))


def can_be_logits_list(stored: Any) -> bool:
    """Whether each row is a list of such numbers."""
    return is_list(stored) and can_be_logits(storage_type(stored).value_type)


def numpy_dtype(stored: Any, where: str) -> np.dtype[Any]:
    """The dtype of the numbers of an Arrow type."""
    if not is_number(stored):
        raise DtypeError(
            f"{where} holds {stored}; expected bfloat16, {', '.join(LOGITS_DTYPES)}. Cast first, for example "
            "to float32."
        )
    dtype: np.dtype[Any] = np.dtype(stored.to_pandas_dtype())
    return dtype


def _named(column: Any, above: str) -> list[tuple[str, Any]]:
    name = above + column.name
    members = [] if not pa.types.is_struct(column.type) else list(column.type)
    return [(name, column.type), *(pair for member in members for pair in _named(member, f"{name}."))]


def _member(struct: Any, name: str) -> Any:
    index = struct.type.get_field_index(name)
    members = struct.flatten()  # unlike `field`, it knows that members of a null struct are null
    if index >= 0:
        return members[index]
    above = next(i for i, member in enumerate(struct.type) if name.startswith(f"{member.name}."))
    return _member(members[above], name.removeprefix(f"{struct.type[above].name}."))
