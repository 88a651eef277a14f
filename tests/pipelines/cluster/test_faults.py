"""Workers that are killed, frozen or poisoned, and a scheduler that goes: what is done stays done, and nothing is lost.

The tasks here write a line to a file for each partition that they begin, so the tests see what ran, and where.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import dask.config
import pytest
from distributed import Client

from softmax_dask_pipelines import score
from softmax_dask_pipelines.cluster_runner import on_workers, run_on_cluster
from softmax_dask_pipelines.cluster_worker import Work
from softmax_dask_pipelines.config import ScoreConfig
from softmax_dask_pipelines.errors import ClusterUnavailableError, InterruptedRunError, PoisonPartitionError
from softmax_dask_pipelines.job import prepare
from softmax_dask_pipelines.runner import Stop
from softmax_dask_pipelines.scoring import execute
from tests.pipelines import dumps
from tests.pipelines.cluster.clusters import client_of_cluster

pytestmark = pytest.mark.cluster

SOON_S = 60


class BrokenTaskError(Exception):
    """Raised by a task that fails."""


def nothing() -> None:
    """Nothing to prepare."""


def begin(folder: Path, number: int) -> int:
    """Leave word of where a task began; how many began before it."""
    with open(folder / f"{number}", "a+") as file:
        file.seek(0)
        before = file.read().count("\n")
        file.write(f"{os.getpid()}\n")
    return before


def plain(folder: Path, number: int) -> int:
    begin(folder, number)
    return number


def killed_at_first(folder: Path, killed: set[int], number: int) -> int:
    """Ends its worker where it is the first attempt at one of `killed`."""
    if begin(folder, number) == 0 and number in killed:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def poisoned(folder: Path, poison: int, number: int) -> int:
    begin(folder, number)
    if number == poison:
        time.sleep(0.2)  # others begin beside it
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def greedy(folder: Path, number: int) -> int:
    """Takes more memory than its worker may."""
    begin(folder, number)
    if number == 2:
        hoard = []
        while True:
            hoard.append(b"x" * 10_000_000)
            time.sleep(0.01)  # the nanny looks ten times a second
    return number


def failing(folder: Path, stop: Stop, number: int) -> int:
    """Of two at once one fails, when the other has begun, which then waits for the end of the run."""
    begin(folder, number)
    if number == 0:
        while not (folder / "1").exists():
            time.sleep(0.01)
        raise BrokenTaskError(number)
    if stop.wait(SOON_S):
        begin(folder, 1000 + number)
        raise InterruptedRunError("stopped")
    return number


def at_leisure(folder: Path, stop: Stop, number: int) -> int:
    """Takes its time, and ends early where it is asked to."""
    begin(folder, number)
    if stop.wait(0.1):
        raise InterruptedRunError("stopped")
    return number


def frozen_at_first(folder: Path, number: int) -> int:
    """Stops its process in the first attempt at 3, and writes when it is awake again."""
    if begin(folder, number) == 0 and number == 3:
        os.kill(os.getpid(), signal.SIGSTOP)
        begin(folder, 2003)
    return number


def work_of(task, stop=None, threads=2) -> Work:
    return Work(task, nothing, stop or Stop(), threads=threads, process_bytes=0, task_bytes=0)


@pytest.fixture(scope="module")
def client():
    """Of two workers with a nanny each; a task may end one worker, and not a second one."""
    settings = {"distributed.scheduler.allowed-failures": 1}
    with dask.config.set(settings), client_of_cluster(2, **QUIET) as client:
        yield client


QUIET = {"threads_per_worker": 2, "memory_limit": "600MB", "silence_logs": 60}


@contextmanager
def impatient(worker_ttl):
    """Schedulers that are started inside give up workers that are silent for so long; Dask's own least is 5 s."""
    with (
        dask.config.set({"distributed.scheduler.worker-ttl": worker_ttl}),
        patch("distributed.scheduler.heartbeat_interval", lambda _: 0.1),
    ):
        yield


def results_of(client: Client, task, numbers, *, wait_s: float = SOON_S, stop=None) -> list[int]:
    taken: list[int] = []
    with on_workers(client, work_of(task, stop)) as run:
        run_on_cluster(run, numbers, take=taken.append, wait_s=wait_s)
    return taken


def test_every_partition_is_taken_once_though_workers_are_killed(client, tmp_path):
    taken = results_of(client, partial(killed_at_first, tmp_path, {3, 11}), range(20))

    assert sorted(taken) == list(range(20))
    assert [(tmp_path / str(number)).read_text().count("\n") > 1 for number in (3, 11)] == [True, True]


def test_a_partition_that_ends_every_worker_is_named_and_its_neighbours_are_done(client, tmp_path):
    taken: list[int] = []

    with (
        pytest.raises(PoisonPartitionError, match=r"^partition 5: every worker that scored it was ended"),
        on_workers(client, work_of(partial(poisoned, tmp_path, 5))) as run,
    ):
        run_on_cluster(run, range(12), take=taken.append, wait_s=SOON_S)

    assert sorted(taken) == [number for number in range(12) if number != 5]


