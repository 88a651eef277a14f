"""The names that the package promises."""

import inspect

import pytest

import softmax_dask

FUNCTIONS = ("decisions", "log_softmax", "logsumexp", "softmax")


def test_public_names_are_sorted():
    names = softmax_dask.__all__

    assert names == sorted(names)


def test_dir_lists_the_public_names():
    found = dir(softmax_dask)

    assert found == softmax_dask.__all__


@pytest.mark.parametrize("name", softmax_dask.__all__)
def test_every_public_name_is_there(name):
    found = getattr(softmax_dask, name)

    assert found is not None


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_functions_of_the_design_are_public(name):
    found = name in softmax_dask.__all__ and callable(getattr(softmax_dask, name))

    assert found


@pytest.mark.parametrize("name", [name for name in softmax_dask.__all__ if name not in ("COLUMNS", "__version__")])
def test_every_public_function_and_class_has_a_docstring(name):
    found = getattr(softmax_dask, name).__doc__

    assert found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_after_the_data_are_keyword_only(name):
    kinds = [p.kind for p in inspect.signature(getattr(softmax_dask, name)).parameters.values()]

    allowed = 2 if name == "decisions" else 1  # the names of columns are part of what is asked
    assert set(kinds[allowed:]) == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("name", ["sofmax", "blocks_", "__path_of_nothing__"])
def test_an_unknown_name_is_an_attribute_error(name):
    with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
        getattr(softmax_dask, name)
