"""Dumps in an object store: read as local ones are, an error where the store does not give what it has."""

import pickle
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from softmax_dask_pipelines import open_logits, score
from softmax_dask_pipelines.errors import MissingChunkError, SourceUnavailableError
from softmax_dask_pipelines.sources import (
    SourceRequest,
    blocks,
    open_source,
    parquet_objects,
    range_file,
    read_ahead,
)
from tests.pipelines import dumps
from tests.pipelines.command import softmax_dask, tree
from tests.pipelines.objects import faults
from tests.pipelines.objects.buckets import Bucket

pytestmark = pytest.mark.filterwarnings("ignore::softmax_dask_pipelines.notices.NoteWarning")

Make = Callable[[Path], Path]

LAYOUTS: dict[str, tuple[Make, tuple[str, ...]]] = {
    "zarr-v3": (lambda p: dumps.zarr_group(p / "dump.zarr", dumps.logits(), chunks=(10, 5)), ()),
    "zarr-v2": (lambda p: dumps.zarr_group(p / "dump.zarr", dumps.logits(), zarr_format=2, chunks=(10, 2)), ()),
    "zarr-shards": (lambda p: dumps.zarr_group(p / "dump.zarr", dumps.logits(), chunks=(5, 5), shards=(20, 5)), ()),
    "zarr-array": (lambda p: dumps.zarr_array(p / "dump", dumps.logits(), chunks=(10, 5)), ()),
    "zarr-more-axes": (
        lambda p: dumps.zarr_array(p / "dump", dumps.logits(rows=105).reshape(15, 7, 5), chunks=(4, 7, 5)),
        (),
    ),
    "zarr-by-class": (
        lambda p: dumps.zarr_by_class(p / "dump.zarr", dumps.logits(), chunks=(5, 10)),
        ("--class-axis", "0"),
    ),
    "parquet-file": (lambda p: dumps.parquet_file(p / "dump.parquet", _table(), row_group_size=20), ()),
    "parquet-folder": (lambda p: dumps.parquet_folder(p / "dump", _table(), [30, 60], row_group_size=20), ()),
    "parquet-keys": (lambda p: _by_day(p / "dump"), ()),
}


def _table() -> Any:
    return dumps.parquet_table({"logits": dumps.fixed_lists(dumps.logits())})


def _by_day(path: Path) -> Path:
    for day in (1, 2):
        dumps.parquet_folder(path / f"day={day}", _table(), [50])
    return path


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, tuple[str, ...]]:
    make, flags = LAYOUTS[request.param]
    return make(tmp_path), flags


def _scores(output: Path) -> Any:
    table = pq.read_table(output)
    return table.replace_schema_metadata(None).to_pydict()


def test_a_dump_gives_what_its_local_copy_gives(layout, bucket, tmp_path):
    path, flags = layout
    address = bucket.upload(path, f"some/folder/{path.name}")

    outcome = softmax_dask("score", address, tmp_path / "far.parquet", *flags)

    assert (outcome.code, outcome.err) == (0, "")
    assert softmax_dask("score", path, tmp_path / "near.parquet", *flags).code == 0
    assert str(_scores(tmp_path / "far.parquet")) == str(_scores(tmp_path / "near.parquet"))  # with NaN in it


def test_inspect_says_the_same_of_both(layout, bucket):
    path, flags = layout
    address = bucket.upload(path, path.name)

    far, near = softmax_dask("inspect", address, *flags), softmax_dask("inspect", path, *flags)

    without_memory = [
        [line for line in text.out.replace(where, "DUMP").splitlines() if not line.startswith("memory")]
        for text, where in ((far, address), (near, str(path)))
    ]
    assert far.code == 0, far.err
    assert without_memory[0] == without_memory[1]


def test_a_pattern_matches_keys(bucket, tmp_path):
    bucket.upload(_by_day(tmp_path / "dump"), "dump")
    bucket.put("dump/day=1/_temporary/part-0.parquet", b"not whole")

    scored = score(bucket.url("dump/day=*/part-?.parquet"), tmp_path / "out.parquet", columns=["label"])

    assert scored.tally.rows == 206
    assert set(_scores(tmp_path / "out.parquet")) == {"id", "day", "target", "label", "commit"}


