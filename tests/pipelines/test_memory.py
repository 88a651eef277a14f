"""Peak memory of whole processes: it does not grow with the rows, and stays below the limit."""

import pytest

from benchmarks.memory import MIB, measured_run, write_parquet, write_with_ids, write_zarr
from softmax_dask_pipelines import ScoreConfig
from softmax_dask_pipelines.errors import MemoryBudgetError
from softmax_dask_pipelines.job import prepare

pytestmark = pytest.mark.slow

FEW, MANY = 12, 96
"""Blocks of 8 MB: partitions of 16 MB, six or more of them, keep two threads busy; and eight times as many."""

WIDE, NARROW = ["label", "confidence", "probabilities"], ["label", "confidence"]

GROWTH = 1.15
"""The most that eight times the rows may take, by the promise in the README."""


@pytest.fixture(scope="module")
def dumps(tmp_path_factory):
    """The folder with dumps of few and of many rows."""
    folder = tmp_path_factory.mktemp("memory")
    for blocks in (FEW, MANY):
        write_zarr(folder / f"{blocks}.zarr", blocks)
        write_parquet(folder / f"{blocks}.parquet", blocks)
    return folder


@pytest.fixture(scope="module")
def with_ids(tmp_path_factory):
    """A dump of 2 classes, of which ids, targets and names are most."""
    return write_with_ids(tmp_path_factory.mktemp("memory") / "ids.zarr", 2_000_000)


def smallest_limit_mib(source, output, columns) -> int:
    """The limit that a refusal names."""
    asked = {"source": {"path": str(source)}, "output": {"path": str(output)}, "columns": columns, "memory_limit": 1}
    with pytest.raises(MemoryBudgetError) as refusal:
        prepare(ScoreConfig(**asked))
    return int(str(refusal.value).partition("at least ")[2].partition(" MiB")[0])


@pytest.mark.parametrize(
    ("source", "output", "columns"),
    [
        ("zarr", "zarr", WIDE),
        pytest.param("zarr", "parquet", NARROW, marks=pytest.mark.long),
        ("parquet", "parquet", NARROW),
    ],
    ids=["zarr to zarr with probabilities", "zarr to parquet", "parquet to parquet"],
)
def test_eight_times_the_rows_take_no_more_memory(dumps, tmp_path, source, output, columns):
    few, many = (
        measured_run(dumps / f"{blocks}.{source}", tmp_path / f"{blocks}.{output}", columns=columns, threads=2)
        for blocks in (FEW, MANY)
    )

    # The same work at a time, so that only the number of rows differs.
    assert [many[key] for key in ("threads", "partition_rows")] == [few[key] for key in ("threads", "partition_rows")]
    assert many["partitions"] >= 7 * few["partitions"]
    assert many["peak_bytes"] <= GROWTH * few["peak_bytes"]


@pytest.mark.parametrize("extra_mib", [0, 100])
@pytest.mark.parametrize(
    ("source", "output", "columns"),
    [("zarr", "zarr", WIDE), ("parquet", "parquet", WIDE)],
    ids=["zarr", "parquet"],
)
def test_a_run_stays_below_its_memory_limit(dumps, tmp_path, source, output, columns, extra_mib):
    dump = dumps / f"{FEW}.{source}"
    limit = (smallest_limit_mib(dump, tmp_path / f"out.{output}", columns) + extra_mib) * MIB

    run = measured_run(dump, tmp_path / f"out.{output}", columns=columns, threads=4, memory_limit=limit)

    assert run["peak_bytes"] <= run["plan_bytes"] <= limit


@pytest.mark.parametrize("output", ["zarr", "parquet"])
@pytest.mark.parametrize("threads", [pytest.param(1, marks=pytest.mark.long), 2])
def test_a_run_with_ids_and_names_stays_below_what_is_planned(with_ids, tmp_path, output, threads):
    run = measured_run(with_ids, tmp_path / f"out.{output}", threads=threads, partition_bytes=128 * MIB)

    assert run["peak_bytes"] <= run["plan_bytes"]
