"""The names that the pipelines promise."""

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import softmax_dask_pipelines

PROMISED = (
    "CalibrateConfig",
    "ConformalConfig",
    "EvaluateConfig",
    "Evaluation",
    "FitResult",
    "Compacted",
    "JacobianConfig",
    "JacobianResult",
    "PipelineError",
    "Report",
    "RunResult",
    "ScoreConfig",
    "ThresholdConfig",
    "Verified",
    "calibrate",
    "conformal",
    "compact",
    "evaluate",
    "open_compact",
    "open_logits",
    "report",
    "run",
    "score",
    "status",
    "threshold",
    "verify",
    "write_jacobian",
)
FUNCTIONS = tuple(name for name in PROMISED if name.islower() and name not in ("status", "verify"))
NEED_MORE = {"streaming": "CuPy"}
"""Modules that import what an extra installs."""
MODULES = tuple(
    module.name for module in pkgutil.iter_modules(softmax_dask_pipelines.__path__) if module.name not in NEED_MORE
)


def test_public_names_are_those_of_the_design_and_sorted():
    assert softmax_dask_pipelines.__all__ == sorted(PROMISED)


def test_dir_lists_the_public_names():
    assert dir(softmax_dask_pipelines) == softmax_dask_pipelines.__all__


@pytest.mark.parametrize("name", PROMISED)
def test_every_public_name_has_a_docstring(name):
    found = getattr(softmax_dask_pipelines, name)

    assert found.__doc__


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_functions_also_when_every_module_was_imported(name):
    # A module `score` beside the function `score` would take its place in the package.
    for module in MODULES:
        importlib.import_module(f"softmax_dask_pipelines.{module}")

    found = getattr(importlib.import_module("softmax_dask_pipelines"), name)

    assert inspect.isfunction(found)


def test_no_module_has_the_name_of_a_public_function():
    assert set(MODULES).isdisjoint(PROMISED)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_name_is_imported_by_a_fresh_process_as_people_write_it(name):
    code = f"from softmax_dask_pipelines import {name}; assert callable({name}), {name}"

    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert process.stderr == ""


@pytest.mark.parametrize(("name", "positional"), [("open_logits", 1), ("run", 1), ("score", 2)])
def test_arguments_after_the_paths_are_keyword_only(name, positional):
    kinds = [p.kind for p in inspect.signature(getattr(softmax_dask_pipelines, name)).parameters.values()]

    assert set(kinds[positional:]) == {inspect.Parameter.KEYWORD_ONLY}
    assert inspect.Parameter.KEYWORD_ONLY not in kinds[:positional]


@pytest.mark.parametrize("name", ["scores", "_HOME", "numpy"])
def test_an_unknown_name_is_an_attribute_error(name):
    with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
        getattr(softmax_dask_pipelines, name)
