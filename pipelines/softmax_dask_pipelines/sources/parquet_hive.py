"""Keys of Hive folders, `day=3/part-0.parquet`: one value for a whole file, carried beside its rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from softmax_dask_pipelines import arrow
from softmax_dask_pipelines.errors import SchemaMismatchError
from softmax_dask_pipelines.sources.carried import array_of_numpy
from softmax_dask_pipelines.sources.parquet_files import Part
from softmax_dask_pipelines.sources.parquet_types import flat_columns
from softmax_dask_pipelines.sources.protocol import Carried


def is_key(part: Part, name: str) -> bool:
    """Whether `name` is a key of the folders, and no column of the file itself."""
    return name in dict(part.hive_keys) and name not in flat_columns(part.schema)


def require_key_of_all(parts: Sequence[Part], name: str) -> None:
    """Refuse files that are in no such folder: what was named must be there in every file."""
    for part in parts:
        if not is_key(part, name):
            raise SchemaMismatchError(
                f"{part.path} is in no folder '{name}=...', but {parts[0].path} is; expected one above every file. "
                "Move it, or score the files apart."
            )


def key_names(parts: Sequence[Part]) -> tuple[str, ...]:
    """All keys, in the order of the path."""
    return tuple(dict.fromkeys(name for part in parts for name, _ in part.hive_keys))


def key_column(parts: Sequence[Part], name: str, *, is_id: bool = False) -> Carried:
    """int64 where every value is such a number, written the usual way; otherwise text. Null where there is no key."""
    values = [dict(part.hive_keys).get(name) for part in parts]
    texts = [value for value in values if value is not None]
    plain = pa.int64() if texts and all(map(_is_int64, texts)) else pa.string()
    return Carried(
        name,
        pa.dictionary(pa.int32(), plain),
        is_id=is_id,
        has_nulls=len(texts) < len(values),
        text_bytes=max((len(text.encode()) for text in texts), default=0),
    )


def key_values(part: Part, column: Carried, rows: int) -> Any:
    """The key of this file, `rows` times: a dictionary of one value, or of none where it is null."""
    text = dict(part.hive_keys).get(column.name)
    texts = [] if text is None else [text]
    integers = pa.types.is_integer(column.type.value_type)
    values = array_of_numpy(np.array(texts, np.int64), where=part.path) if integers else arrow.texts(texts)
    # Bits of 0 are null.
    valid = None if texts else pa.py_buffer(bytes(-(-rows // 8)))
    zeros = pa.py_buffer(np.zeros(rows, np.int32))
    return pa.DictionaryArray.from_arrays(pa.Array.from_buffers(pa.int32(), rows, [valid, zeros]), values)


def _is_int64(text: str) -> bool:
    """`007` and `+7` are text: as numbers they would not be found again."""
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdecimal() and str(int(text)) == text and -(2**63) <= int(text) < 2**63
