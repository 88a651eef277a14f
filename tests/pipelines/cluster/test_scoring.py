"""Workers in processes of their own: the bytes that threads give, and runs that are ended and gone on with."""

import json
import os
import pickle
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from softmax_dask_pipelines import run, score
from softmax_dask_pipelines.cluster_worker import perform, versions
from softmax_dask_pipelines.config import ScoreConfig
from softmax_dask_pipelines.errors import ConfigError, InterruptedRunError, NonFiniteRowsError, WorkerMismatchError
from softmax_dask_pipelines.job import prepare
from softmax_dask_pipelines.scoring import execute
from tests.pipelines import dumps
from tests.pipelines.cluster.clusters import client_of_cluster
from tests.pipelines.command import IN_SMALL_PARTITIONS, end, run_alone, softmax_dask, start

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("small_plan")]

COLUMNS = ("label", "confidence", "probabilities")


@pytest.fixture(scope="module")
def client():
    # What the plan of a process takes, some 400 MB, must fit.
    with client_of_cluster(2, threads_per_worker=1, memory_limit="2GiB") as client:
        yield client


@pytest.fixture
def cluster(client):
    return client.cluster


@pytest.fixture(params=["zarr", "parquet"])
def kind(request):
    return request.param


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_output_has_the_bytes_that_threads_give(client, source, tmp_path, kind):
    score(source, tmp_path / f"threads.{kind}", columns=COLUMNS, threads=2)

    result = score(source, tmp_path / f"workers.{kind}", columns=COLUMNS, threads=2, client=client)

    assert result.partitions > 9
    assert bytes_of(tmp_path / f"workers.{kind}") == bytes_of(tmp_path / f"threads.{kind}")
    assert not list(Path(f"{tmp_path / 'workers'}.{kind}.job").glob("s*"))


def test_a_run_that_was_interrupted_goes_on_on_threads(client, source, tmp_path, kind):
    score(source, tmp_path / f"whole.{kind}", columns=COLUMNS, threads=2)
    output, seen = tmp_path / f"out.{kind}", []

    def stop_after_four(receipt):
        seen.append(receipt.partition)
        if len(seen) == 4:
            raise KeyboardInterrupt

    config = ScoreConfig(source={"path": str(source)}, output={"path": str(output)}, columns=COLUMNS, threads=2)
    with pytest.raises(InterruptedRunError, match=r"4 of \d+ partitions are done"):
        execute(prepare(config), client=client, on_receipt=stop_after_four)
    done = []
    execute(prepare(config), on_receipt=lambda receipt: done.append(receipt.partition))

    assert done[:4] == seen
    assert bytes_of(output) == bytes_of(tmp_path / f"whole.{kind}")


def test_the_error_of_a_task_is_the_one_that_threads_give(client, tmp_path):
    logits = dumps.logits()
    logits[57, 2] = np.nan
    source = dumps.zarr_group(tmp_path / "in.zarr", logits, chunks=(10, 5))

    with pytest.raises(NonFiniteRowsError, match="row 57 holds NaN"):
        score(source, tmp_path / "out.zarr", nonfinite="error", client=client)

    assert not (tmp_path / "out.zarr").exists()


def test_notes_of_a_task_are_told(client, tmp_path):
    source = dumps.zarr_group(tmp_path / "in.zarr", np.full((100, 4), 0.25, "f4"), carried=False)

    with pytest.warns(UserWarning, match="are they probabilities already"):
        score(source, tmp_path / "out.zarr", client=client)


def test_nothing_stays_on_workers(client, source, tmp_path):
    score(source, tmp_path / "out.zarr", client=client)

    plugins = client.run(lambda dask_worker: [name for name in dask_worker.plugins if name.startswith("softmax-dask")])
    assert list(plugins.values()) == [[], []]
    assert not client.futures


def test_run_of_a_config_takes_a_client(client, source, tmp_path):
    config = ScoreConfig(source={"path": str(source)}, output={"path": str(tmp_path / "out.zarr")})

    result = run(config, client=client)

    assert result.tally.rows == 103


def test_workers_with_other_versions_are_refused(client, source, tmp_path, monkeypatch):
    other = versions("cpu") | {"zarr": "3.0.0", "kernels": "cpu-7-lanes-v1"}
    monkeypatch.setattr("softmax_dask_pipelines.cluster_worker.versions", lambda _: other)

    with pytest.raises(WorkerMismatchError, match=r"has zarr \S+ \(here 3.0.0\), kernels \S+ \(here cpu-7-lanes-v1\)"):
        score(source, tmp_path / "out.zarr", client=client)

    assert not (tmp_path / "out.zarr").exists()


