"""The joined rows of each reader's example, as tuples: id, logits, label_name, confidence."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

COLUMNS = ("id", "logits", "label_name", "confidence")

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Reader:
    """A section of the page on decisions."""

    heading: str
    package: str
    rows: Callable[[Any], Iterable[Row]]
    """Of what the section calls `joined`."""
    below: float = 0.6
    """Joined are the rows of less confidence."""


def pandas_rows(joined: Any) -> Iterable[Row]:
    return joined[list(COLUMNS)].itertuples(index=False, name=None)


def polars_rows(joined: Any) -> Iterable[Row]:
    return joined.select(COLUMNS).iter_rows()


def spark_rows(joined: Any) -> Iterable[Row]:
    return [tuple(row) for row in joined.select(*COLUMNS).collect()]


def xarray_rows(joined: Any) -> Iterable[Row]:
    return zip(*(np.asarray(joined[name]) for name in COLUMNS), strict=True)


READERS = [
    Reader("## pandas", "pandas", pandas_rows),
    Reader("## polars", "polars", polars_rows),
    Reader("## DuckDB", "duckdb", pandas_rows),
    Reader("## Spark", "pyspark", spark_rows),
    Reader("## xarray", "xarray", xarray_rows, below=1.1),
]
