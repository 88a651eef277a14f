"""Id and target columns of a Parquet source, the same in every file, or a key of its Hive folders."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softmax_dask_pipelines.errors import SchemaMismatchError
from softmax_dask_pipelines.sources.carried import TargetRule, plain_array, plain_type
from softmax_dask_pipelines.sources.names import ID_NAMES, TARGET_NAMES, carried_name
from softmax_dask_pipelines.sources.parquet_files import Part
from softmax_dask_pipelines.sources.parquet_hive import is_key, key_type, key_values
from softmax_dask_pipelines.sources.parquet_limits import TEXT_BYTES, require_plausible
from softmax_dask_pipelines.sources.parquet_types import column_of, flat_columns
from softmax_dask_pipelines.sources.protocol import SourceRequest


@dataclass(frozen=True, slots=True)
class CarriedColumns:
    """Which columns hold ids and targets, if any do."""

    id_name: str | None
    id_type: Any
    target_name: str | None
    rule: TargetRule | None
    keys: Mapping[str, Any]
    """Type of those that are no columns but keys of Hive folders."""

    @classmethod
    def of(
        cls,
        parts: Sequence[Part],
        request: SourceRequest,
        *,
        classes: int,
        class_names: tuple[str, ...] | None,
    ) -> "CarriedColumns":
        """Those that `request` names, or of a usual name."""
        id_name = _chosen(parts, request.id, ID_NAMES)
        target_name = _chosen(parts, request.target, TARGET_NAMES)
        id_type = None if id_name is None else _common_type(parts, id_name)
        rule = None
        if target_name is not None:
            rule = TargetRule(f"{parts[0].path}: {target_name}", classes, class_names)
            rule.require_type(_common_type(parts, target_name, kind=_kind))
        named = [name for name in (id_name, target_name) if name is not None]
        keys = {name: key_type(parts, name) for name in named if is_key(parts[0], name)}
        for part in parts:
            require_plausible(part, [name for name in named if name not in keys], TEXT_BYTES)
        return cls(id_name, id_type, target_name, rule, keys)

    @property
    def names(self) -> list[str]:
        """Columns to read."""
        named = (self.id_name, self.target_name)
        return [name for name in named if name is not None and name not in self.keys]

    def values(self, batch: Any, part: Part, *, first_row: int) -> tuple[Any, NDArray[np.int64] | None]:
        """Ids and targets of a record batch of `part`, whose first row has this number in the source."""
        ids = None if self.id_name is None else self._column(self.id_name, batch, part)
        if self.rule is None or self.target_name is None:
            return ids, None
        return ids, self.rule.targets(self._column(self.target_name, batch, part), first_row=first_row)

    def _column(self, name: str, batch: Any, part: Part) -> Any:
        if name in self.keys:
            return key_values(part, name, self.keys[name], batch.num_rows)
        return plain_array(column_of(batch, name))


def _chosen(parts: Sequence[Part], requested: str | None, usual: Sequence[str]) -> str | None:
    first = parts[0]
    if requested is not None and is_key(first, requested):
        return requested
    return carried_name(requested, usual, list(flat_columns(first.schema)), where=first.path, kind="column")


def _common_type(parts: Sequence[Part], name: str, *, kind: Callable[[Any], object] = lambda plain: plain) -> Any:
    """Type of the column, once every file has it and of this type (or, for targets, of this kind)."""
    if is_key(parts[0], name):
        return key_type(parts, name)
    types = [(part, found) for part in parts if (found := _type(part, name, parts[0])) is not None]
    for part, found in types:
        if kind(found) != kind(types[0][1]):
            raise SchemaMismatchError(
                f"{part.path}: column {name!r} is {found}, but {types[0][1]} in {types[0][0].path}; "
                "expected one type. Write one of the files again."
            )
    return types[0][1] if types else pa.string()


def _type(part: Part, name: str, first: Part) -> Any:
    """Type of the column in this file; None where it has no rows and so no type."""
    columns = flat_columns(part.schema)
    if name not in columns:
        raise SchemaMismatchError(
            f"{part.path} has no column {name!r}, but {first.path} has; expected it in every file. "
            "Score the files apart, or write one of them again."
        )
    if not part.rows and pa.types.is_null(columns[name]):
        return None
    return plain_type(columns[name], where=f"{part.path}: {name}")


def _kind(plain: Any) -> object:
    """Targets become int64 whatever their width."""
    return str(plain) == "string"