@pytest.mark.long
def test_a_partition_that_takes_more_memory_than_a_worker_has_is_named(client, tmp_path):
    with pytest.raises(PoisonPartitionError, match=r"^partition 2: .*more memory than the workers' limit\?"):
        results_of(client, partial(greedy, tmp_path), range(4))


def scaled_down(client: Client) -> None:
    client.cluster.scale(1)


def terminated(client: Client) -> None:
    """As by a job scheduler that wants its node back."""
    os.kill(next(iter(client.run(os.getpid).values())), signal.SIGTERM)


@pytest.mark.parametrize("leave", [scaled_down, pytest.param(terminated, marks=pytest.mark.long)])
def test_tasks_of_a_worker_that_leaves_are_done_by_others(tmp_path, leave):
    stop, taken = Stop(), []

    def take(number):
        taken.append(number)
        if len(taken) == 3:
            leave(client)

    # In a cluster of its own, for it ends with one worker.
    with client_of_cluster(2, **QUIET) as client:
        client.wait_for_workers(2, timeout=SOON_S)
        with on_workers(client, work_of(partial(at_leisure, tmp_path, stop), stop)) as run:
            run_on_cluster(run, range(60), take=take, wait_s=SOON_S)

    assert sorted(taken) == list(range(60))
    assert any(path.read_text().count("\n") > 1 for path in tmp_path.iterdir())  # some had begun there


def test_the_first_error_ends_the_run_and_tasks_that_run_have_ended_when_it_is_raised(client, tmp_path):
    stop = Stop()

    with pytest.raises(BrokenTaskError):
        results_of(client, partial(failing, tmp_path, stop), range(2), stop=stop)

    assert (tmp_path / "1001").exists()


def test_a_frozen_worker_is_given_up(tmp_path):
    # In a cluster of its own: on a busy machine the impatient give up workers that are only slow.
    with impatient("2s"), client_of_cluster(2, **QUIET) as client:
        taken = results_of(client, partial(frozen_at_first, tmp_path), range(8))

    assert sorted(taken) == list(range(8))
    assert len(set((tmp_path / "3").read_text().split())) == 2


def test_short_tasks_travel_in_batches(client, tmp_path):
    before = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter)
    taken = results_of(client, partial(plain, tmp_path), range(3000))
    after = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter)

    assert sorted(taken) == list(range(3000))
    assert (after - before) / 5 < 1000  # a task makes some five transitions


def test_without_workers_a_run_ends_after_a_while(tmp_path):
    with (
        client_of_cluster(0) as client,
        pytest.raises(ClusterUnavailableError, match=r"has no workers, for 0.5 s now \(cluster.wait_s\)"),
    ):
        results_of(client, partial(plain, tmp_path), range(3), wait_s=0.5)


A_SCHEDULER = """
from distributed import LocalCluster
if __name__ == "__main__":
    local = {"host": "127.0.0.1", "dashboard_address": None, "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"}}
    cluster = LocalCluster(n_workers=1, processes=False, protocol="tcp://", **local)
    print(cluster.scheduler_address, flush=True)
    input()
"""


def test_a_scheduler_that_goes_means_try_again(tmp_path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", A_SCHEDULER], text=True, **pipes) as process:
        address = process.stdout.readline().strip()
        with (
            Client(address, set_as_default=False) as client,
            pytest.raises(ClusterUnavailableError, match="the Dask cluster was lost"),
            on_workers(client, work_of(partial(plain, tmp_path))) as run,
        ):
            run_on_cluster(run, range(10**6), take=lambda _: process.kill(), wait_s=SOON_S)


@pytest.mark.long
def test_a_worker_that_wakes_up_when_all_is_published_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("softmax_dask_pipelines.sources.blocks.READ_BYTES", 240)
    monkeypatch.setattr("softmax_dask_pipelines.plan.CHUNK_BYTES", 240)
    monkeypatch.setattr("softmax_dask_pipelines.plan.PARTITION_BYTES", 240)
    source = dumps.zarr_group(tmp_path / "in.zarr", dumps.logits(2000), chunks=(10, 5), carried=False)
    score(source, tmp_path / "threads.zarr")
    worker = (sys.executable, "-m", "distributed.cli.dask_worker", "--no-nanny", "--no-dashboard", "--nthreads", "1")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    with (
        impatient("1s"),
        client_of_cluster(0, silence_logs=60) as client,
        subprocess.Popen([*worker, client.scheduler.address], **quiet) as one,
        subprocess.Popen([*worker, client.scheduler.address], **quiet) as other,
    ):
        client.wait_for_workers(2, timeout=SOON_S)
        config = ScoreConfig(source={"path": str(source)}, output={"path": str(tmp_path / "out.zarr")})
        execute(prepare(config), client=client, on_receipt=lambda _: one.send_signal(signal.SIGSTOP))
        workers = client.nthreads()
        one.send_signal(signal.SIGCONT)
        code = one.wait(SOON_S)  # it finds that the scheduler has given it up
        other.kill()

    assert len(workers) == 1
    assert code is not None
    assert bytes_of(tmp_path / "out.zarr") == bytes_of(tmp_path / "threads.zarr")


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