def test_logits_open_as_a_dask_array(bucket, tmp_path):
    data = dumps.logits()
    address = bucket.upload(dumps.zarr_array(tmp_path / "dump", data, chunks=(10, 5)), "dump")

    found = open_logits(address, storage_options={"region": "eu-central-1"}).compute()

    np.testing.assert_array_equal(found, data)


def test_a_source_works_in_another_process(bucket, proxy, tmp_path):
    address = bucket.upload(dumps.zarr_group(tmp_path / "dump", dumps.logits(), chunks=(10, 5)), "dump")
    source = pickle.loads(pickle.dumps(open_source(SourceRequest(address))))
    proxy.forget()

    blocks = list(source.read(0, 103))

    np.testing.assert_array_equal(np.concatenate([block.logits for block in blocks]), dumps.logits())
    assert not [request for request in proxy.requests if request.startswith("HEAD")]


def test_chunks_are_listed_and_not_asked_for_one_by_one(bucket, proxy, tmp_path):
    address = bucket.upload(dumps.zarr_array(tmp_path / "dump", dumps.logits(), chunks=(2, 5)), "dump")

    score(address, tmp_path / "out.parquet")

    of_chunks = [request for request in proxy.requests if "/dump/c/" in request]
    assert len(set(of_chunks)) == 52
    assert {request.split()[0] for request in of_chunks} == {"GET"}
    assert len(proxy.requests) < 52 + 20


def test_several_blocks_are_asked_for_at_a_time(bucket, proxy, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "READ_BYTES", 400)
    address = bucket.upload(dumps.zarr_array(tmp_path / "dump", dumps.logits(), chunks=(20, 5)), "dump")
    late = faults.Late(0.1)
    proxy.spoil("GET", "/dump/c/", late)
    source = open_source(SourceRequest(address))

    found = np.concatenate([block.logits for block in source.read(0, 103)])

    np.testing.assert_array_equal(found, dumps.logits())
    assert late.most >= 3
    assert source.facts.read_overhead_bytes >= 8 * 20 * 5 * 4


def test_large_blocks_are_asked_for_one_at_a_time(bucket, proxy, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "READ_BYTES", 400)
    monkeypatch.setattr(read_ahead, "_FAR_BYTES", 399)
    address = bucket.upload(dumps.zarr_array(tmp_path / "dump", dumps.logits(), chunks=(20, 5)), "dump")
    late = faults.Late(0.02)
    proxy.spoil("GET", "/dump/c/", late)

    list(open_source(SourceRequest(address)).read(0, 103))

    assert late.most == 1


def test_a_block_that_fails_is_an_error_where_its_turn_comes(bucket, proxy, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "READ_BYTES", 400)
    address = bucket.upload(dumps.zarr_array(tmp_path / "dump", dumps.logits(), chunks=(20, 5)), "dump")
    source = open_source(SourceRequest(address))
    proxy.spoil("GET", "/dump/c/2/0", faults.says(500))

    rows = source.read(0, 103)

    np.testing.assert_array_equal(next(rows).logits, dumps.logits()[:20])
    np.testing.assert_array_equal(next(rows).logits, dumps.logits()[20:40])
    with pytest.raises(SourceUnavailableError):
        next(rows)


def test_a_row_group_is_fetched_once(bucket, proxy, tmp_path):
    address = bucket.upload(dumps.parquet_file(tmp_path / "dump.parquet", _table(), row_group_size=20), "dump.parquet")
    source = open_source(SourceRequest(address))
    proxy.forget()

    rows = sum(len(block.logits) for block in source.read(0, 103))

    assert rows == 103
    assert len([request for request in proxy.requests if request.startswith("GET")]) == 1  # all are in one block


