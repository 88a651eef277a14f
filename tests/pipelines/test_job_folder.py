"""OUTPUT.job may be somebody's own folder: a run clears nothing there but what a run has made."""

import os
from pathlib import Path

import pytest

from tests.pipelines import dumps
from tests.pipelines.command import softmax_dask, tree

EXISTS = 4
FOREIGN = [
    ("stage/thesis.tex", "stage"),
    ("stage", "stage"),
    ("staged/thesis.tex", "staged"),
    ("swap/old/thesis.tex", "swap"),
    ("swap/thesis.tex", "swap"),
    ("unfinished/thesis.tex", "unfinished"),
    ("unfinished", "unfinished"),
]
"""A file in OUTPUT.job, and what the message names."""


@pytest.fixture
def source(tmp_path):
    return dumps.zarr_array(tmp_path / "in.zarr", dumps.logits(), chunks=(10, 5))


@pytest.fixture(params=["out.zarr", "out.parquet"])
def output(request, tmp_path):
    return tmp_path / request.param


def _write(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("years of work")


@pytest.mark.parametrize("flags", [(), ("--replace",)], ids=["", "replace"])
@pytest.mark.parametrize(("name", "shown"), FOREIGN)
def test_what_no_run_has_made_is_refused_and_stays(source, output, tmp_path, flags, name, shown):
    job = Path(f"{output}.job")
    _write(job / name)
    before = tree(tmp_path)

    outcome = softmax_dask("score", source, output, *flags)

    assert outcome.code == EXISTS
    assert outcome.err.startswith(f"Error: {job / shown}: was not left there by a run that is known; expected nothing")
    assert outcome.err.count("\n") == 1
    assert tree(tmp_path) == before


def test_an_output_stays_where_its_replacement_is_refused(source, output, tmp_path):
    assert softmax_dask("score", source, output).code == 0
    stage = Path(f"{output}.job", "stage")
    stage.mkdir()
    (stage / "thesis.tex").write_text("years of work")
    before = tree(tmp_path)

    outcome = softmax_dask("score", source, output, "--replace")

    assert outcome.code == EXISTS
    assert tree(tmp_path) == before


def test_a_link_to_a_folder_of_other_things_is_not_cleared(source, output, tmp_path):
    _write(tmp_path / "mine" / "thesis.tex")
    Path(f"{output}.job").mkdir()
    Path(f"{output}.job", "stage").symlink_to(tmp_path / "mine")

    outcome = softmax_dask("score", source, output)

    assert outcome.code == EXISTS
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("flags", [(), ("--replace",)], ids=["", "replace"])
def test_files_of_other_names_are_left_alone(source, output, flags):
    _write(Path(f"{output}.job", "thesis.tex"))

    outcome = softmax_dask("score", source, output, *flags)

    assert outcome.code == 0, outcome.err
    assert sorted(os.listdir(f"{output}.job")) == ["runs", "thesis.tex"]


@pytest.mark.parametrize("name", ["stage", "swap", "unfinished"])
def test_empty_folders_are_nothing(source, output, name):
    Path(f"{output}.job", name).mkdir(parents=True)

    outcome = softmax_dask("score", source, output)

    assert outcome.code == 0, outcome.err
    assert os.listdir(f"{output}.job") == ["runs"]
