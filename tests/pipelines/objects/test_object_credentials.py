"""Credentials are found in the environment, and written nowhere."""

from pathlib import Path

import pytest

from tests.pipelines import dumps
from tests.pipelines.command import run_alone, softmax_dask
from tests.pipelines.objects import faults
from tests.pipelines.objects.buckets import CANARY

NAMES = ("key", "secret", "token", "aws_secret_access_key", "password", "sas_token")


def _is_somewhere(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]


@pytest.mark.parametrize("name", NAMES)
def test_a_credential_in_a_config_is_refused_and_not_shown(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(
        f"source:\n  path: s3://bucket/dump\n  storage_options:\n    {name}: {CANARY}\noutput: {{path: out.zarr}}\n"
    )

    outcome = softmax_dask("--debug", "run", "run.yaml")

    assert outcome.code == 2
    start = f"Error: run.yaml:4: source.storage_options.{name}: is a credential; expected none in a config."
    assert start in outcome.err
    assert "AWS_ACCESS_KEY_ID" in outcome.err
    assert CANARY not in outcome.out + outcome.err


@pytest.mark.parametrize(
    "options",
    [f"{{client_kwargs: {{aws_secret_access_key: {CANARY}}}}}", f"[{CANARY}]", CANARY, f"{{profile: [{CANARY}]}}"],
)
def test_nor_is_one_in_a_place_of_its_own_making(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(
        f"source: {{path: s3://bucket/dump, storage_options: {options}}}\noutput: {{path: out.zarr}}\n"
    )

    outcome = softmax_dask("--debug", "run", "run.yaml")

    assert outcome.code == 2
    assert "run.yaml:1: source.storage_options" in outcome.err
    assert CANARY not in outcome.out + outcome.err


@pytest.mark.parametrize("flag", [f"secret={CANARY}", f"{CANARY}", f"endpoint_url=http://u:{CANARY}@host"])
def test_nor_in_a_flag(flag, tmp_path):
    outcome = softmax_dask("--debug", "inspect", "s3://bucket/dump", "--storage-option", flag)

    assert outcome.code == 2
    assert CANARY not in outcome.out + outcome.err


@pytest.mark.parametrize(
    "address",
    [
        f"s3://user:{CANARY}@bucket/dump",
        f"s3://{CANARY}@bucket/dump",
        f"s3://bucket/dump?X-Amz-Signature={CANARY}",
        f"s3://bucket/dump?AWSAccessKeyId=a&Signature={CANARY}",
        f"https://bucket.s3.amazonaws.com/dump?X-Amz-Security-Token={CANARY}",
    ],
)
@pytest.mark.parametrize("end", ["source", "output"])
def test_nor_in_an_address(address, end, tmp_path):
    paths = {"source": tmp_path / "dump.zarr", "output": tmp_path / "out.zarr"} | {end: address}

    outcome = softmax_dask("--debug", "score", paths["source"], paths["output"])

    assert outcome.code == 2
    assert outcome.err.splitlines()[-1].startswith(f"Error: {end.upper()}: is ")
    assert CANARY not in outcome.out + outcome.err


@pytest.mark.parametrize(
    "spoilt", ["nothing", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InternalError"]
)
def test_none_appears_anywhere(spoilt, bucket, proxy, tmp_path):
    address = bucket.upload(dumps.zarr_array(tmp_path / "dump", dumps.logits(), chunks=(10, 5)), "dump")
    if spoilt != "nothing":
        proxy.spoil("GET", "/dump/c/3/0", faults.says(500 if spoilt == "InternalError" else 403, spoilt))

    outcome = softmax_dask("--debug", "score", address, tmp_path / "out.parquet", "--json")

    assert (outcome.code == 0) == (spoilt == "nothing")
    assert CANARY not in outcome.out + outcome.err
    assert list((tmp_path / "out.parquet.job").rglob("*.json")) or outcome.code == 2
    assert _is_somewhere(tmp_path) == []


def test_nor_with_every_warning_and_in_a_process_of_its_own(bucket, proxy, tmp_path):
    address = bucket.upload(dumps.zarr_array(tmp_path / "dump", dumps.logits(), chunks=(10, 5)), "dump")
    proxy.spoil("GET", "/dump/c/3/0", faults.says(403, "AccessDenied"))

    outcome = run_alone("--debug", "score", address, tmp_path / "out.parquet", before=["env", "PYTHONWARNINGS=always"])

    assert outcome.code == 2
    assert "Traceback" in outcome.err
    assert CANARY not in outcome.out + outcome.err
