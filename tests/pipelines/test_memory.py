"""Peak memory of whole processes: it does not grow with the rows, and stays below the limit."""

import os
import subprocess
import sys

import numpy as np
import pytest
import zarr

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


LIMIT = 480 * MIB
"""Little more than a process is planned with, and what a thread needs beside it."""

OF_A_VERB = """
import sys
from softmax_dask_pipelines import calibrate, conformal, evaluate
verb, source, limit = sys.argv[1:]
options = {"memory_limit": int(limit), "threads": 2}
document = f"{source}.{verb}.json"
{
    "calibrate": lambda: calibrate(source, document, **options),
    "conformal": lambda: conformal(source, document, **options),
    "evaluate": lambda: evaluate(source, **options),
}[verb]()
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM:")).split()[1])
"""
"""Prints the most KiB that its process took."""


@pytest.fixture(scope="module")
def ten_times_the_limit(tmp_path_factory):
    """A dump of 5 GB, of which a few MB lie on the disk: all chunks of an array are one file."""
    path = tmp_path_factory.mktemp("memory") / "large.zarr"
    rows, classes = 5000, 100
    count = 10 * LIMIT // (rows * classes * 8) + 1
    logits = np.tile(np.random.default_rng(0).normal(0, 3, (10, classes)), (rows // 10, 1))
    group = zarr.create_group(path)
    for name, chunk in (("logits", logits), ("target", np.arange(rows) % classes)):
        shape = (count * rows, *chunk.shape[1:])
        group.create_array(name, shape=shape, chunks=chunk.shape, dtype=chunk.dtype)[:rows] = chunk
        folder = path / name / "c"
        names = [folder / "/".join([str(number)] + ["0"] * (chunk.ndim - 1)) for number in range(count)]
        for other in names[1:]:
            other.parent.mkdir(exist_ok=True)
            os.link(names[0], other)
    return path


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


FITS = ("calibrate", "conformal")


@pytest.mark.parametrize("verb", ["evaluate", *(pytest.param(verb, marks=pytest.mark.long) for verb in FITS)])
def test_sums_of_a_dump_ten_times_the_limit_stay_within_it(ten_times_the_limit, tmp_path, verb):
    group = zarr.open_group(ten_times_the_limit, mode="r")
    small = zarr.create_group(tmp_path / "small.zarr")
    for name in ("logits", "target"):
        small.create_array(name, data=group[name][:1000])
    kernels_compiled = [sys.executable, "-c", OF_A_VERB, verb, str(tmp_path / "small.zarr"), str(LIMIT)]
    subprocess.run(kernels_compiled, check=True, stdout=subprocess.DEVNULL)

    line = [sys.executable, "-c", OF_A_VERB, verb, str(ten_times_the_limit), str(LIMIT)]
    peak = int(subprocess.run(line, check=True, stdout=subprocess.PIPE).stdout) << 10

    assert group["logits"].nbytes >= 10 * LIMIT
    assert peak <= LIMIT
