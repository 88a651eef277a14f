"""The same rows in any layout give the same bits, and the bits that other readers give."""

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from softmax_dask_pipelines.sources import SourceRequest, open_source
from tests.pipelines import dumps

ROWS = dumps.logits(61, 7)
KINDS: Mapping[str, Callable[[NDArray[Any]], Any]] = {
    "lists": dumps.lists,
    "large lists": dumps.large_lists,
    "fixed-size lists": dumps.fixed_lists,
    "bytes": dumps.binaries,
    "struct": dumps.struct,
    "wide": dumps.wide,
}
CODECS = ("none", "snappy", "gzip", "brotli", "lz4", "zstd")

_LAYOUTS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(sorted(KINDS)),
        "cuts": st.lists(st.integers(0, 61), max_size=4).map(sorted),
        "options": st.fixed_dictionaries(
            {
                "row_group_size": st.integers(1, 70),
                "compression": st.sampled_from(CODECS),
                "data_page_size": st.sampled_from([16, 64, 1000, 2**20]),
                "data_page_version": st.sampled_from(["1.0", "2.0"]),
                "write_page_checksum": st.booleans(),
                "version": st.sampled_from(["1.0", "2.4", "2.6"]),
                "store_schema": st.booleans(),
                "encoding": st.sampled_from(["dictionary", "plain", "BYTE_STREAM_SPLIT"]),
            }
        ),
    }
)


@given(layout=_LAYOUTS, read_bytes=st.sampled_from([1, 100, 2**20]), data=st.data())
def test_random_layouts_of_the_same_rows_give_the_same_bits(
    layout: dict[str, Any], read_bytes: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, 61), "start")
    stop = data.draw(st.integers(start, 61), "stop")

    # pytest's tmp_path and monkeypatch are one for all examples
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("softmax_dask_pipelines.sources.blocks.READ_BYTES", read_bytes)
        blocks = list(open_source(SourceRequest(str(_written(Path(folder), layout)))).read(start, stop))

    assert b"".join(block.logits.tobytes() for block in blocks) == ROWS[start:stop].tobytes()
    assert [text for block in blocks for text in block.carried["id"].to_pylist()] == dumps.ids()[start:stop]


PEERS: dict[str, Callable[[str], list[Any]]] = {
    "pyarrow": lambda path: pq.read_table(path).column("logits").to_pylist(),
    "polars": lambda path: pl.read_parquet(path)["logits"].to_list(),
    "duckdb": lambda path: [list(row[0]) for row in duckdb.execute(f"SELECT logits FROM '{path}'").fetchall()],
}


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
@pytest.mark.parametrize("kind", ["lists", "large lists", "fixed-size lists"])
@pytest.mark.parametrize("codec", CODECS)
def test_a_file_reads_as_other_readers_read_it(tmp_path: Path, peer: str, dtype: str, kind: str, codec: str) -> None:
    columns = {"logits": KINDS[kind](dumps.logits(40, 3, dtype))}
    path = dumps.parquet_file(tmp_path / "dump.parquet", pa.table(columns), row_group_size=7, compression=codec)

    found = next(open_source(SourceRequest(str(path))).read(0, 40)).logits

    assert found.tolist() == PEERS[peer](str(path))


def test_a_file_of_polars_is_read(tmp_path: Path) -> None:
    data = dumps.logits(40, 3)
    pl.DataFrame({"id": dumps.ids(40), "logits": data}).write_parquet(tmp_path / "dump.parquet")

    block = next(open_source(SourceRequest(str(tmp_path / "dump.parquet"))).read(0, 40))

    assert block.logits.tobytes() == data.tobytes()
    assert block.carried["id"].to_pylist() == dumps.ids(40)


@pytest.mark.parametrize("size", ["", "[3]"])
def test_a_hive_folder_of_duckdb_is_read(tmp_path: Path, size: str) -> None:
    query = f"SELECT i // 10 AS day, [i, i / 3, -i]::FLOAT{size or '[]'} AS logits FROM range(40) AS t(i)"
    duckdb.sql(f"COPY ({query}) TO '{tmp_path / 'dump'}' (FORMAT parquet, PARTITION_BY (day))")

    block = next(open_source(SourceRequest(str(tmp_path / "dump"), id="day")).read(0, 40))

    rows = np.arange(40)
    assert block.logits.tolist() == np.stack([rows, rows / 3, -rows], axis=1).astype("f4").tolist()
    assert block.carried["day"].to_pylist() == (rows // 10).tolist()


def _written(folder: Path, layout: dict[str, Any]) -> Path:
    made = KINDS[layout["kind"]](ROWS)
    table = pa.table(made if isinstance(made, dict) else {"logits": made})
    table = table.append_column("id", pa.array(dumps.ids(61)))
    options = dict(layout["options"])
    encoding = options.pop("encoding")
    options["use_dictionary"] = encoding == "dictionary"
    if encoding == "BYTE_STREAM_SPLIT":
        leaves = [leaf for leaf in _leaves(table) if leaf.split(".")[-1] not in ("id", "step")]
        options["column_encoding"] = dict.fromkeys(leaves, encoding)
    return dumps.parquet_folder(folder / "dump", table, layout["cuts"], **options)


def _leaves(table: pa.Table) -> list[str]:
    sink = pa.BufferOutputStream()
    pq.write_table(table.slice(0, 0), sink)
    schema = pq.read_metadata(pa.BufferReader(sink.getvalue())).schema
    return [schema.column(i).path for i in range(len(schema))]
