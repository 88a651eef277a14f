"""The commands that pages show of object stores, run beside one."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from softmax_dask_pipelines import sample
from softmax_dask_pipelines.config import read_config
from tests.pipelines.command import Outcome, softmax_dask
from tests.pipelines.objects.buckets import Bucket

ROOT = Path(__file__).parents[3]
PAGES = ("docs/object_stores.md",)


@pytest.fixture
def dumps_bucket(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """The bucket `dumps` with what the pages speak of."""
    monkeypatch.setattr(sample, "ROWS", 500)
    monkeypatch.chdir(tmp_path)
    named = replace(bucket, name="dumps")
    named.make()
    for name in ("logits.zarr", "logits.parquet"):
        sample.write_sample(Path(name))
    named.upload(Path("logits.zarr"), "2026-11-26/logits.zarr")
    named.upload(Path("logits.parquet"), "2026-11-26/part-0.parquet")
    return named


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("dumps_bucket")
def test_commands_run(page, proxy):
    lines = re.findall(r"^(?:\$ )?softmax-dask (.+)$", (ROOT / page).read_text(), re.MULTILINE)

    outcomes = [_outcome_of(line, number, proxy.url) for number, line in enumerate(lines)]

    assert lines
    assert [(outcome.code, outcome.err) for outcome in outcomes] == [(0, "")] * len(lines)


@pytest.mark.usefixtures("dumps_bucket")
def test_the_config_that_we_ship_runs(proxy, tmp_path):
    text = (ROOT / "configs/s3.yaml").read_text()
    Path("configs").mkdir()
    Path("configs/s3.yaml").write_text(text.replace("https://minio.example.org:9000", proxy.url))
    commands = re.findall(r"#   softmax-dask (\S+ \S+)", text)

    outcomes = [softmax_dask(*command.split()) for command in commands]

    assert [command.split()[0] for command in commands] == ["plan", "run"]
    assert [(outcome.code, outcome.err) for outcome in outcomes] == [(0, "")] * 2
    assert pq.read_table(tmp_path / "decisions.parquet").num_rows == 500


def test_the_config_that_we_ship_is_valid_as_it_stands():
    # As written, with the server of nobody: keys and values alone.
    assert read_config(str(ROOT / "configs/s3.yaml")).source.path == "s3://dumps/2026-11-26/logits.zarr"


def _outcome_of(line: str, number: int, url: str) -> Outcome:
    """Each with an output of its own: pages show alternatives."""
    words = shlex.split(line.replace("https://minio.example.org:9000", url).replace("decisions.", f"{number}."))
    return softmax_dask(*words)
