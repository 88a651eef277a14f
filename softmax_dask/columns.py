"""The one table of columns: what can be decided from a row of logits.

Whatever must know a column (blocks, sinks, config, help, report) reads it here.
A new column is a line here, a line in each backend's kernel, and its test.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Literal

from softmax_dask.errors import ColumnError

Kind = Literal["int32", "int8", "float", "wide", "string"]
"""`float`: float32, or float64 where the arithmetic is float64. `wide`: the dtype the caller chose."""

Need = Literal["nothing", "targets", "class_names", "top_k", "threshold", "level"]


@dataclass(frozen=True, slots=True)
class Column:
    """One thing that can be decided from a row."""

    name: str
    kind: Kind
    per: Literal["row", "class", "rank", "member"]
    """One value a row, one a row and class, `top_k` values a row, or as many as a set of classes may have."""
    undecidable: float | int | None
    """The value where the row holds NaN, +inf or only -inf, or where its target is missing."""
    needs: Need
    unit: str
    description: str

    @property
    def is_large(self) -> bool:
        """Whether a row's values may be about as many as its classes."""
        return self.per in ("class", "member")

    def tail(self, classes: int, top_k: int, members: int = 0) -> tuple[int, ...]:
        """Shape of one row's values: () where there is one value a row."""
        if self.per == "row":
            return ()
        if self.per == "class":
            return (classes,)
        return (top_k if self.per == "rank" else members,)


def _table(*columns: Column) -> Mapping[str, Column]:
    return MappingProxyType({column.name: column for column in columns})


_NAN = float("nan")

COLUMNS: Mapping[str, Column] = _table(
    Column("label", "int32", "row", -1, "nothing", "class number", "class of the largest logit, the lowest on ties"),
    Column("label_name", "string", "row", None, "class_names", "", "name of that class"),
    Column("confidence", "float", "row", _NAN, "nothing", "1", "largest probability"),
    Column("margin", "float", "row", _NAN, "nothing", "1", "largest probability minus the second; of one class 1"),
    Column("entropy", "float", "row", _NAN, "nothing", "nat", "entropy of the probabilities"),
    Column("logsumexp", "float", "row", _NAN, "nothing", "nat", "log of the sum of exp(logit / temperature)"),
    Column("max_logit", "float", "row", _NAN, "nothing", "1", "largest logit, not divided by the temperature"),
    Column("top_k_labels", "int32", "rank", -1, "top_k", "class number", "classes of the k largest logits, falling"),
    Column("top_k_probabilities", "float", "rank", _NAN, "top_k", "1", "their probabilities"),
    Column("top_k_log_probabilities", "wide", "rank", _NAN, "top_k", "nat", "logs of these probabilities"),
    Column("tail_mass", "float", "row", _NAN, "top_k", "1", "probability of all classes but the k largest, together"),
    Column(
        "tail_divergence",
        "float",
        "row",
        _NAN,
        "top_k",
        "nat",
        "Kullback-Leibler divergence from the row with its tail_mass spread evenly over the classes of the tail",
    ),
    Column("nll", "float", "row", _NAN, "targets", "nat", "negative log-likelihood of the target"),
    Column("target_probability", "float", "row", _NAN, "targets", "1", "probability of the target"),
    Column(
        "brier", "float", "row", _NAN, "targets", "1", "sum over classes of (probability - 1 if the target, else 0)^2"
    ),
    Column("target_rank", "int32", "row", -1, "targets", "1", "classes ranked before the target, ties by class"),
    Column("correct", "int8", "row", -1, "targets", "1", "1 where the label is the target, else 0"),
    Column("accept", "int8", "row", -1, "threshold", "1", "1 where the confidence is at least the threshold, else 0"),
    Column("conformal_set", "int32", "member", -1, "level", "class number", "classes that hold the true one; then -1"),
    Column("probabilities", "wide", "class", _NAN, "nothing", "1", "softmax(logits / temperature)"),
    Column("log_probabilities", "wide", "class", _NAN, "nothing", "nat", "log of the probabilities"),
)


_OF_PIPELINES: Mapping[Need, tuple[str, str]] = MappingProxyType(
    {
        "class_names": ("class names", "label. Look it up"),
        "threshold": ("a threshold", "confidence. Compare it"),
        "level": ("a conformal level", "probabilities. Compare them"),
    }
)
"""What only the pipelines know -> what it is, and what to ask for here."""


def require_columns(names: Any, *, available: frozenset[Need] = frozenset()) -> tuple[Column, ...]:
    """Look up `names`, a sequence of text, in their order.

    Parameters
    ----------
    available : what the caller can give beside the logits: "targets", "class_names", "top_k"

    Raises
    ------
    ColumnError
        No name was given, a name is unknown or stands twice, or a column needs what is not available.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise ColumnError(f"columns is {names!r}; expected several names. Write ({names!r},).")
    found = tuple(names)
    if not found:
        raise ColumnError(f"columns is empty; expected at least one of {', '.join(COLUMNS)}.")
    return tuple(_require_column(name, found, available) for name in found)


def _require_column(name: Any, names: tuple[Any, ...], available: frozenset[Need]) -> Column:
    column = COLUMNS.get(name) if isinstance(name, str) else None
    if column is None:
        raise ColumnError(f"columns: no column {name!r}; expected one of {', '.join(COLUMNS)}.{_nearest(name)}")
    if names.count(name) > 1:
        raise ColumnError(f"columns: {name!r} stands twice; expected each name once.")
    if column.needs in _OF_PIPELINES and column.needs not in available:
        made_from, instead = _OF_PIPELINES[column.needs]
        raise ColumnError(f"columns: {name!r} is made by the pipelines, from {made_from}; expected {instead}.")
    if column.needs != "nothing" and column.needs not in available:
        raise ColumnError(
            f"columns: {name!r} needs {column.needs}, and none were given. Give {column.needs}, or leave it out."
        )
    return column


def _nearest(name: str) -> str:
    matches = get_close_matches(str(name), COLUMNS, n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""
