"""The tree of errors: as drawn, also the standard class a handler expects, and able to cross Dask workers."""

import inspect
import pickle
import re

import pytest

from softmax_dask import errors
from softmax_dask.errors import SoftmaxDaskError

CLASSES = [value for _, value in inspect.getmembers(errors, inspect.isclass)]
# A line of the drawing: how deep the branch is, the name, and the standard class in brackets, if any.
BRANCH = re.compile(r"^((?:│   |    )*)[├└]── (\w+)(?: \((\w+)\))?  +\S", re.MULTILINE)
DRAWN = {name: (len(indent) // 4, standard) for indent, name, standard in BRANCH.findall(errors.__doc__)}


def test_the_drawing_shows_every_error():
    shown = {"SoftmaxDaskError", *DRAWN}

    assert shown == {error.__name__ for error in CLASSES}


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_is_a_softmax_dask_error(error):
    found = issubclass(error, SoftmaxDaskError)

    assert found


@pytest.mark.parametrize(("name", "standard"), [(name, standard) for name, (_, standard) in DRAWN.items() if standard])
def test_every_error_is_the_standard_class_of_the_drawing(name, standard):
    bases = {base.__name__ for base in getattr(errors, name).__bases__}

    assert standard in bases


def test_an_inner_branch_is_the_error_that_it_hangs_on():
    names = list(DRAWN)
    inner = {name: names[i - 1] for i, name in enumerate(names) if DRAWN[name][0] == 1 and DRAWN[names[i - 1]][0] == 0}

    found = {name: getattr(errors, name).__bases__[0].__name__ for name in inner}

    assert found == inner


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_survives_pickling(error):
    raised = error("temperature is -1; expected above 0.")

    found = pickle.loads(pickle.dumps(raised))

    assert (type(found), found.args) == (error, raised.args)


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_says_what_it_is(error):
    found = error.__doc__

    assert found