def test_libraries_use_one_thread_each_while_a_run_is_on(client, source, tmp_path):
    counts = []

    def look(receipt):
        if not counts:
            counts.append(client.run(_thread_counts))

    before = client.run(_thread_counts)
    config = ScoreConfig(source={"path": str(source)}, output={"path": str(tmp_path / "out.zarr")})
    execute(prepare(config), client=client, on_receipt=look)

    assert list(counts[0].values()) == [(1, False), (1, False)]
    assert client.run(_thread_counts) == before


def _thread_counts():
    import numcodecs.blosc
    import pyarrow

    return pyarrow.cpu_count(), numcodecs.blosc.use_threads


def test_a_task_of_a_batch_is_small():
    assert len(pickle.dumps((perform, "softmax-dask-0123456789ab", tuple(range(10**6, 10**6 + 64))))) < 1024


def test_scoring_by_its_address_and_by_its_file(cluster, source, tmp_path):
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"address": cluster.scheduler_address}))

    outcomes = [
        softmax_dask("score", source, tmp_path / f"{number}.zarr", "--scheduler", where, "--quiet")
        for number, where in enumerate([cluster.scheduler_address, file])
    ]

    assert [(outcome.code, outcome.err) for outcome in outcomes] == [(0, "")] * 2
    assert bytes_of(tmp_path / "0.zarr") == bytes_of(tmp_path / "1.zarr")


def test_an_asynchronous_client_is_refused(client, source, tmp_path):
    class Asynchronous:
        asynchronous = True

    with pytest.raises(ConfigError, match=r"client is asynchronous; expected one that waits"):
        score(source, tmp_path / "out.zarr", client=Asynchronous())


def test_processes_by_the_command_line(source, tmp_path):
    outcome = run_alone("score", source, tmp_path / "out.zarr", "--cluster", "processes", "--json")

    assert (outcome.code, outcome.err) == (0, "")
    assert json.loads(outcome.out)["rows"] == 103


@pytest.mark.parametrize(
    ("ending", "stop"), [pytest.param(os.kill, signal.SIGTERM, marks=pytest.mark.long), (os.killpg, signal.SIGINT)]
)
def test_a_signal_ends_a_run_on_processes_and_the_next_one_goes_on(tmp_path, ending, stop):
    # To the group as by Ctrl-C in a terminal, or by a service manager: then workers get it too.
    source = dumps.zarr_group(tmp_path / "in.zarr", dumps.logits(4000), chunks=(10, 5), carried=False)
    output = tmp_path / "out.parquet"
    flags = ("score", source, output, "--threads", 2)
    process = start(*flags, "--cluster", "processes", program=IN_SMALL_PARTITIONS, start_new_session=True)
    _wait_for_partitions(3, Path(f"{output}.job"), process)

    ending(process.pid, stop)
    outcome = end(process)
    again = softmax_dask(*flags, "--quiet")

    assert outcome.code == 75, outcome
    assert re.fullmatch(r"Error: interrupted; \d+ of 400 partitions are done\. Run the .* go on\.\n", outcome.err)
    assert (again.code, again.err) == (0, "")
    assert len(pq.read_table(output)) == 4000


def test_a_run_on_processes_that_is_killed_leaves_no_process_and_the_next_one_goes_on(tmp_path):
    source = dumps.zarr_group(tmp_path / "in.zarr", dumps.logits(4000), chunks=(10, 5), carried=False)
    output = tmp_path / "out.parquet"
    flags = ("score", source, output, "--threads", 1)
    process = start(*flags, "--cluster", "processes", program=IN_SMALL_PARTITIONS)
    _wait_for_partitions(3, Path(f"{output}.job"), process)
    started = psutil.Process(process.pid).children(recursive=True)

    process.kill()
    outcome = end(process)
    _, alive = psutil.wait_procs(started, timeout=30)
    again = softmax_dask(*flags, "--json")

    assert outcome.code == -signal.SIGKILL
    assert len(started) >= 2
    assert not alive
    assert (again.code, again.err) == (0, "")
    assert json.loads(again.out)["rows"] == len(pq.read_table(output)) == 4000
    assert not list(Path(f"{output}.job").glob("s*"))


def _wait_for_partitions(count: int, folder: Path, process: Any) -> None:
    while sum(path.read_bytes().count(b'"partition"') for path in folder.glob("journal-*")) < count:
        assert process.poll() is None, process.communicate()
