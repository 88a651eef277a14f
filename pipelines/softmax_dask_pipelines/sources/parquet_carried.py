"""What a Parquet source carries beside its logits: a column of ids, the keys of its Hive folders; and targets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softmax_dask_pipelines.errors import MetadataLimitError, SchemaMismatchError
from softmax_dask_pipelines.sources.carried import TargetRule, plain_array, plain_type
from softmax_dask_pipelines.sources.names import ID_NAMES, TARGET_NAMES, carried_name
from softmax_dask_pipelines.sources.parquet_files import Part
from softmax_dask_pipelines.sources.parquet_hive import (
    is_key,
    key_column,
    key_names,
    key_values,
    require_key_of_all,
)
from softmax_dask_pipelines.sources.parquet_limits import TEXT_BYTES, require_plausible
from softmax_dask_pipelines.sources.parquet_stream import Batch
from softmax_dask_pipelines.sources.parquet_types import column_of, flat_columns
from softmax_dask_pipelines.sources.protocol import Carried, SourceRequest

_SLACK_BYTES = 16 * 2**20


class TextAllowance:
    """What the texts of one read may take in memory: what was planned for its rows, and a little more."""

    def __init__(self, path: str, rows: int, text_bytes: int) -> None:
        self._path, self._rows, self._text_bytes = path, rows, text_bytes
        self._left = rows * text_bytes + _SLACK_BYTES

    def take(self, texts: Any, name: str) -> None:
        """Count some; refuse those that are more than was planned for."""
        self._left -= texts.nbytes
        if self._left < 0:
            raise MetadataLimitError(
                f"{self._path}: column {name!r} holds far longer texts in some of its rows than its pages told: "
                f"{self._rows} rows take more than {self._text_bytes} bytes each, for which memory is planned. "
                "Write shorter texts, or smaller row groups, or name another column."
            )


@dataclass(frozen=True, slots=True)
class CarriedColumns:
    """Which columns and keys hold ids and targets, if any do, and the other keys."""

    carried: tuple[Carried, ...]
    """The ids, then the keys; see `SourceFacts.carried`."""
    target: Carried | None
    rule: TargetRule | None
    names: tuple[str, ...]
    """Columns to read; the others are keys."""

    @classmethod
    def of(
        cls,
        parts: Sequence[Part],
        request: SourceRequest,
        *,
        classes: int,
        class_names: tuple[str, ...] | None,
    ) -> "CarriedColumns":
        """Those that `request` names, or of a usual name; and every key that is not the target."""
        id_name = _chosen(parts, request.id, ID_NAMES)
        target_name = _chosen(parts, request.target, TARGET_NAMES)
        named = [name for name in dict.fromkeys((id_name, target_name)) if name is not None]
        columns = tuple(name for name in named if not is_key(parts[0], name))
        ids = [] if id_name is None else [_column(parts, id_name, is_id=True)]
        target = None if target_name is None else _column(parts, target_name, kind=_kind)
        rule = None if target is None else _target_rule(parts[0], target, classes, class_names)
        for part in parts:
            require_plausible(part, columns, TEXT_BYTES)
        keys = [key_column(parts, name) for name in key_names(parts) if name not in named]
        return cls((*ids, *keys), target, rule, columns)

    @property
    def target_name(self) -> str | None:
        """The column or key of targets."""
        return None if self.target is None else self.target.name

    @property
    def texts(self) -> tuple[str, ...]:
        """Columns to read that hold text."""
        stored = [*self.carried, *([] if self.target is None else [self.target])]
        texts = {column.name for column in stored if pa.types.is_string(column.type)}
        return tuple(name for name in self.names if name in texts)

    @property
    def numbers(self) -> tuple[str, ...]:
        """The other columns to read."""
        return tuple(name for name in self.names if name not in self.texts)

    def with_text_bytes(self, text_bytes: Mapping[str, int]) -> "CarriedColumns":
        """The same, once it is known what their texts take in memory."""
        carried = [
            replace(column, text_bytes=text_bytes[column.name]) if column.name in text_bytes else column
            for column in self.carried
        ]
        return replace(self, carried=tuple(carried))

    def values(
        self, batch: Batch, part: Part, *, first_row: int, allowance: TextAllowance
    ) -> tuple[dict[str, Any], NDArray[np.int64] | None]:
        """What is carried of a batch of `part`, by name, and the targets; `first_row` counts in the source."""
        texts = self._texts_of(batch, allowance)
        carried = {column.name: self._values(column, batch, part, texts) for column in self.carried}
        if self.rule is None or self.target is None:
            return carried, None
        targets = plain_array(self._values(self.target, batch, part, texts))
        return carried, self.rule.targets(targets, first_row=first_row)

    def _texts_of(self, batch: Batch, allowance: TextAllowance) -> dict[str, Any]:
        found: dict[str, list[Any]] = {name: [] for name in self.texts}
        if found:
            for piece in batch.texts:
                for name, arrays in found.items():
                    arrays.append(plain_array(column_of(piece, name)))
                    allowance.take(arrays[-1], name)
        return {name: arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays) for name, arrays in found.items()}

    def _values(self, column: Carried, batch: Batch, part: Part, texts: Mapping[str, Any]) -> Any:
        if column.name in texts:
            return texts[column.name]
        if column.name in self.names:
            return plain_array(column_of(batch.numbers, column.name))
        return key_values(part, column, batch.numbers.num_rows)


def _chosen(parts: Sequence[Part], requested: str | None, usual: Sequence[str]) -> str | None:
    first = parts[0]
    # A key is ids or targets only when it is named.
    keys = () if requested is None else dict(first.hive_keys)
    return carried_name(requested, usual, [*flat_columns(first.schema), *keys], where=first.path, kind="column")


def _column(
    parts: Sequence[Part], name: str, *, is_id: bool = False, kind: Callable[[Any], object] = lambda plain: plain
) -> Carried:
    """The column or key of that name, once every file has it and of one type (or, for targets, of one kind)."""
    if is_key(parts[0], name):
        require_key_of_all(parts, name)
        return key_column(parts, name, is_id=is_id)
    return Carried(name, _common_type(parts, name, kind), is_id=is_id)


def _target_rule(first: Part, target: Carried, classes: int, class_names: tuple[str, ...] | None) -> TargetRule:
    where = f"{first.path}: {target.name}"
    rule = TargetRule(where, classes, class_names)
    rule.require_type(plain_type(target.type, where=where))
    return rule


def _common_type(parts: Sequence[Part], name: str, kind: Callable[[Any], object]) -> Any:
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
