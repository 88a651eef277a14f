"""Jobs of a real Slurm score a dump: to the end, though one is cancelled, and after the run itself was ended.

`make slurm` runs these; they are skipped where Slurm cannot be started.
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from softmax_dask_pipelines import score
from softmax_dask_pipelines.config import read_config
from softmax_dask_pipelines.job import prepare
from softmax_dask_pipelines.ledger.journal import read_journal
from softmax_dask_pipelines.scoring import execute
from tests.pipelines import dumps
from tests.pipelines.command import IN_SMALL_PARTITIONS, end, start
from tests.slurm import service

pytestmark = [pytest.mark.slurm, pytest.mark.cluster, pytest.mark.usefixtures("small_plan")]

CONFIG = Path(__file__).parents[2] / "configs" / "slurm.yaml"
ROWS = 8000
SOON_S = 60


@pytest.fixture(scope="module")
def slurm():
    if (reason := service.why_not()) is not None:
        pytest.skip(reason)
    folder = Path("/tmp") / f"softmax-dask-slurm-{os.getpid()}"  # short: the path of a socket may have 107 bytes
    folder.mkdir(mode=0o755)
    try:
        with service.slurm(folder) as environment:
            yield environment
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def here(slurm, tmp_path, monkeypatch):
    """A user who may submit jobs, in a folder with a dump."""
    monkeypatch.chdir(tmp_path)
    for name, value in {**slurm, "DUMPS": str(tmp_path), "SCORES": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    dumps.zarr_group(tmp_path / "logits.zarr", dumps.logits(ROWS), chunks=(10, 5), carried=False)
    return tmp_path


@pytest.fixture
def config(here):
    """The config that we ship, with jobs that fit this machine, and its output in many small files."""
    told = yaml.safe_load(CONFIG.read_text())
    told |= {"threads": 1, "memory_limit": "1GiB", "durability": "none", "columns": ["label", "confidence"]}
    told["output"]["path"] = "{env:SCORES}/by-slurm.parquet"
    told["cluster"]["scale"] = 2
    told["cluster"]["kwargs"] |= {
        "cores": 1,
        "memory": "1GiB",
        "interface": "lo",
        "scheduler_options": {"dashboard_address": "127.0.0.1:0"},
    }
    path = here / "slurm.yaml"
    path.write_text(yaml.safe_dump(told))
    return path


def test_it_scores_to_the_end_and_leaves_no_jobs(here, slurm, config):
    expected = score(here / "logits.zarr", here / "threads.parquet", threads=1)

    result = execute(prepare(read_config(str(config))))

    assert result.tally.label_groups == expected.tally.label_groups
    assert pq.read_table(here / "by-slurm.parquet").equals(pq.read_table(here / "threads.parquet"))
    assert soon(lambda: not service.jobs(slurm))


def test_a_job_that_is_cancelled_is_done_without(here, slurm, config):
    expected = score(here / "logits.zarr", here / "threads.parquet", threads=1)
    taken, cancelled = [], []

    def cancel_one(receipt):
        taken.append(receipt.partition)
        if not cancelled:
            cancelled.append(service.jobs(slurm)[0])
            subprocess.run(["scancel", cancelled[0]], check=True)

    result = execute(prepare(read_config(str(config))), on_receipt=cancel_one)

    assert result.tally.rows == expected.tally.rows == ROWS
    assert sorted(taken) == list(range(result.partitions))
    assert pq.read_table(here / "by-slurm.parquet").equals(pq.read_table(here / "threads.parquet"))


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_jobs_and_is_gone_on_with(here, slurm, config, ending):
    process = start("run", config, "--quiet", program=IN_SMALL_PARTITIONS)
    journals = here / "by-slurm.parquet.job"
    assert soon(lambda: len(noted(journals)) > 20 or process.poll() is not None)
    process.send_signal(ending)
    outcome = end(process)
    done = noted(journals)
    assert soon(lambda: not service.jobs(slurm))
    taken = []

    execute(prepare(read_config(str(config))), on_receipt=lambda receipt: taken.append(receipt.partition))

    assert outcome.code == (75 if ending == signal.SIGTERM else -signal.SIGKILL), outcome
    assert 20 < len(done) < len(taken)
    assert taken[: len(done)] == done
    assert sorted(taken) == list(range(len(taken)))
    assert len(pq.read_table(here / "by-slurm.parquet")) == ROWS


def noted(folder: Path) -> list[int]:
    """Partitions that are done, by the journal of a run that is not published."""
    return [receipt.partition for path in folder.glob("journal-*.jsonl") for receipt in read_journal(path)]


def soon(condition) -> bool:
    end = time.monotonic() + SOON_S
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return bool(found)
