"""A dump as a Dask array: lazy, whole rows, and the bits that are stored."""

import dask
import dask.array as da
import ml_dtypes
import numpy as np
import pytest

from softmax_dask import softmax
from softmax_dask_pipelines import open_logits
from softmax_dask_pipelines.errors import MissingChunkError, SourceNotFoundError
from softmax_dask_pipelines.sources.parquet import ParquetSource
from softmax_dask_pipelines.sources.zarr import ZarrSource
from tests.pipelines import dumps

ONE_THREAD = "synchronous"


@pytest.fixture(params=["zarr", "sharded", "classes-chunked", "parquet", "wide", "folder"])
def dump(request, tmp_path):
    """A dump of 103 rows and its data; small chunks."""
    data = dumps.logits()
    write = {
        "zarr": lambda: dumps.zarr_group(tmp_path / "a.zarr", data, chunks=(10, 5)),
        "sharded": lambda: dumps.zarr_group(tmp_path / "a.zarr", data, chunks=(5, 5), shards=(30, 5)),
        "classes-chunked": lambda: dumps.zarr_group(tmp_path / "a.zarr", data, chunks=(10, 2)),
        "parquet": lambda: dumps.parquet_file(
            tmp_path / "a.parquet", dumps.parquet_table({"logits": dumps.lists(data)}), row_group_size=10
        ),
        "wide": lambda: dumps.parquet_file(
            tmp_path / "a.parquet", dumps.parquet_table(dumps.wide(data)), row_group_size=10
        ),
        "folder": lambda: dumps.parquet_folder(
            tmp_path / "a", dumps.parquet_table({"logits": dumps.fixed_lists(data)}), [31, 60]
        ),
    }[request.param]
    return write(), data


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of 20 rows, as a large dump would have of 20,000."""
    monkeypatch.setattr("softmax_dask_pipelines.sources.blocks.READ_BYTES", 400)
    monkeypatch.setattr("softmax_dask_pipelines.logits.CHUNK_BYTES", 400)


@pytest.fixture
def reads(monkeypatch):
    """Every (start, stop) that any source is asked for."""
    asked = []
    for source in (ZarrSource, ParquetSource):
        read = source.read

        def spy(self, start, stop, read=read):
            asked.append((start, stop))
            return read(self, start, stop)

        monkeypatch.setattr(source, "read", spy)
    return asked


def test_it_is_a_dask_array_of_the_stored_dtype(dump):
    path, data = dump

    found = open_logits(path)

    assert isinstance(found, da.Array)
    assert (found.shape, found.dtype) == (data.shape, data.dtype)


@pytest.mark.usefixtures("small_chunks")
def test_it_holds_the_stored_bits(dump):
    path, data = dump

    found = open_logits(path).compute(scheduler=ONE_THREAD)

    assert found.tobytes() == data.tobytes()


@pytest.mark.usefixtures("small_chunks")
def test_a_chunk_holds_all_classes(dump):
    path, data = dump

    rows, classes = open_logits(path).chunks

    assert classes == (data.shape[1],)
    assert len(rows) > 1
    assert sum(rows) == len(data)


def test_a_path_may_be_text(dump):
    path, data = dump

    assert open_logits(str(path)).shape == data.shape


def test_opening_and_building_on_it_reads_nothing(dump, reads):
    path, _ = dump

    softmax(open_logits(path)).max(axis=1)

    assert reads == []


def test_building_a_graph_calls_no_kernel(dump, monkeypatch):
    path, _ = dump
    called = []
    monkeypatch.setattr("softmax_dask.blocks.decisions", lambda *args, **options: called.append(args))

    softmax(open_logits(path))

    assert called == []


@pytest.mark.usefixtures("small_chunks")
def test_softmax_of_it_is_that_of_the_array_in_memory_bit_for_bit(dump):
    path, data = dump

    found = softmax(open_logits(path)).compute(scheduler=ONE_THREAD)

    assert found.tobytes() == softmax(data).tobytes()


@pytest.mark.usefixtures("small_chunks")
def test_a_slice_reads_only_the_chunks_it_touches(dump, reads):
    path, data = dump
    logits = open_logits(path)
    first = logits.chunks[0][0]

    found = logits[first - 1 : first + 1].compute(scheduler=ONE_THREAD)

    assert found.tobytes() == data[first - 1 : first + 1].tobytes()
    assert sorted(reads) == [(0, first), (first, first + logits.chunks[0][1])]


def test_all_schedulers_agree(dump):
    path, data = dump

    found = open_logits(path).compute(scheduler=dask.threaded.get)

    assert found.tobytes() == data.tobytes()


def test_a_dump_without_rows_is_an_empty_array(tmp_path):
    path = dumps.zarr_array(tmp_path / "a.zarr", dumps.logits(rows=0), chunks=(10, 5))

    found = open_logits(path)

    assert found.compute(scheduler=ONE_THREAD).shape == (0, 5)


def test_bits_of_bfloat16_are_read_as_such(tmp_path):
    data = dumps.logits().astype(ml_dtypes.bfloat16)
    path = dumps.zarr_array(tmp_path / "a.zarr", data.view(np.uint16), chunks=(10, 5))

    found = open_logits(path, source_dtype="bfloat16")

    assert found.dtype == ml_dtypes.bfloat16
    assert found.compute(scheduler=ONE_THREAD).tobytes() == data.tobytes()


def test_softmax_of_bfloat16_is_that_of_the_array_in_memory(tmp_path):
    data = dumps.logits().astype(ml_dtypes.bfloat16)
    path = dumps.zarr_array(tmp_path / "a.zarr", data.view(np.uint16), chunks=(10, 5))

    found = softmax(open_logits(path, source_dtype="bfloat16")).compute(scheduler=ONE_THREAD)

    assert found.tobytes() == softmax(data).tobytes()


def test_an_array_is_chosen_by_name(tmp_path):
    data = dumps.logits()
    dumps.zarr_group(tmp_path / "a.zarr", data, chunks=(10, 5))
    dumps.zarr_array(tmp_path / "a.zarr" / "others", data + 1, chunks=(10, 5))

    found = open_logits(tmp_path / "a.zarr", array="others")

    assert np.array_equal(found.compute(scheduler=ONE_THREAD), data + 1)


def test_a_column_is_chosen_by_name(tmp_path):
    data = dumps.logits()
    table = dumps.parquet_table({"one": dumps.lists(data), "two": dumps.lists(data + 1)})

    found = open_logits(dumps.parquet_file(tmp_path / "a.parquet", table), column="two")

    assert np.array_equal(found.compute(scheduler=ONE_THREAD), data + 1)


def test_two_dumps_have_two_names(tmp_path):
    one = dumps.zarr_array(tmp_path / "one.zarr", dumps.logits(), chunks=(10, 5))
    two = dumps.zarr_array(tmp_path / "two.zarr", dumps.logits(), chunks=(10, 5))

    assert open_logits(one).name != open_logits(two).name


def test_opened_twice_it_has_two_names_since_the_dump_may_have_changed(dump):
    path, _ = dump

    assert open_logits(path).name != open_logits(path).name


def test_a_path_with_nothing_is_refused_at_once(tmp_path):
    with pytest.raises(SourceNotFoundError):
        open_logits(tmp_path / "nothing.zarr")


def test_a_missing_chunk_is_an_error_when_it_is_computed(tmp_path):
    path = dumps.zarr_array(tmp_path / "a.zarr", dumps.logits(), chunks=(10, 5))
    (path / "c" / "3" / "0").unlink()
    logits = open_logits(path)

    with pytest.raises(MissingChunkError):
        logits.compute(scheduler=ONE_THREAD)
