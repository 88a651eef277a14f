"""The configs that we ship validate and run as they stand; those of clusters run on threads of the CPU."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import zarr

from softmax_dask_pipelines import (
    CalibrateConfig,
    ConformalConfig,
    EvaluateConfig,
    JacobianConfig,
    ThresholdConfig,
    sample,
)
from softmax_dask_pipelines.config import read_config
from tests.pipelines.command import softmax_dask

CONFIGS = [path for path in sorted((Path(__file__).parents[2] / "configs").glob("*.yaml")) if path.stem != "s3"]
"""That of object stores is run beside one: tests/pipelines/objects/test_object_docs.py."""
FITS = ("calibrate", "threshold", "conformal")
"""Whose output is one document."""
HERE = ("--set", "cluster=local", "--set", "backend=cpu")
"""In place of clusters that are not here; one of Slurm is: tests/slurm."""
OF_CLUSTERS = {"local_processes", "slurm", "kubernetes", "gpu_cluster"}


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def config(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A config by the name that its own comments use, in a folder with a small sample at the path that it names."""
    monkeypatch.setattr(sample, "ROWS", 2000)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DUMPS", "dumps")
    monkeypatch.setenv("SCORES", "scores")
    os.symlink(request.param.parent, "configs")
    name = f"configs/{request.param.name}"
    sample.write_sample(Path(read_config(name).source.path))
    return name


def test_there_is_a_config_of_each_verb():
    of_threads = {"score_zarr", "score_parquet", "jacobian", "evaluate", "nightly", *FITS}

    assert of_threads | OF_CLUSTERS <= {path.stem for path in CONFIGS}


def test_it_validates(config):
    outcome = softmax_dask("plan", config)

    assert outcome.code == 0, outcome.err
    assert "2,000 rows x 100 classes" in outcome.out


def test_its_output_has_the_columns_that_it_lists(config):
    outcome = softmax_dask("run", config, *_changes(config))

    assert outcome.code == 0, outcome.err
    told = read_config(config)
    if isinstance(told, CalibrateConfig | ThresholdConfig | ConformalConfig):
        assert json.loads(Path(told.output.path).read_text())["format"].startswith("softmax-dask ")
        return
    if isinstance(told, EvaluateConfig):
        assert json.loads(Path("softmax-dask-demo/metrics.json").read_text())["rows"]["total"] == 2000
        return
    found = _columns(Path(told.output.path))
    columns, rows = (("jacobian", "row"), 200) if isinstance(told, JacobianConfig) else (told.columns, 2000)
    assert columns is not None
    assert set(columns) <= set(found)
    assert {len(values) for values in found.values()} == {rows}


def test_the_commands_in_its_comments_run(config):
    lines = Path(config).read_text().splitlines()
    commands = [line.partition("softmax-dask ")[2].partition("    ")[0] for line in lines if "#   softmax-dask" in line]

    outcomes = [softmax_dask(*command.split(), *_changes(config, command)) for command in commands]

    assert commands
    assert [(outcome.code, outcome.err) for outcome in outcomes] == [(0, "")] * len(commands)


def test_a_config_of_a_cluster_says_which(config):
    found = read_config(config)

    assert (Path(config).stem in OF_CLUSTERS) == (found.verb == "score" and found.cluster.kind != "local")


def _changes(config: str, command: str = "run") -> tuple[str, ...]:
    return HERE if Path(config).stem in OF_CLUSTERS and command.startswith("run") else ()


def _columns(output: Path) -> dict[str, Any]:
    if output.suffix == ".parquet":
        table = pq.read_table(output)
        return {name: table[name] for name in table.column_names}
    group = zarr.open_group(output, mode="r")
    return {name: group[name][:] for name in group if name != "class"}
