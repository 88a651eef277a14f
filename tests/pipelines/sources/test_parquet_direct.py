"""The direct lane: usual lists never ask Arrow; and with the lane or without, the same bits and the same errors."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from softmax_dask_pipelines.errors import CorruptFileError, DataError, NullRowsError, RaggedRowsError
from softmax_dask_pipelines.sources import SourceRequest, blocks, open_source, parquet_direct
from softmax_dask_pipelines.sources.parquet_arrow import Span
from softmax_dask_pipelines.sources.parquet_files import open_parts
from softmax_dask_pipelines.sources.parquet_footer import Chunk
from softmax_dask_pipelines.sources.parquet_pages import first_pages
from tests.pipelines import dumps
from tests.pipelines.sources import parquet_forged

ROWS = 503
PLAIN: dict[str, Any] = {"use_dictionary": False}
LAYOUTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "uncompressed": {**PLAIN, "compression": "none"},
    "snappy": {**PLAIN, "compression": "snappy"},
    "gzip": {**PLAIN, "compression": "gzip"},
    "zstd": {**PLAIN, "compression": "zstd"},
    "lz4": {**PLAIN, "compression": "lz4"},
    "split": {**PLAIN, "use_byte_stream_split": True},
    "dictionary and then plain": {"dictionary_pagesize_limit": 200},
    "second kind of pages": {**PLAIN, "data_page_version": "2.0", "compression": "zstd"},
    "second kind, uncompressed": {**PLAIN, "data_page_version": "2.0", "compression": "none"},
    "second kind, dictionary": {"data_page_version": "2.0"},
    "checksums": {**PLAIN, "write_page_checksum": True},
    "second kind, checksums": {**PLAIN, "data_page_version": "2.0", "write_page_checksum": True},
}
"""Each with many pages and row groups."""
CODECS = {"snappy": "snappy", "gzip": "gzip", "zstd": "zstd", "lz4": "lz4_raw"}
"""What pyarrow calls a codec in Parquet, and elsewhere."""
MAKERS = (dumps.lists, dumps.large_lists, dumps.fixed_lists)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows, and pages that are smaller than the lane takes in earnest."""
    monkeypatch.setattr(blocks, "READ_BYTES", 1000)
    monkeypatch.setattr(parquet_direct, "_LEAST_PAGE_BYTES", 0)


def _written(folder: Path, lists: Any, **layout: Any) -> Path:
    cut = {"row_group_size": 199, "data_page_size": 300, "write_batch_size": 7}
    return dumps.parquet_file(folder / "dump.parquet", pa.table({"logits": lists}), **cut | layout)


def _opened(path: Path, *, with_lane: bool = True, **asked: Any) -> Any:
    source = open_source(SourceRequest(str(path), **asked))
    if not with_lane:
        source._columns = dataclasses.replace(source._columns, lists=None)
    return source


