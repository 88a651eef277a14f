"""OUTPUT.job may be somebody's own folder: a run clears nothing there but what a run has made."""

from pathlib import Path

import pytest

from tests.pipelines import dumps
from tests.pipelines.command import softmax_dask, tree

EXISTS = 4
FOREIGN = ("commit-000001.json", "plan-0123456789abcdef.json")
"""Names that only a run's own documents have."""
OTHERS = ("thesis.tex", "stage/thesis.tex", "stage-0123456789abcdef/thesis.tex", "journal-0123456789abcdef.jsonl")


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
@pytest.mark.parametrize("name", FOREIGN)
def test_what_no_run_has_made_is_refused_and_stays(source, output, tmp_path, flags, name):
    job = Path(f"{output}.job")
    _write(job / name)
    before = tree(tmp_path)

    outcome = softmax_dask("score", source, output, *flags)

    assert outcome.code == EXISTS
    assert outcome.err.startswith(f"Error: {job / name}: was not left there by a run that is known; expected nothing")
    assert outcome.err.count("\n") == 1
    assert tree(tmp_path) == before


@pytest.mark.parametrize(("version", "age"), [(0, "an older"), (2, "a newer")])
def test_a_document_of_another_version_is_refused(source, output, version, age):
    assert softmax_dask("score", source, output).code == 0
    commit = Path(f"{output}.job", "commit-000001.json")
    commit.write_text(commit.read_text().replace('"format": 1', f'"format": {version}'))

    outcome = softmax_dask("score", source, output)

    assert outcome.code == EXISTS
    assert f"has format {version}, of {age} version of this program; expected 1." in outcome.err


@pytest.mark.parametrize("flags", [(), ("--replace",)], ids=["", "replace"])
@pytest.mark.parametrize("name", OTHERS)
def test_files_of_other_names_are_left_alone(source, output, flags, name):
    _write(Path(f"{output}.job", name))

    outcome = softmax_dask("score", source, output, *flags)

    assert outcome.code == 0, outcome.err
    assert Path(f"{output}.job", name).read_text() == "years of work"


def test_a_link_to_a_folder_of_other_things_is_not_cleared(source, output, tmp_path):
    _write(tmp_path / "mine" / "thesis.tex")
    Path(f"{output}.job").mkdir()
    Path(f"{output}.job", "stage-0123456789abcdef").symlink_to(tmp_path / "mine")

    assert softmax_dask("score", source, output).code == 0

    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"
