"""Keys of Hive folders, `day=3/part-0.parquet`, as a column of ids or targets: one value for a whole file."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from softmax_dask_pipelines.errors import SchemaMismatchError
from softmax_dask_pipelines.sources.carried import array_of_numpy, text_array
from softmax_dask_pipelines.sources.parquet_files import Part
from softmax_dask_pipelines.sources.parquet_types import flat_columns


def is_key(part: Part, name: str) -> bool:
    """Whether `name` is a key of the folders, and no column of the file itself."""
    return name in dict(part.hive_keys) and name not in flat_columns(part.schema)


def key_type(parts: Sequence[Part], name: str) -> Any:
    """int64 where every value is such a number, written the usual way; otherwise text."""
    for part in parts:
        if not is_key(part, name):
            raise SchemaMismatchError(
                f"{part.path} is in no folder '{name}=...', but {parts[0].path} is; expected one above every file. "
                "Move it, or score the files apart."
            )
    values = [value for part in parts if (value := dict(part.hive_keys)[name]) is not None]
    return pa.int64() if values and all(map(_is_int64, values)) else pa.string()


def key_values(part: Part, name: str, stored: Any, rows: int) -> Any:
    """The key of this file, `rows` times."""
    text = dict(part.hive_keys)[name]
    if text is None:
        return pa.nulls(rows, stored)
    # Not `pa.repeat`: a `pa.scalar` loads pandas at its first use.
    if pa.types.is_integer(stored):
        return array_of_numpy(np.full(rows, int(text), np.int64), where=part.path)
    return text_array([text]).take(array_of_numpy(np.zeros(rows, np.int32), where=part.path))


def _is_int64(text: str) -> bool:
    """`007` and `+7` are text: as numbers they would not be found again."""
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdecimal() and str(int(text)) == text and -(2**63) <= int(text) < 2**63
