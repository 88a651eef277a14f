"""Warnings: on the command line a line, whatever Python was told to do with them; in Python what Python says."""

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softmax_dask import SingleClassWarning, SoftmaxDaskWarning, TopKWarning
from softmax_dask_pipelines import score
from softmax_dask_pipelines.notices import ManifestWarning, NoteWarning, RoomWarning
from tests.pipelines import dumps
from tests.pipelines.command import PROGRAM, Outcome, run_alone, tree

DASK = (sys.executable, "-m", "dask", "softmax")

# Another package that warns while the verb runs, of what Python shows and of what it hides.
NOISY = """
import warnings
from softmax_dask_pipelines import job
from softmax_dask_pipelines.cli import main

def noisy(config, prepare=job.prepare, **options):
    warnings.warn("theirs shown", UserWarning)
    warnings.warn_explicit("theirs hidden", DeprecationWarning, "theirs.py", 1, module="theirs")
    return prepare(config, **options)

job.prepare = noisy
main(prog_name="softmax-dask")
"""


def _one_class(folder: Path) -> tuple[Path, dict[str, Any]]:
    return dumps.zarr_array(folder / "in.zarr", dumps.logits(classes=1), chunks=(10, 1)), {}


def _few_classes(folder: Path) -> tuple[Path, dict[str, Any]]:
    return dumps.zarr_array(folder / "in.zarr", dumps.logits(classes=3), chunks=(10, 3)), {"top_k": 9}


def _probabilities(folder: Path) -> tuple[Path, dict[str, Any]]:
    return dumps.zarr_array(folder / "in.zarr", np.full((20, 4), 0.25, np.float32), chunks=(10, 4)), {}


