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


def job_of(source, tmp_path, **options):
    told = {"threads": 2, "durability": "none"} | options
    return prepare(ScoreConfig(source={"path": str(source)}, output={"path": str(tmp_path / "out.zarr")}, **told))


@pytest.fixture
def long_dump(tmp_path):
    return dumps.zarr_group(tmp_path / "long.zarr", dumps.logits(4000), chunks=(10, 5), carried=False)


def test_what_a_second_shows_is_what_all_of_it_gets(long_dump, tmp_path):
    job = job_of(long_dump, tmp_path)
    blocks = 400

    found = estimated(replace(job, source=SlowSource(job.source)))

    assert isinstance(found, Estimate)
    # Each of two threads waits for half of the blocks; a machine that does other work may take longer.
    assert blocks / 2 * BLOCK_S <= found.low_s == found.high_s < blocks * BLOCK_S


def test_a_run_that_is_shorter_than_a_second_is_tried_whole(source, tmp_path):
    found = estimated(job_of(source, tmp_path))

    assert isinstance(found, Estimate)
    assert found.low_s < 1.5


def test_a_large_output_has_a_range(source, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "_SURE_BYTES", 100)

    found = estimated(job_of(source, tmp_path))

    assert 2 * found.low_s <= found.high_s


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
