"""One fixture over every layout that a source can have."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from softmax_dask_pipelines.sources import SourceRequest, blocks
from tests.pipelines import dumps


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


def _folder(path: Path, data: NDArray[Any]) -> Path:
    table = dumps.parquet_table({"logits": dumps.fixed_lists(data)})
    return dumps.parquet_folder(path / "dump", table, [31, 60], row_group_size=17)


def _hive(path: Path, data: NDArray[Any]) -> Path:
    table = dumps.parquet_table({"logits": dumps.lists(data)})
    dumps.parquet_file(path / "dump" / "commit=000001" / "part-00000.parquet", table.slice(0, 50))
    dumps.parquet_file(path / "dump" / "commit=000002" / "part-00000.parquet", table.slice(50))
    (path / "dump" / "_SUCCESS").touch()
    return path / "dump"


def _group(**layout: Any) -> Write:
    return lambda path, data: dumps.zarr_group(path / "dump.zarr", data, **layout)


def _array(path: Path, data: NDArray[Any]) -> Path:
    return dumps.zarr_array(path / "dump.zarr", data, chunks=(10, 5))


def _member(path: Path, data: NDArray[Any]) -> Path:
    return dumps.zarr_group(path / "dump.zarr", data, chunks=(10, 5)) / "logits"


def _consolidated(path: Path, data: NDArray[Any]) -> Path:
    import zarr

    dumps.zarr_group(path / "dump.zarr", data, zarr_format=2, chunks=(10, 5))
    zarr.consolidate_metadata(path / "dump.zarr")
    return path / "dump.zarr"


LAYOUTS: dict[str, tuple[Write, str, bool]] = {
    "zarr v2": (_group(zarr_format=2, chunks=(10, 5)), "float32", True),
    "zarr v2 consolidated": (_consolidated, "float32", True),
    "zarr v2 big-endian": (_group(zarr_format=2, chunks=(10, 5)), ">f4", True),
    "zarr v2 uncompressed": (_group(zarr_format=2, chunks=(10, 5), compressors=None), "float64", True),
    "zarr v3": (_group(chunks=(10, 5)), "float32", True),
    "zarr v3 sharded": (_group(chunks=(5, 5), shards=(30, 5)), "float32", True),
    "zarr v3 sharded, classes chunked": (_group(chunks=(5, 2), shards=(10, 4)), "float32", True),
    "zarr bare array": (_array, "float32", False),
    "zarr member array": (_member, "float32", False),
    "zarr class axis chunked": (_group(chunks=(10, 2)), "float32", True),
    "zarr one chunk larger than the array": (_group(chunks=(1000, 100)), "float32", True),
    "zarr float16": (_group(chunks=(10, 5)), "float16", True),
    "zarr int16": (_group(chunks=(10, 5)), "int16", True),
    "parquet fixed-size list": (_file(dumps.fixed_lists), "float32", True),
    "parquet float16": (_file(dumps.fixed_lists), "float16", True),
    "parquet int8": (_file(dumps.fixed_lists), "int8", True),
    "parquet list": (_file(dumps.lists), "float64", True),
    "parquet large list": (_file(dumps.large_lists), "float32", True),
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


@pytest.fixture(params=LAYOUTS, ids=lambda name: name.replace(" ", "-").replace(",", ""))
def dump(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dump:
    """A dump of 103 rows and 5 classes that is read in blocks of about 20 rows of float32."""
    monkeypatch.setattr(blocks, "READ_BYTES", 400)
    write, dtype, carried = LAYOUTS[request.param]
    data = dumps.logits(dtype=dtype)
    return Dump(SourceRequest(str(write(tmp_path, data))), data.astype(np.dtype(dtype).newbyteorder("=")), carried)