def _bits(source: Any, start: int = 0, stop: int = ROWS) -> bytes:
    return b"".join(block.logits.tobytes() for block in source.read(start, stop))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The columns that Arrow is asked for."""
    found: list[Any] = []
    by_arrow = Span.by_arrow

    def note(span: Span, columns: Any, **given: Any) -> Any:
        found.append(columns)
        return by_arrow(span, columns, **given)

    monkeypatch.setattr(Span, "by_arrow", note)
    return found


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("classes", [1, 3, 8, 10, 40])
@pytest.mark.parametrize("name", LAYOUTS)
def test_usual_lists_never_ask_arrow(tmp_path: Path, asked: list[Any], name: str, classes: int, dtype: str) -> None:
    data = dumps.logits(ROWS, classes, dtype)
    source = _opened(_written(tmp_path, dumps.fixed_lists(data), **LAYOUTS[name]))

    found = _bits(source), _bits(source, 77, 402)

    assert found == (data.tobytes(), data[77:402].tobytes())
    assert not asked


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32"])
@pytest.mark.parametrize("name", ["defaults", "zstd", "split", "second kind of pages"])
def test_integers_never_ask_arrow(tmp_path: Path, asked: list[Any], name: str, dtype: str) -> None:
    limits = np.iinfo(dtype)
    data = np.random.default_rng(0).integers(limits.min, limits.max, (ROWS, 7), dtype, endpoint=True)
    source = _opened(_written(tmp_path, dumps.fixed_lists(data), **LAYOUTS[name]))

    assert _bits(source) == data.tobytes()
    assert not asked


@pytest.mark.parametrize("name", ["defaults", "zstd"])
def test_bfloat16_never_asks_arrow(tmp_path: Path, asked: list[Any], name: str) -> None:
    data = np.random.default_rng(0).integers(0, 2**16, (ROWS, 7), np.uint16)
    source = _opened(_written(tmp_path, dumps.fixed_lists(data), **LAYOUTS[name]), dtype="bfloat16")

    assert source.facts.dtype == "bfloat16"
    assert _bits(source) == data.tobytes()
    assert not asked


@pytest.mark.parametrize("nullable", [False, True])
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_lists_of_every_kind_are_read(tmp_path: Path, asked: list[Any], make: Any, nullable: bool) -> None:
    data = dumps.logits(ROWS)
    lists = make(data)
    schema = pa.schema([pa.field("logits", lists.type, nullable=nullable)])
    path = tmp_path / "dump.parquet"
    pq.write_table(pa.table([lists], schema=schema), path, row_group_size=100)
    source = _opened(path)
    asked.clear()  # the first row says how many classes a row of lists has

    assert _bits(source) == data.tobytes()
    assert not asked


def test_lists_in_a_struct_are_read(tmp_path: Path, asked: list[Any]) -> None:
    data = dumps.logits(ROWS)
    path = dumps.parquet_file(tmp_path / "dump.parquet", pa.table(dumps.struct(data)))
    source = _opened(path, column="outputs.logits")
    asked.clear()

    assert _bits(source) == data.tobytes()
    assert not asked


def by_duckdb(data: NDArray[Any], path: Path) -> None:
    table = pa.table({"logits": dumps.lists(data)})
    with duckdb.connect() as connection:
        connection.register("logits", table)
        connection.execute(f"copy (from logits) to '{path}' (format parquet, row_group_size 2048)")


def by_duckdb_v2(data: NDArray[Any], path: Path) -> None:
    table = pa.table({"logits": dumps.lists(data)})
    with duckdb.connect() as connection:
        connection.register("logits", table)
        connection.execute(f"copy (from logits) to '{path}' (format parquet, parquet_version v2)")


def by_polars(data: NDArray[Any], path: Path) -> None:
    pl.DataFrame({"logits": data}).write_parquet(path, row_group_size=1000)


@pytest.mark.parametrize("classes", [1, 2, 9, 100])
@pytest.mark.parametrize("write", [by_duckdb, by_duckdb_v2, by_polars], ids=lambda write: write.__name__)
def test_files_of_other_writers_never_ask_arrow(
    tmp_path: Path, asked: list[Any], write: Callable[[NDArray[Any], Path], None], classes: int
) -> None:
    data = dumps.logits(5003, classes)
    write(data, tmp_path / "dump.parquet")
    source = _opened(tmp_path / "dump.parquet")
    asked.clear()

    assert _bits(source, stop=5003) == data.tobytes()
    assert not asked


@pytest.mark.parametrize("layout", [{}, {"row_group_size": 50}])
def test_only_what_stands_beside_the_logits_is_read_by_arrow(
    tmp_path: Path, asked: list[Any], layout: dict[str, Any]
) -> None:
    table = dumps.parquet_table({"logits": dumps.fixed_lists(dumps.logits())})
    source = _opened(dumps.parquet_file(tmp_path / "dump.parquet", table, **layout))

    found = list(source.read(3, 90))

    assert b"".join(block.logits.tobytes() for block in found) == dumps.logits()[3:90].tobytes()
    assert [text for block in found for text in block.carried["id"].to_pylist()] == dumps.ids()[3:90]
    assert np.array_equal(np.concatenate([block.targets for block in found]), dumps.targets()[3:90])
    assert set(asked) == {("target", "id")}


def test_pages_before_the_first_row_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dumps.logits(ROWS)
    path = _written(tmp_path, dumps.fixed_lists(data), **LAYOUTS["uncompressed"], row_group_size=ROWS)
    source, read, places = _opened(path), parquet_direct.read_at, []

    def note(file: Any, size: int, at: int) -> bytes:
        places.append(at)
        return read(file, size, at)

    monkeypatch.setattr(parquet_direct, "read_at", note)

    found = _bits(source, 450, ROWS)

    assert found == data[450:].tobytes()
    assert min(places) > 0.85 * path.stat().st_size * 450 / ROWS


def test_files_with_small_pages_are_left_to_arrow(
    tmp_path: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_direct, "_LEAST_PAGE_BYTES", 2**16)
    data = dumps.logits(ROWS)
    source = _opened(_written(tmp_path, dumps.fixed_lists(data)))

    assert _bits(source) == data.tobytes()
    assert asked


OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "brotli": ("float32", {"compression": "brotli"}),
    "integers by their differences": (
        "int32",
        {**PLAIN, "column_encoding": {"logits.list.element": "DELTA_BINARY_PACKED"}},
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_all_other_files_are_left_to_arrow(tmp_path: Path, asked: list[Any], name: str) -> None:
    dtype, layout = OTHERS[name]
    data = dumps.logits(ROWS, dtype=dtype)
    source = _opened(_written(tmp_path, dumps.fixed_lists(data), **layout))

    assert _bits(source) == data.tobytes()
    assert asked


def _with_null(data: NDArray[Any], row: int) -> Any:
    return pa.array([None if i == row else values.tolist() for i, values in enumerate(data)], pa.list_(pa.float32(), 5))


def _with_null_inside(data: NDArray[Any], row: int) -> Any:
    values = data.astype(object)
    values[row, 2] = None
    return pa.array(values.tolist(), pa.list_(pa.float32(), 5))


@pytest.mark.parametrize("row", [0, 250, ROWS - 1])
@pytest.mark.parametrize("make", [_with_null, _with_null_inside])
@pytest.mark.parametrize("name", ["defaults", "zstd", "second kind of pages"])
def test_nulls_are_read_as_arrow_reads_them(tmp_path: Path, name: str, make: Any, row: int) -> None:
    data = dumps.logits(ROWS)
    path = _written(tmp_path, make(data, row), **LAYOUTS[name])
    data[row] = np.nan

    assert _bits(_opened(path, nulls="abstain")) == data.tobytes()
    with pytest.raises(NullRowsError, match=rf"row {row}\b"):
        _bits(_opened(path))


@pytest.mark.parametrize("name", LAYOUTS)
def test_rows_of_other_lengths_are_named_though_the_sum_is_right(tmp_path: Path, name: str) -> None:
    rows = dumps.logits(ROWS).tolist()
    rows[300].append(rows[301].pop())
    path = _written(tmp_path, pa.array(rows, pa.list_(pa.float32())), **LAYOUTS[name])

    with pytest.raises(RaggedRowsError, match=r"row 300 has 6 logits; expected 5"):
        _bits(_opened(path))


def test_an_empty_row_is_named_though_the_sum_is_right(tmp_path: Path) -> None:
    rows = dumps.logits(ROWS, classes=1).tolist()
    rows[300].append(rows[301].pop())
    path = _written(tmp_path, pa.array(rows, pa.list_(pa.float32())))

    with pytest.raises(RaggedRowsError, match=r"row 300 has 2 logits; expected 1"):
        _bits(_opened(path))


@pytest.mark.parametrize("seed", [*range(12), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(12, 100))])
@pytest.mark.parametrize("name", LAYOUTS)
def test_whichever_byte_is_wrong_rows_are_those_that_arrow_reads_or_the_right_ones(
    tmp_path: Path, name: str, seed: int
) -> None:
    right = dumps.logits(ROWS)
    path = _written(tmp_path, dumps.fixed_lists(right), **LAYOUTS[name])
    _flip(path, seed)

    found, by_arrow = (_outcome(path, with_lane=with_lane) for with_lane in (True, False))

    # Of a page's header Arrow refuses more, as a number of rows below 0; the rows are right all the same.
    assert found == by_arrow or (by_arrow == "CorruptFileError" and found == right.tobytes())


def _flip(path: Path, seed: int) -> None:
    """Change one byte before the footer."""
    rng = np.random.default_rng(seed)
    data = bytearray(path.read_bytes())
    footer = int.from_bytes(data[-8:-4], "little")
    data[rng.integers(4, len(data) - 8 - footer)] ^= rng.integers(1, 256)
    path.write_bytes(data)


def _outcome(path: Path, *, with_lane: bool) -> str | bytes:
    """The rows, or the name of an error."""
    try:
        return _bits(_opened(path, with_lane=with_lane))
    except DataError as error:
        return type(error).__name__


@pytest.mark.parametrize("more", [-1, 1, 100, 5000])
@pytest.mark.parametrize("codec", CODECS)
def test_a_page_that_yields_another_number_of_bytes_is_refused(tmp_path: Path, codec: str, more: int) -> None:
    path = _forged(tmp_path, codec, more)

    with pytest.raises(CorruptFileError):
        _bits(_opened(path), stop=103)


@pytest.mark.parametrize("codec", CODECS)
def test_a_page_that_yields_as_many_bytes_as_it_says_is_read(tmp_path: Path, asked: list[Any], codec: str) -> None:
    source = _opened(_forged(tmp_path, codec, 0))
    asked.clear()

    assert _bits(source, stop=103) == dumps.logits().tobytes()
    assert not asked


def _forged(folder: Path, codec: str, more: int) -> Path:
    """One page, compressed anew, that says it has so many more bytes than it has."""
    path = parquet_forged.one_page(folder / "plain.parquet", compression="none")
    chunk = Chunk._make(open_parts(str(path))[0].chunks[0, 0].tolist())
    (page,) = first_pages(str(path), chunk, 1, where="")
    content = path.read_bytes()[page.start : page.start + page.stored_bytes]
    path = parquet_forged.one_page(folder / "dump.parquet", compression=codec)
    stored = pa.compress(content, codec=CODECS[codec], asbytes=True)
    parquet_forged.with_page(path, stored, uncompressed=len(content) + more)
    return path


def test_a_few_bytes_that_stand_for_many_values_are_left_to_arrow(tmp_path: Path, asked: list[Any]) -> None:
    data = np.zeros((20_000, 100), np.float32)
    path = dumps.parquet_file(tmp_path / "dump.parquet", pa.table({"logits": dumps.fixed_lists(data)}))
    source = _opened(path)

    assert _bits(source, stop=len(data)) == data.tobytes()
    assert asked


def test_large_pages_of_lz4_are_left_to_arrow(tmp_path: Path, asked: list[Any]) -> None:
    data = np.zeros((20_000, 120), np.float32)
    layout = {
        **PLAIN,
        "compression": "lz4",
        "data_page_size": 2**24,
        "row_group_size": len(data),
        "write_batch_size": len(data),
    }
    source = _opened(_written(tmp_path, dumps.fixed_lists(data), **layout))

    assert _bits(source, stop=len(data)) == data.tobytes()
    assert asked


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8"])
def test_what_reading_calls_is_compiled_before(tmp_path: Path, dtype: str) -> None:
    data = np.abs(dumps.logits(ROWS, 7, dtype))
    paths = [str(_written(tmp_path / name, dumps.fixed_lists(data), **LAYOUTS[name])) for name in LAYOUTS]

    done = subprocess.run([sys.executable, "-c", READ, *paths], stdout=subprocess.PIPE, text=True, check=True)

    before, after = json.loads(done.stdout)
    assert before == after
    assert min(before) > 0


READ = """
import json, sys
from softmax_dask_pipelines.sources import SourceRequest, open_source, parquet_direct
parquet_direct._LEAST_PAGE_BYTES = 0
kernels = [getattr(parquet_direct, name) for name in ("rows_begin", "look_up", "join_streams", "run_header")]
sources = [open_source(SourceRequest(path)) for path in sys.argv[1:]]
sources[0].compile()
counts = [[len(kernel.signatures) for kernel in kernels]]
for source in sources:
    for block in source.read(0, source.facts.rows):
        pass
counts.append([len(kernel.signatures) for kernel in kernels])
print(json.dumps(counts))
"""
