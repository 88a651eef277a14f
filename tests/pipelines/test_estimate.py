"""`plan` says how long a run may take, by a second of it, and leaves nothing behind."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest

from softmax_dask_pipelines import estimate
from softmax_dask_pipelines.config import ScoreConfig
from softmax_dask_pipelines.estimate import Estimate, estimated
from softmax_dask_pipelines.job import prepare
from softmax_dask_pipelines.summary import text_of_plan
from tests.pipelines import dumps
from tests.pipelines.command import softmax_dask, tree

pytestmark = pytest.mark.usefixtures("small_plan")

BLOCK_S = 0.02


class SlowSource:
    """Each block takes its time."""

    def __init__(self, source):
        self._source, self.facts = source, source.facts

    def read(self, start, stop):
        for block in self._source.read(start, stop):
            time.sleep(BLOCK_S)
            yield block

    def compile(self):
        self._source.compile()


def job_of(source, tmp_path, **options):
    told = {"threads": 2, "durability": "none"} | options
    return prepare(ScoreConfig(source={"path": str(source)}, output={"path": str(tmp_path / "out.zarr")}, **told))


@pytest.fixture
def long_dump(tmp_path):
    return dumps.zarr_group(tmp_path / "long.zarr", dumps.logits(4000), chunks=(10, 5), carried=False)


def test_what_a_second_shows_is_what_all_of_it_gets(source, tmp_path):
    job = job_of(source, tmp_path)
    trial = estimate._Trial(rows=50, seconds=2.0, written_rows=60, stored_bytes=0, objects=0)

    found = estimate._estimate(job, trial, threads=2)

    assert found.low_s == found.high_s == pytest.approx(103 / 50 * 2.0, abs=0.1)


def test_a_trial_ends_after_a_second_and_counts_the_time_of_its_threads(long_dump, tmp_path):
    job = job_of(long_dump, tmp_path)

    trial = estimate._tried(replace(job, source=SlowSource(job.source)))

    assert 0 < trial.rows < trial.written_rows < 4000
    # Ten rows a block, two threads; a machine that does other work takes longer.
    assert trial.seconds >= 0.99 * trial.rows / 10 / 2 * BLOCK_S


def test_a_run_that_is_shorter_than_a_second_is_tried_whole(source, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "_TRIAL_S", 60.0)

    trial = estimate._tried(job_of(source, tmp_path))

    assert trial.rows == trial.written_rows == 103


def test_a_large_output_has_a_range(source, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "_SURE_BYTES", 100)

    found = estimated(job_of(source, tmp_path))

    assert 2 * found.low_s <= found.high_s


@pytest.mark.parametrize(
    ("work_s", "sync_s", "low_s", "high_s"),
    [
        (6.0, 2.0, 4.0, 18.0),  # the disk may become slow: 6 + 6 * 2
        (6.0, 0.5, 4.0, 13.0),  # 2 * 6.5
        (3.0, 12.0, 2.0, 30.0),  # the disk is slow already
        (3.0, 60.0, 20 / 3, 126.0),
    ],
)
def test_the_range_of_a_large_output_has_room_for_what_disks_do(
    work_s, sync_s, low_s, high_s, source, tmp_path, monkeypatch
):
    monkeypatch.setattr(estimate, "_SURE_BYTES", 0)
    monkeypatch.setattr(estimate, "_disk_rate", lambda output, size, stored, threads: stored / sync_s)
    job = job_of(source, tmp_path, durability="fsync")
    trial = estimate._Trial(rows=103, seconds=work_s, written_rows=103, stored_bytes=1000, objects=1)

    found = estimate._estimate(job, trial, threads=2)

    assert (found.low_s, found.high_s) == pytest.approx((low_s, high_s), abs=0.11)


def test_the_time_of_syncs_is_that_of_the_disk_of_the_output(source, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "_disk_rate", lambda output, size, stored, threads: stored / 1000)

    assert (
        estimated(job_of(source, tmp_path)).low_s < 1000 < estimated(job_of(source, tmp_path, durability="fsync")).low_s
    )


def test_a_disk_that_cannot_be_tried_counts_for_nothing(source, tmp_path, monkeypatch):
    monkeypatch.delattr(estimate.os, "O_TMPFILE")

    assert estimate._disk_rate(tmp_path / "out.zarr", 1000, 5000, 2) == float("inf")


def test_files_without_a_name_are_written_at_some_rate(tmp_path):
    assert 0 < estimate._disk_rate(tmp_path / "not there" / "out.zarr", 1000, 5000, 2) < float("inf")
    assert not list(tmp_path.iterdir())


def test_no_estimate_of_what_hangs_on_others(source, tmp_path):
    job = job_of(source, tmp_path)
    on_cluster = job_of(source, tmp_path, cluster={"connect": "tcp://127.0.0.1:8786"})

    assert estimated(on_cluster) == "not estimated: it depends on the workers"
    assert "object store" in estimated(replace(job, spec=replace(job.spec, path="s3://bucket/out.zarr")))


def test_data_that_a_run_would_refuse_is_told(tmp_path):
    logits = dumps.logits()
    logits[3, 1] = np.nan
    source = dumps.zarr_group(tmp_path / "in.zarr", logits, chunks=(10, 5))

    assert "row 3 holds NaN" in estimated(job_of(source, tmp_path, nonfinite="error"))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        ((0.123, 0.123), "about 0.12 s here, by a second of it"),
        ((42.4, 42.4), "about 42 s here, by a second of it"),
        ((100.0, 1000.0), "100 s to 16.7 min here, by a second of it"),
        ((10_000.0, 20_000.0), "2.8 h to 5.6 h here, by a second of it"),
    ],
)
def test_seconds_in_words(source, tmp_path, seconds, text):
    assert text_of_plan(job_of(source, tmp_path), Estimate(*seconds)).splitlines()[-1].split(maxsplit=1) == [
        "time",
        text,
    ]


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_plan_tells_the_time_and_leaves_nothing(source, tmp_path, monkeypatch, flags):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = tree(tmp_path)

    outcome = softmax_dask("score", source, tmp_path / "out.zarr", "--dry-run", *flags)

    assert (outcome.code, outcome.err) == (0, "")
    assert tree(tmp_path) == before
    assert json.loads(outcome.out)["seconds"][0] > 0 if flags else "\ntime        about " in outcome.out
