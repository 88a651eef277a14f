"""Choosing among names: arrays, columns, classes. Says what is there, and which name comes nearest."""

import re
from collections.abc import Collection, Sequence
from difflib import get_close_matches

from softmax_dask_pipelines.errors import ColumnNotFoundError, SchemaMismatchError

ID_NAMES = ("id", "ids")
"""Names that ids usually have."""
TARGET_NAMES = ("target", "targets")
"""Names that targets usually have."""


def nearest(name: str, names: Collection[str]) -> str:
    """A sentence that offers the name most like `name`, or nothing."""
    matches = get_close_matches(name, names, n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def listing(names: Collection[str]) -> str:
    """The first names, for a message."""
    shown = ", ".join(list(names)[:20])
    return (shown + (", ..." if len(names) > 20 else "")) or "none"


def no_such(where: str, kind: str, name: str, names: Collection[str]) -> ColumnNotFoundError:
    """The error for a `kind` (array, column) of that `name` that is not in `names`."""
    hint = nearest(name, names) or f" Name one of these {kind}s."
    return ColumnNotFoundError(f"{where}: no {kind} {name!r}; expected one of {listing(names)}.{hint}")


def carried_name(
    requested: str | None, usual: Sequence[str], names: Collection[str], *, where: str, kind: str
) -> str | None:
    """The array or column of ids or targets: the requested one, which must exist, or one of a usual name."""
    if requested is None:
        return next((name for name in usual if name in names), None)
    if requested not in names:
        raise no_such(where, kind, requested, names)
    return requested


def require_class_names(names: object, classes: int, *, where: str) -> tuple[str, ...]:
    """`names` as a tuple, once it is a list of one text a class."""
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise SchemaMismatchError(f"{where}: class_names is {names!r:.80}; expected a list of text. Correct it.")
    if len(names) != classes:
        raise SchemaMismatchError(
            f"{where}: {len(names)} class names for {classes} classes; expected one each. Correct the list "
            "of class names."
        )
    return tuple(names)


def natural_key(text: str) -> list[str | int]:
    """Sorts `part-2` before `part-10`."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]
