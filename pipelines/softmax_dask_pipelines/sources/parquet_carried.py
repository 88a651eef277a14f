"""Id and target columns of a Parquet source, the same in every file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_dask_pipelines.errors import SchemaMismatchError
from softmax_dask_pipelines.sources.carried import TargetRule, plain_array, plain_type
from softmax_dask_pipelines.sources.names import ID_NAMES, TARGET_NAMES, carried_name
from softmax_dask_pipelines.sources.parquet_files import Part
from softmax_dask_pipelines.sources.protocol import SourceRequest


@dataclass(frozen=True, slots=True)
class CarriedColumns:
    """Which columns hold ids and targets, if any do."""

    id_name: str | None
    id_type: Any
    target_name: str | None
    rule: TargetRule | None

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
        return cls(id_name, id_type, target_name, rule)

    @property
    def names(self) -> list[str]:
        """Columns to read."""
        return [name for name in (self.id_name, self.target_name) if name is not None]

    def values(self, batch: Any, *, first_row: int) -> tuple[Any, NDArray[np.int64] | None]:
        """Ids and targets of a record batch, whose first row has this number in the source."""
        ids = None if self.id_name is None else plain_array(batch.column(self.id_name))
        if self.rule is None:
            return ids, None
        targets = plain_array(batch.column(self.target_name))
        return ids, self.rule.targets(targets, first_row=first_row)


def _chosen(parts: Sequence[Part], requested: str | None, usual: Sequence[str]) -> str | None:
    first = parts[0]
    return carried_name(requested, usual, first.schema.names, where=first.path, kind="column")


def _common_type(parts: Sequence[Part], name: str, *, kind: Callable[[Any], object] = lambda plain: plain) -> Any:
    """Type of the column, once every file has it and of this type (or, for targets, of this kind)."""
    first = _type(parts[0], name)
    for part in parts[1:]:
        if name not in part.schema.names:
            raise SchemaMismatchError(
                f"{part.path} has no column {name!r}, but {parts[0].path} has; expected it in every file. "
                "Score the files apart, or write one of them again."
            )
        if kind(_type(part, name)) != kind(first):
            raise SchemaMismatchError(
                f"{part.path}: column {name!r} is {_type(part, name)}, but {first} in {parts[0].path}; "
                "expected one type. Write one of the files again."
            )
    return first


def _type(part: Part, name: str) -> Any:
    return plain_type(part.schema.field(name).type, where=f"{part.path}: {name}")


def _kind(plain: Any) -> object:
    """Targets become int64 whatever their width."""
    return str(plain) == "string"