def test_row_groups_to_come_are_fetched_several_at_a_time_and_once(bucket, proxy, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_objects, "BLOCK_BYTES", 500)
    monkeypatch.setattr(range_file, "HELD_BYTES", 3000)
    address = bucket.upload(dumps.parquet_file(tmp_path / "dump.parquet", _table(), row_group_size=20), "dump.parquet")
    source = open_source(SourceRequest(address))
    proxy.forget()
    late = faults.Late(0.1)
    proxy.spoil("GET", "dump.parquet", late)

    found = np.concatenate([block.logits for block in source.read(20, 103)])

    np.testing.assert_array_equal(found, dumps.logits()[20:])
    assert late.most >= 3
    fetched = [request for request in proxy.requests if request.startswith("GET")]
    size = (tmp_path / "dump.parquet").stat().st_size
    assert len(fetched) <= -(-size // 500)


class TestWhatIsNew:
    def test_only_new_files_are_scored(self, bucket, tmp_path):
        folder = dumps.parquet_folder(tmp_path / "dump", _table(), [30, 60])
        address, output = bucket.upload(folder, "dump"), tmp_path / "out.parquet"
        score(address, output)
        dumps.parquet_file(folder / "part-99.parquet", _table().slice(0, 7))
        bucket.upload(folder / "part-99.parquet", "dump/part-99.parquet")

        again = score(address, output)

        assert again.tally.rows == 7
        assert score(address, output).is_up_to_date
        assert len(_scores(output)["label"]) == 110

    def test_only_new_rows_are_scored(self, bucket, tmp_path):
        data = dumps.logits(120)
        address = bucket.upload(dumps.zarr_array(tmp_path / "a", data[:103], chunks=(10, 5)), "dump")
        output = tmp_path / "out.parquet"
        score(address, output)
        bucket.upload(dumps.zarr_array(tmp_path / "b", data, chunks=(10, 5)), "dump")

        again = score(address, output)

        assert again.tally.rows == 17

    def test_an_object_that_was_written_again_has_changed(self, bucket, tmp_path):
        address = bucket.upload(dumps.zarr_array(tmp_path / "a", dumps.logits(), chunks=(10, 5)), "dump")
        score(address, tmp_path / "out.parquet")
        bucket.upload(dumps.zarr_array(tmp_path / "b", -dumps.logits(), chunks=(10, 5)), "dump")

        outcome = softmax_dask("score", address, tmp_path / "out.parquet")

        assert outcome.code == 3
        assert "were changed" in outcome.err


FAULTS = {
    "503": faults.says(503, "SlowDown"),
    "503-of-a-proxy": faults.says(503),
    "500": faults.says(500, "InternalError"),
    "reset": faults.reset,
    "truncated": faults.truncated,
    "short": faults.short,
    "404": faults.says(404, "NoSuchKey"),
}


SPOILT = [
    *(("zarr-v3", fault) for fault in FAULTS),
    *(("zarr-shards", fault) for fault in ("truncated", "404")),
    *(("parquet-file", fault) for fault in ("500", "short", "404")),
]


@pytest.mark.parametrize(("kind", "fault"), SPOILT)
def test_an_answer_that_is_spoilt_costs_an_attempt_and_no_row(kind, fault, bucket, proxy, tmp_path):
    path = LAYOUTS[kind][0](tmp_path)
    address = bucket.upload(path, path.name)
    part = "/logits/c/" if kind.startswith("zarr") else "/dump.parquet"
    rule = proxy.spoil("GET", part, FAULTS[fault], times=2)

    outcome = softmax_dask("score", address, tmp_path / "far.parquet")

    assert (outcome.code, rule.met) == (0, 2), outcome.err
    score(path, tmp_path / "near.parquet")
    assert str(_scores(tmp_path / "far.parquet")) == str(_scores(tmp_path / "near.parquet"))  # with NaN in it


@pytest.mark.parametrize("missing_chunks", ["error", "fill"])
def test_a_chunk_that_is_listed_and_not_there_is_an_error_and_no_fill(missing_chunks, bucket, proxy, tmp_path):
    address = bucket.upload(dumps.zarr_array(tmp_path / "dump", dumps.logits(), chunks=(10, 5)), "dump")
    proxy.spoil("GET", "/dump/c/3/0", faults.says(404, "NoSuchKey"))

    outcome = softmax_dask("score", address, tmp_path / "out.parquet", "--missing-chunks", missing_chunks)

    assert outcome.code == 75
    assert "/dump/c/3/0: was listed, and is not there; expected" in outcome.err
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize("name", ["id", "target"])
def test_nor_is_one_of_ids_or_targets(name, bucket, proxy, tmp_path):
    address = bucket.upload(dumps.zarr_group(tmp_path / "dump", dumps.logits(), chunks=(10, 5)), "dump")
    proxy.spoil("GET", f"/dump/{name}/c/0", faults.says(404, "NoSuchKey"))

    with pytest.raises(SourceUnavailableError, match="was listed, and is not there"):
        score(address, tmp_path / "out.parquet")


@pytest.mark.parametrize("name", ["id", "target"])
def test_nor_is_their_metadata_so_that_they_would_be_left_out(name, bucket, proxy, tmp_path):
    address = bucket.upload(dumps.zarr_group(tmp_path / "dump", dumps.logits(), chunks=(10, 5)), "dump")
    proxy.spoil("", f"/dump/{name}/zarr.json", faults.says(404, "NoSuchKey"))

    with pytest.raises(SourceUnavailableError, match=f"{name}/zarr.json: was listed, and is not there"):
        score(address, tmp_path / "out.parquet")


def test_a_chunk_that_nobody_has_written_is_missing(bucket, tmp_path):
    address = bucket.upload(dumps.zarr_array(tmp_path / "dump", dumps.logits(), chunks=(10, 5)), "dump")
    bucket.remove("dump/c/3/0")

    with pytest.raises(MissingChunkError, match="chunk c/3/0 of the logits is not there"):
        score(address, tmp_path / "out.parquet")
    filled = score(address, tmp_path / "out.parquet", missing_chunks="fill")

    assert filled.tally.rows == 103


@pytest.mark.parametrize(("kind", "method"), [("zarr-v3", "GET"), ("parquet-file", "GET"), ("parquet-file", "HEAD")])
def test_a_store_that_is_away_is_exit_75(kind, method, bucket, proxy, tmp_path):
    path = LAYOUTS[kind][0](tmp_path)
    address = bucket.upload(path, path.name)
    rule = proxy.spoil(method, "/dump", faults.says(500, "InternalError"), reaches=False)

    outcome = softmax_dask("score", address, tmp_path / "out.parquet")

    assert (outcome.code, rule.met > 0) == (75, True)
    assert outcome.err.splitlines()[-1].startswith(f"Error: {address}")
    assert "expected a store that answers" in outcome.err
    assert not (tmp_path / "out.parquet").exists()


def test_nobody_listening_is_exit_75(bucket, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}"

        outcome = softmax_dask(
            "score", bucket.url("dump"), tmp_path / "out.parquet", "--storage-option", f"endpoint_url={nobody}"
        )

    assert outcome.code == 75
    assert "cannot be read now (Could not connect" in outcome.err


def test_the_next_command_goes_on_when_the_store_is_back(bucket, proxy, tmp_path):
    address = bucket.upload(dumps.zarr_array(tmp_path / "dump", dumps.logits(), chunks=(10, 5)), "dump")
    proxy.spoil("GET", "/dump/c/10/0", faults.says(500))
    assert softmax_dask("score", address, tmp_path / "out.parquet").code == 75
    proxy.forget()

    assert softmax_dask("score", address, tmp_path / "out.parquet").code == 0


def _wrong(bucket: Bucket) -> dict[str, tuple[str, str]]:
    return {
        "no bucket": ("s3://nobody-has-this/dump.zarr", "there is no such bucket; expected one that is there."),
        "no key": (bucket.url("dmp"), "there is no 'dmp' in"),
        "no match": (bucket.url("dump/*.parquet"), "matches no Parquet file; expected at least one."),
        "no key in the address": (f"s3://{bucket.name}", "expected an address such as s3://bucket/"),
        "a way out": (bucket.url("dump/../other"), "expected an address such as s3://bucket/"),
        "another scheme": ("gs://bucket/dump.zarr", "expected a local path, or an address such as s3://bucket/"),
    }


@pytest.mark.parametrize(
    "case", ["no bucket", "no key", "no match", "no key in the address", "a way out", "another scheme"]
)
def test_a_wrong_address_is_one_line_and_exit_2(case, bucket, tmp_path):
    bucket.upload(dumps.zarr_array(tmp_path / "dump", dumps.logits(), chunks=(10, 5)), "dump")
    address, message = _wrong(bucket)[case]
    before = tree(tmp_path)

    outcome = softmax_dask("score", address, tmp_path / "out.parquet")

    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert tree(tmp_path) == before


def test_a_key_that_is_nearly_right_is_named(bucket, tmp_path):
    bucket.put("dumps/logits.parquet", b"PAR1")

    outcome = softmax_dask("inspect", bucket.url("dumps/logit.parquet"))

    assert outcome.err.endswith("Did you mean 'logits.parquet'?\n")


@pytest.mark.parametrize("key", ["dump.npy", "dump.zarr.zip", "dump.csv"])
def test_what_is_read_from_disks_only_is_refused(key, bucket):
    bucket.put(key, b"numbers")

    outcome = softmax_dask("inspect", bucket.url(key))

    assert outcome.code == 3
    assert outcome.err.startswith(f"Error: {bucket.url(key)}: is ")


def test_a_dump_that_is_not_there_yet_is_as_the_config_says(bucket, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DUMPS", bucket.url("dumps"))
    Path("run.yaml").write_text(
        'source: {path: "{env:DUMPS}/{date:%Y-%m-%d}/logits.zarr"}\noutput: {path: out.zarr}\non_missing: retry\n'
    )

    outcome = softmax_dask("run", "run.yaml", "--date", "2026-11-26")

    assert outcome.code == 75
    assert "/dumps/2026-11-26/logits.zarr: there is no 'logits.zarr'" in outcome.err


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", ""])
def test_a_store_that_refuses_is_exit_2(code, bucket, proxy, tmp_path):
    address = bucket.upload(dumps.zarr_array(tmp_path / "dump", dumps.logits(), chunks=(10, 5)), "dump")
    proxy.spoil("GET", "/dump/c/3/0", faults.says(403, code))

    outcome = softmax_dask("score", address, tmp_path / "out.parquet")

    assert outcome.code == 2
    assert outcome.err.startswith(f"Error: {address}/c/3/0: the store refuses (")
    assert outcome.err.count("\n") == 1


@pytest.mark.usefixtures("new_connections")
def test_no_credentials_is_said_in_one_line(bucket, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)

    outcome = softmax_dask("inspect", bucket.url("dump"))

    assert outcome.code == 2
    assert "no credentials are found (Unable to locate credentials); expected some." in outcome.err


def test_a_profile_that_is_not_there_is_said_in_one_line(bucket):
    outcome = softmax_dask("inspect", bucket.url("dump"), "--storage-option", "profile=nobody")

    assert outcome.code == 2
    assert "The config profile (nobody) could not be found" in outcome.err


@pytest.mark.usefixtures("new_connections")
def test_a_public_bucket_needs_no_credentials(bucket, monkeypatch, tmp_path):
    address = bucket.upload(dumps.zarr_array(tmp_path / "dump", dumps.logits(), chunks=(10, 5)), "dump")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)

    outcome = softmax_dask("inspect", address, "--storage-option", "anon=true")

    assert outcome.code == 0, outcome.err


def test_without_s3fs_the_extra_is_named(bucket, monkeypatch):
    monkeypatch.setattr("softmax_dask_pipelines.addresses.find_spec", lambda _: None)

    outcome = softmax_dask("inspect", bucket.url("dump"))

    assert outcome.code == 2
    assert "pip install 'softmax-dask[s3]'" in outcome.err
