"""One fixture over every layout that a source can have."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from softmax_dask_pipelines.sources import SourceRequest, blocks
from tests.pipelines import dumps
from tests.pipelines.sources import array_layouts


@dataclass(frozen=True)
class Dump:
    request: SourceRequest
    data: NDArray[Any]
    carried: bool


Write = Callable[[Path, NDArray[Any]], Path]


def _file(make: Callable[[NDArray[Any]], Any], **options: Any) -> Write:
    def write(path: Path, data: NDArray[Any]) -> Path:
        made = make(data)
        columns = made if isinstance(made, dict) else {"logits": made}
        return dumps.parquet_file(path / "dump.parquet", dumps.parquet_table(columns), **options)

    return write


def _encoded(make: Callable[[NDArray[Any]], Any], encoding: str) -> Write:
    return _file(make, use_dictionary=False, column_encoding={"logits.list.element": encoding})


def _folder(path: Path, data: NDArray[Any]) -> Path:
    table = dumps.parquet_table({"logits": dumps.fixed_lists(data)})
    return dumps.parquet_folder(path / "dump", table, [31, 60], row_group_size=17)


def _hive(path: Path, data: NDArray[Any]) -> Path:
    table = dumps.parquet_table({"logits": dumps.lists(data)})
    dumps.parquet_file(path / "dump" / "commit=000001" / "part-00000.parquet", table.slice(0, 50))
    dumps.parquet_file(path / "dump" / "commit=000002" / "part-00000.parquet", table.slice(50))
    (path / "dump" / "_SUCCESS").touch()
    return path / "dump"


def _pattern(path: Path, data: NDArray[Any]) -> Path:
    _folder(path, data)
    (path / "dump" / "part-0.parquet.crc").write_bytes(b"crc")
    return path / "dump" / "part-*"


def _hive_pattern(path: Path, data: NDArray[Any]) -> Path:
    _hive(path, data)
    return path / "**" / "*.parquet"


def _mixed(path: Path, data: NDArray[Any]) -> Path:
    """Nested folders of odd names, columns in another order, one more column, files and row groups without rows."""
    table = dumps.parquet_table({"logits": dumps.lists(data)})
    folder = path / "dump [1] é"
    dumps.parquet_file(folder / "a" / "part-0.parquet", table.slice(0, 0))
    dumps.parquet_file(folder / "a" / "part-2.parquet", table.slice(0, 50).select(["target", "id", "logits"]))
    more = table.slice(50, 40).append_column("more", pa.array([True] * 40))
    dumps.parquet_file(folder / "a" / "part-10.parquet", more)
    with pq.ParquetWriter(folder / "b.parquet", table.schema) as writer:
        for part in (table.slice(90, 6), table.slice(96, 0), table.slice(96)):
            writer.write_table(part)
    return folder


LAYOUTS: dict[str, tuple[Write, str, bool]] = {
    "parquet fixed-size list": (_file(dumps.fixed_lists), "float32", True),
    "parquet float16": (_file(dumps.fixed_lists), "float16", True),
    "parquet int8": (_file(dumps.fixed_lists), "int8", True),
    "parquet list": (_file(dumps.lists), "float64", True),
    "parquet large list": (_file(dumps.large_lists), "float32", True),
    "parquet float64": (_file(dumps.fixed_lists), "float64", True),
    "parquet uint16": (_file(dumps.lists), "uint16", True),
    "parquet bytes": (_file(dumps.binaries), "float32", True),
    "parquet member of a struct": (_file(dumps.struct), "float32", True),
    "parquet wide float16": (_file(dumps.wide), "float16", True),
    "parquet row groups of one row": (_file(dumps.lists, row_group_size=1), "float32", True),
    "parquet fixed-size list row groups of one row": (_file(dumps.fixed_lists, row_group_size=1), "float32", True),
    "parquet gzip": (_file(dumps.lists, compression="gzip"), "float32", True),
    "parquet brotli": (_file(dumps.lists, compression="brotli"), "float32", True),
    "parquet lz4": (_file(dumps.lists, compression="lz4"), "float32", True),
    "parquet zstd": (_file(dumps.lists, compression="zstd"), "float32", True),
    "parquet uncompressed": (_file(dumps.lists, compression="none"), "float32", True),
    "parquet byte stream split": (_encoded(dumps.fixed_lists, "BYTE_STREAM_SPLIT"), "float32", True),
    "parquet delta": (_encoded(dumps.lists, "DELTA_BINARY_PACKED"), "int32", True),
    "parquet data page v2": (_file(dumps.lists, data_page_version="2.0", data_page_size=64), "float32", True),
    "parquet pattern": (_pattern, "float32", True),
    "parquet pattern over Hive folders": (_hive_pattern, "float32", True),
    "parquet mixed files": (_mixed, "float32", True),
    "parquet wide": (_file(dumps.wide), "float32", True),
    "parquet folder": (_folder, "float32", True),
    "parquet Hive folder": (_hive, "float32", True),
    "parquet many row groups": (_file(dumps.lists, row_group_size=3), "float32", True),
    "parquet one row group of many pages": (
        _file(dumps.fixed_lists, data_page_size=64, write_page_checksum=True, use_dictionary=False),
        "float32",
        True,
    ),
}


@pytest.fixture(params=[*LAYOUTS, *array_layouts.LAYOUTS], ids=lambda name: name.replace(" ", "-").replace(",", ""))
def dump(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dump:
    """A dump of 103 rows and 5 classes that is read in blocks of about 20 rows of float32."""
    monkeypatch.setattr(blocks, "READ_BYTES", 400)
    named: dict[str, array_layouts.Layout] = {
        name: (*layout, {}) for name, layout in LAYOUTS.items()
    } | array_layouts.LAYOUTS
    write, dtype, carried, asked = named[request.param]
    data = dumps.logits(dtype=dtype)
    path = write(tmp_path, data)
    return Dump(SourceRequest(str(path), **asked), data.astype(np.dtype(dtype).newbyteorder("=")), carried)
