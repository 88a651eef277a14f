"""Zarr outputs in an object store: old or new, never half; what was stopped goes on; of two runs one wins."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr

from softmax_dask_pipelines import score
from softmax_dask_pipelines.errors import StorageFailedError
from softmax_dask_pipelines.ledger import leases
from softmax_dask_pipelines.object_path import ObjectPath
from softmax_dask_pipelines.sinks import places
from tests.pipelines import dumps
from tests.pipelines.command import end, run_alone, softmax_dask, start
from tests.pipelines.objects import faults
from tests.pipelines.objects.buckets import CANARY, Bucket

pytestmark = pytest.mark.filterwarnings("ignore::softmax_dask_pipelines.notices.NoteWarning")

AGAIN = 75


def _dump(tmp_path: Path, rows: int = 103, name: str = "dump.zarr") -> Path:
    return dumps.zarr_group(tmp_path / name, dumps.logits(rows), chunks=(10, 5), carried=rows == 103)


def _score(source: object, output: object, *flags: str) -> Any:
    return softmax_dask("score", source, output, "--columns", "label,probabilities", "--threads", "1", *flags)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _in_bucket(bucket: Bucket, key: str) -> dict[str, bytes]:
    return {found.removeprefix(f"{key}/"): bucket.get(found) for found in bucket.all_keys(f"{key}/")}


def test_an_output_has_the_bytes_of_a_local_one(bucket, tmp_path):
    source = _dump(tmp_path)

    outcome = _score(source, bucket.url("a/scores.zarr"))

    assert (outcome.code, outcome.err) == (0, "")
    assert _score(source, tmp_path / "scores.zarr").code == 0
    assert _in_bucket(bucket, "a/scores.zarr") == _files(tmp_path / "scores.zarr")


@pytest.mark.usefixtures("new_connections")
def test_options_from_python_are_those_of_the_output_too(bucket, tmp_path, monkeypatch):
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.delenv("AWS_ENDPOINT_URL")

    score(_dump(tmp_path), bucket.url("scores.zarr"), storage_options={"endpoint_url": endpoint})

    assert "scores.zarr/zarr.json" in bucket.all_keys("scores.zarr/")


def test_readers_open_it_by_its_address(bucket, proxy, tmp_path):
    _score(_dump(tmp_path), bucket.url("scores.zarr"))

    local = bucket.download("scores.zarr", tmp_path / "copy")
    with xarray.open_zarr(local) as found:
        assert found["probabilities"].shape == (103, 5)


def test_from_store_to_store(bucket, tmp_path):
    source = bucket.upload(_dump(tmp_path), "in/dump.zarr")

    outcome = _score(source, bucket.url("out/scores.zarr"))

    assert outcome.code == 0, outcome.err
    assert zarr.open_group(bucket.download("out/scores.zarr", tmp_path / "copy"), mode="r")["label"].shape == (103,)


def test_all_that_is_left_beside_it_are_its_records(bucket, tmp_path):
    _score(_dump(tmp_path), bucket.url("scores.zarr"))

    kinds = {key.split("/")[1].partition("-")[0] for key in bucket.all_keys("scores.zarr.job/")}
    assert kinds == {"commit", "journal", "metrics", "runs"}


def test_again_nothing_is_new_and_more_rows_are_added(bucket, tmp_path):
    output = bucket.url("scores.zarr")
    short = dumps.zarr_array(tmp_path / "dump", dumps.logits(120)[:103], chunks=(10, 5))
    assert _score(short, output).code == 0
    assert "up to date" in _score(short, output).out
    array = zarr.open_array(short)
    array.resize((120, 5))
    array[100:] = dumps.logits(120)[100:]

    outcome = _score(short, output)

    assert outcome.code == 0, outcome.err
    found = zarr.open_group(bucket.download("scores.zarr", tmp_path / "copy"), mode="r")
    np.testing.assert_array_equal(found["label"][:], dumps.logits(120).argmax(axis=1))


def test_other_settings_are_refused(bucket, tmp_path):
    source, output = _dump(tmp_path), bucket.url("scores.zarr")
    _score(source, output)

    outcome = _score(source, output, "--temperature", "2")

    assert outcome.code == 4
    assert "temperature: 1.0 -> 2.0" in outcome.err


def test_replace_is_refused_with_the_remedy(bucket, tmp_path):
    source, output = _dump(tmp_path), bucket.url("scores.zarr")
    _score(source, output)
    before = _in_bucket(bucket, "scores.zarr")

    outcome = _score(source, output, "--replace")

    assert outcome.code == 2
    assert "with the date in it" in outcome.err
    assert _in_bucket(bucket, "scores.zarr") == before


def test_what_is_not_ours_is_not_touched(bucket, tmp_path):
    bucket.put("scores.zarr/zarr.json", b"{}")

    outcome = _score(_dump(tmp_path), bucket.url("scores.zarr"))

    assert outcome.code == 4
    assert bucket.all_keys("scores.zarr") == ["scores.zarr/zarr.json"]


PLACES = {
    "a chunk": ("PUT", ".job/stage-", 0),
    "the seal": ("PUT", "/zarr.json", 0),
    "the decision": ("PUT", "commit-000001.json", 0),
    "the first copy": ("PUT", "scores.zarr/label", 0),
    "the root's document": ("PUT", "scores.zarr/zarr.json", 0),
}


@pytest.mark.parametrize("where", PLACES)
def test_a_store_that_fails_there_leaves_nothing_half_and_the_next_run_goes_on(where, bucket, proxy, tmp_path):
    source, output = _dump(tmp_path), bucket.url("scores.zarr")
    method, part, _ = PLACES[where]
    proxy.spoil(method, part, faults.says(500), reaches=False)

    failed = _score(source, output)

    assert failed.code == AGAIN, failed.err
    assert "scores.zarr/zarr.json" not in bucket.all_keys("scores.zarr/")
    proxy.forget()
    _forget_lease(bucket)
    assert _score(source, output).code == 0
    _score(source, tmp_path / "scores.zarr")
    assert _in_bucket(bucket, "scores.zarr") == _files(tmp_path / "scores.zarr")


def _forget_lease(bucket: Bucket) -> None:
    """As two minutes do."""
    if "scores.zarr.job/lock" in bucket.all_keys("scores.zarr.job/"):
        bucket.remove("scores.zarr.job/lock")


@pytest.mark.parametrize(
    "part", [pytest.param(".job/stage-", marks=pytest.mark.long), "commit-000001.json", "scores.zarr/zarr.json"]
)
def test_a_run_that_is_killed_there_is_gone_on_with(part, bucket, proxy, tmp_path):
    source, output = _dump(tmp_path), bucket.url("scores.zarr")
    killed = []

    def kill(handler: faults.Handler, _: int, __: bytes) -> None:
        killed[0].kill()
        killed[0].wait()
        faults.reset(handler, 0, b"")

    rule = proxy.spoil("PUT", part, kill, times=1)
    killed.append(start("score", source, output, "--columns", "label,probabilities", "--threads", "1"))
    first = end(killed[0])

    again = _score(source, output)

    assert (first.code, rule.met) == (-signal.SIGKILL, 1)
    assert again.code == 0, again.err
    _score(source, tmp_path / "scores.zarr")
    assert _in_bucket(bucket, "scores.zarr") == _files(tmp_path / "scores.zarr")
    assert not [key for key in bucket.all_keys("scores.zarr.job/") if "stage" in key or "plan" in key or "lock" in key]


FAULTS: dict[str, faults.Fault] = {
    "acknowledgement lost": faults.reset,
    "503": faults.says(503, "SlowDown"),
    "500": faults.says(500, "InternalError"),
}


SPOILT = [
    *(("acknowledgement lost", part) for part in (".job/stage-", "commit-000001.json", "scores.zarr/label", "plan-")),
    *((fault, ".job/stage-") for fault in ("503", "500")),
]


@pytest.mark.parametrize(("fault", "part"), SPOILT)
def test_a_put_that_is_taken_and_not_acknowledged_is_put_once(fault, part, bucket, proxy, tmp_path):
    source = _dump(tmp_path)
    rule = proxy.spoil("PUT", part, FAULTS[fault], times=1)

    outcome = _score(source, bucket.url("scores.zarr"))
    if outcome.code == AGAIN:  # what is not tried again in the run is done by the next one
        outcome = _score(source, bucket.url("scores.zarr"))

    assert (outcome.code, rule.met) == (0, 1), outcome.err
    _score(source, tmp_path / "scores.zarr")
    assert _in_bucket(bucket, "scores.zarr") == _files(tmp_path / "scores.zarr")
    assert [key for key in bucket.all_keys("scores.zarr.job/") if "commit-" in key] == [
        "scores.zarr.job/commit-000001.json"
    ]


class TestLease:
    def _held(self, bucket: Bucket, seconds: float, **more: object) -> None:
        facts = {"run": "r1", "host": "elsewhere", "pid": 7, "started": "before", "expires": time.time() + seconds}
        bucket.put("scores.zarr.job/lock", json.dumps(facts | more).encode())

    def test_a_second_run_is_told_who_is_first(self, bucket, tmp_path):
        self._held(bucket, 30)

        outcome = _score(_dump(tmp_path), bucket.url("scores.zarr"))

        assert outcome.code == AGAIN
        assert "another run is writing it (run r1 on elsewhere, process 7, since before)" in outcome.err
        assert bucket.all_keys() == ["scores.zarr.job/lock"]

    def test_one_that_has_ended_long_ago_is_taken(self, bucket, tmp_path):
        self._held(bucket, -leases.GRACE_S - 1)

        assert _score(_dump(tmp_path), bucket.url("scores.zarr")).code == 0
        assert "scores.zarr.job/lock" not in bucket.all_keys()

    def test_one_whose_process_is_gone_from_this_machine_is_taken_at_once(self, bucket, tmp_path):
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        self._held(bucket, 30, host=socket.gethostname(), pid=gone.pid)

        assert _score(_dump(tmp_path), bucket.url("scores.zarr")).code == 0

    def test_it_is_renewed_while_the_run_goes_on(self, bucket, monkeypatch):
        monkeypatch.setattr(leases, "RENEWED_EVERY_S", 0.01)
        path = ObjectPath.at(bucket.url("scores.zarr"), None)
        first = None

        with leases.leased(path) as run:
            while first in (None, found := json.loads(bucket.get("scores.zarr.job/lock"))["expires"]):
                first = found
            assert json.loads(bucket.get("scores.zarr.job/lock"))["run"] == run.run

        assert bucket.all_keys() == []


def test_of_two_runs_that_both_hold_the_lease_one_commits(bucket, tmp_path, monkeypatch):
    from softmax_dask_pipelines.ledger import publication

    put_commit: Callable[..., bool] = publication.put_commit

    def overtaken(folder: Any, commit: Any) -> bool:
        monkeypatch.setattr(publication, "put_commit", put_commit)
        bucket.put(f"{folder.key}/commit-000001.json", b"somebody else's")
        return put_commit(folder, commit)

    monkeypatch.setattr(publication, "put_commit", overtaken)

    outcome = _score(_dump(tmp_path), bucket.url("scores.zarr"))

    assert outcome.code == AGAIN
    assert "another run has written it meanwhile" in outcome.err
    assert bucket.all_keys("scores.zarr/") == []
    assert bucket.get("scores.zarr.job/commit-000001.json") == b"somebody else's"


def test_a_store_that_ignores_if_none_match_is_refused(bucket, proxy, tmp_path):
    proxy.drop_header("If-None-Match")

    outcome = _score(_dump(tmp_path), bucket.url("scores.zarr"))

    assert outcome.code == 2
    assert "it ignores If-None-Match" in outcome.err
    assert "write to a local path" in outcome.err
    assert bucket.all_keys() == []


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("scores.parquet", "expected an address of Zarr"),
        ("dump.zarr/inside.zarr", "is, holds or lies inside the source"),
        ("dump.zarr", "is, holds or lies inside the source"),
        ("in.zarr", "is, holds or lies inside the source"),
    ],
)
def test_an_output_that_cannot_be_is_one_line_and_exit_2(output, message, bucket, tmp_path):
    source = bucket.upload(_dump(tmp_path), "in.zarr/dump.zarr" if output == "in.zarr" else "dump.zarr")
    before = bucket.all_keys()

    outcome = _score(source, bucket.url(output))

    assert outcome.code == 2
    assert message in outcome.err
    assert bucket.all_keys() == before


def test_no_such_bucket_is_one_line(bucket, tmp_path):
    outcome = _score(_dump(tmp_path), "s3://nobody-has-this/scores.zarr")

    assert outcome.code == 2
    assert "there is no bucket 'nobody-has-this'; expected one that is there." in outcome.err


class TestWhatIsThere:
    """`status` and `verify` of an output in a store."""

    @pytest.fixture
    def output(self, bucket, tmp_path):
        assert _score(_dump(tmp_path), bucket.url("scores.zarr")).code == 0
        return bucket.url("scores.zarr")

    def test_its_commits_and_rows_are_told(self, output):
        found = json.loads(softmax_dask("status", output, "--json").out)

        assert (found["rows"], [commit["new_rows"] for commit in found["commits"]]) == (103, [103])
        assert found["open"] is found["running"] is None

    def test_who_is_writing_is_told(self, bucket, output):
        facts = {"run": "r1", "host": "elsewhere", "pid": 7, "started": "before", "expires": time.time() + 30}
        bucket.put("scores.zarr.job/lock", json.dumps(facts).encode())

        assert "run r1 on elsewhere, pid 7" in softmax_dask("status", output).out

    def test_it_is_as_it_was_written(self, bucket, output):
        outcome = softmax_dask("verify", output, "--against-input", "--json")

        found = json.loads(outcome.out)
        objects = _in_bucket(bucket, "scores.zarr")
        assert (found["rows"], found["objects"]) == (103, len(objects))
        assert found["bytes_read"] == sum(map(len, objects.values()))
        assert found["recomputed"] >= 1

    @pytest.mark.parametrize(
        ("damage", "told"),
        [
            (lambda bucket, key: bucket.put(key, bucket.get(key)[::-1]), "has other bytes"),
            (lambda bucket, key: bucket.put(key, b"short"), "has 5 bytes"),
            (lambda bucket, key: bucket.remove(key), "is not there"),
            (lambda bucket, key: bucket.put(f"{key}.strange", b""), "files; expected the"),
        ],
    )
    def test_what_is_damaged_is_exit_3_in_one_line(self, damage, told, bucket, output):
        damage(bucket, next(key for key in bucket.all_keys("scores.zarr/label/") if "/c" in key))

        outcome = softmax_dask("verify", output)

        assert outcome.code == 3
        assert told in outcome.err
        assert outcome.err.count("\n") == 1

    @pytest.mark.parametrize("verb", ["status", "verify"])
    @pytest.mark.parametrize("address", ["s3://nobody-has-this/scores.zarr", "s3://{bucket}/nothing.zarr"])
    def test_where_nothing_is_it_is_exit_2_in_one_line(self, verb, address, bucket):
        outcome = softmax_dask(verb, address.format(bucket=bucket.name))

        assert outcome.code == 2
        assert outcome.err.count("\n") == 1
        assert "expected" in outcome.err

    @pytest.mark.usefixtures("new_connections")
    @pytest.mark.parametrize("verb", ["status", "verify"])
    def test_the_store_can_be_told(self, verb, output, monkeypatch):
        endpoint = os.environ["AWS_ENDPOINT_URL"]
        monkeypatch.delenv("AWS_ENDPOINT_URL")

        assert softmax_dask(verb, output, "--storage-option", f"endpoint_url={endpoint}").code == 0
        refused = softmax_dask(verb, output, "--storage-option", "secret=x")

        assert refused.code == 2
        assert "is a credential; expected none" in refused.err


class TestTheDeadWakeUp:
    """A run that was thought dead, and goes on after another one has taken its lease, and committed."""

    @pytest.fixture
    def source(self, tmp_path):
        """A dump that grows while the first run publishes."""
        return dumps.zarr_array(tmp_path / "dump", dumps.logits(120)[:103], chunks=(10, 5))

    def _overtake(self, bucket, source):
        """Another run, after the dump has grown, which ends well."""
        array = zarr.open_array(source)
        array.resize((120, 5))
        array[100:] = dumps.logits(120)[100:]
        _forget_lease(bucket)
        done = run_alone("score", source, bucket.url("scores.zarr"), "--columns", "label,probabilities")
        assert done.code == 0, done.err

    @pytest.mark.parametrize("step", [pytest.param("publish", marks=pytest.mark.long), "_copy"])
    def test_between_its_decision_and_its_end_it_changes_nothing_of_what_came_after(
        self, step, bucket, source, tmp_path, monkeypatch
    ):
        later: dict[str, bytes] = {}
        real = getattr(places.Copied, step)

        def woken(place: Any, *arguments: Any) -> Any:
            if not later:
                self._overtake(bucket, source)
                later.update(_in_bucket(bucket, "scores.zarr"))
            return real(place, *arguments)

        monkeypatch.setattr(places, "_COPIES_AT_ONCE", 1)
        monkeypatch.setattr(places.Copied, step, woken)

        outcome = _score(source, bucket.url("scores.zarr"))

        assert outcome.code in (0, AGAIN), outcome.err
        assert _in_bucket(bucket, "scores.zarr") == later
        found = zarr.open_group(bucket.download("scores.zarr", tmp_path / "copy"), mode="r")
        np.testing.assert_array_equal(found["label"][:], dumps.logits(120).argmax(axis=1))
        assert "up to date" in _score(source, bucket.url("scores.zarr")).out

    def test_what_it_leaves_in_the_stage_is_removed_by_the_next_run(self, bucket, source):
        _score(source, bucket.url("scores.zarr"))
        plan = next(key for key in bucket.all_keys("scores.zarr.job/journal-")).split("/")[1][8:24]
        bucket.put(f"scores.zarr.job/stage-{plan}/label/c.0", b"late")

        outcome = _score(source, bucket.url("scores.zarr"))

        assert "up to date" in outcome.out
        assert bucket.all_keys("scores.zarr.job/stage-") == []


def test_no_credential_is_in_any_object(bucket, tmp_path):
    _score(_dump(tmp_path), bucket.url("scores.zarr"), "--storage-option", "region=us-east-1")

    assert [key for key in bucket.all_keys() if CANARY.encode() in bucket.get(key)] == []


def test_the_store_goes_away_as_a_storage_does(bucket, proxy, tmp_path):
    proxy.spoil("PUT", ".job/stage-", faults.says(500), reaches=False)

    with pytest.raises(StorageFailedError, match="cannot be written now"):
        score(_dump(tmp_path), bucket.url("scores.zarr"))