def _no_manifest(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The place of its folder is taken."""
    (folder / "out.zarr.job").mkdir()
    (folder / "out.zarr.job" / "runs").write_text("in the way")
    return dumps.zarr_array(folder / "in.zarr", dumps.logits(), chunks=(10, 5)), {}


CASES: dict[str, tuple[Callable[[Path], tuple[Path, dict[str, Any]]], type[Warning], str]] = {
    "one class": (_one_class, SingleClassWarning, "Did you mean a sigmoid"),
    "few classes": (_few_classes, TopKWarning, "there are 3 classes"),
    "probabilities": (_probabilities, NoteWarning, "are they probabilities already"),
    "no manifest": (_no_manifest, ManifestWarning, "its manifest is not written"),
}


def _run(folder: Path, case: str, setting: str, program: tuple[str, ...] = PROGRAM) -> Outcome:
    source, options = CASES[case][0](folder)
    flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    env = os.environ | {"PYTHONWARNINGS": setting}
    return run_alone("score", source, folder / "out.zarr", *flags, "--quiet", program=program, env=env)


SETTINGS = [
    *((case, "error") for case in CASES),
    *(("one class", setting) for setting in ("", "ignore")),
    *(
        pytest.param(case, setting, marks=pytest.mark.long)
        for case in ("few classes", "probabilities", "no manifest")
        for setting in ("", "ignore")
    ),
]
"""What the warning is about, and PYTHONWARNINGS: a process each."""


@pytest.mark.parametrize(("case", "setting"), SETTINGS)
def test_a_warning_of_ours_is_one_line_and_the_run_goes_on(tmp_path, case, setting):
    outcome = _run(tmp_path, case, setting)

    assert (outcome.code, outcome.out) == (0, "")
    assert re.fullmatch(rf"Warning: .*{re.escape(CASES[case][2])}.*\n", outcome.err)
    assert (tmp_path / "out.zarr").exists()


def test_through_dask_it_is_one_line_too(tmp_path):
    outcome = _run(tmp_path, "one class", "error::UserWarning", program=DASK)

    assert outcome.code == 0
    assert re.fullmatch(r"Warning: .*sigmoid.*\n", outcome.err)


@pytest.mark.parametrize(
    ("setting", "lines"),
    [("", ["theirs shown"]), ("error", ["theirs shown", "theirs hidden"]), ("ignore", [])],
)
def test_warnings_of_other_packages_are_lines_where_python_shows_them(tmp_path, setting, lines):
    source = dumps.zarr_array(tmp_path / "in.zarr", dumps.logits(), chunks=(10, 5))
    program, env = (sys.executable, "-c", NOISY), os.environ | {"PYTHONWARNINGS": setting}

    outcome = run_alone("score", source, tmp_path / "out.zarr", "--quiet", program=program, env=env)

    assert (outcome.code, outcome.err.splitlines()) == (0, [f"Warning: {line}" for line in lines])


def test_a_warning_of_several_lines_is_one_line(tmp_path):
    source = dumps.zarr_array(tmp_path / "in\n.zarr", dumps.logits(classes=1), chunks=(10, 1))

    outcome = run_alone("score", source, tmp_path / "out.zarr", "--quiet")

    assert outcome.err.count("\n") == 1


def test_after_the_command_warnings_are_what_they_were(tmp_path):
    code = "import warnings; from softmax_dask_pipelines.cli import main; shown = warnings.showwarning\n"
    code += "filters = list(warnings.filters); main(['schema'], standalone_mode=False)\n"
    code += "assert (warnings.showwarning, warnings.filters) == (shown, filters), warnings.filters"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.stderr == ""


@pytest.mark.parametrize("case", ["one class", "few classes", "probabilities"])
def test_a_warning_that_python_makes_an_error_leaves_no_output_and_no_lock(tmp_path, case):
    source, options = CASES[case][0](tmp_path)
    before = tree(tmp_path)

    with pytest.raises(CASES[case][1]):
        score(source, tmp_path / "out.zarr", **options)

    assert tree(tmp_path) == before


@pytest.mark.parametrize("case", ["one class", "few classes", "probabilities"])
@pytest.mark.parametrize("name", ["out.zarr", "out.parquet"])
def test_a_warning_that_python_makes_an_error_leaves_the_output_that_was_to_be_replaced(tmp_path, case, name):
    score(dumps.zarr_array(tmp_path / "old.zarr", dumps.logits(), chunks=(10, 5)), tmp_path / name)
    source, options = CASES[case][0](tmp_path)
    before = tree(tmp_path)

    with pytest.raises(CASES[case][1]):
        score(source, tmp_path / name, replace=True, **options)

    assert tree(tmp_path) == before


def test_a_manifest_warning_that_python_makes_an_error_leaves_the_output_complete_and_no_lock(tmp_path):
    source, _ = _no_manifest(tmp_path)

    with pytest.raises(ManifestWarning):
        score(source, tmp_path / "out.zarr")

    assert (tmp_path / "out.zarr" / "zarr.json").exists()
    assert not (tmp_path / "out.zarr.job" / "lock").exists()
    assert not list((tmp_path / "out.zarr.job").glob("plan-*"))


@pytest.mark.parametrize("category", [ManifestWarning, NoteWarning, RoomWarning])
def test_every_warning_can_be_silenced_as_one_of_the_package(category):
    assert issubclass(category, SoftmaxDaskWarning)


@pytest.mark.parametrize("case", ["one class", "few classes"])
def test_a_warning_points_at_the_line_that_called(tmp_path, case):
    source, options = CASES[case][0](tmp_path)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        score(source, tmp_path / "out.zarr", **options)

    assert {warning.filename for warning in caught} == {__file__}


def test_runs_in_threads_hide_what_zarr_warns_of_and_leave_filters_as_they_were(tmp_path):
    # Filters are those of the whole process: a run that puts them back must not do so while another one needs its own.
    dump = dumps.zarr_array(tmp_path / "in.zarr", dumps.logits(), chunks=(10, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        with ThreadPoolExecutor(8) as threads:
            done = [threads.submit(score, dump, tmp_path / f"{number}.zarr") for number in range(24)]
        found = [run.exception() for run in done]
        after = list(warnings.filters)

    assert found == [None] * 24
    assert after == before
