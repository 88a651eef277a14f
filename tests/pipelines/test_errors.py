"""The tree of errors: what its drawing says is what the classes are."""

import builtins
import pickle
import re

import pytest

from softmax_dask import errors as library
from softmax_dask_pipelines import errors
from softmax_dask_pipelines.errors import PipelineError, exit_code

_LINE = re.compile(r"^(?P<indent>[│ ]*[├└]── )(?P<name>\w+)(?: \((?P<standard>\w+)\))?(?P<rest>.*)$", re.MULTILINE)


def _drawn() -> dict[str, tuple[str, str | None, int]]:
    """Name -> (parent, standard class, exit code) of every class in the drawing."""
    above: list[tuple[int, str, int]] = [(0, "SoftmaxDaskError", errors.BUG)]
    found = {}
    for match in _LINE.finditer(errors.__doc__ or ""):
        depth = len(match["indent"]) // 4
        above = [entry for entry in above if entry[0] < depth]
        _, parent, inherited = above[-1]
        code = re.search(r"exit (\d+)", match["rest"])
        above.append((depth, match["name"], int(code[1]) if code else inherited))
        found[match["name"]] = (parent, match["standard"], above[-1][2])
    return found


DRAWN = _drawn()
CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and value.__module__ == errors.__name__
}


def test_every_class_is_drawn_and_every_drawn_class_is_there():
    assert set(DRAWN) == set(CLASSES)
    assert len(DRAWN) > 20


@pytest.mark.parametrize("name", DRAWN)
def test_it_stands_below_the_class_it_is_drawn_below(name):
    parent = getattr(errors, DRAWN[name][0])

    assert CLASSES[name].__bases__[0] is parent


@pytest.mark.parametrize("name", DRAWN)
def test_it_also_is_the_standard_class_that_is_drawn(name):
    standard = [base.__name__ for base in CLASSES[name].__bases__[1:]]

    assert standard == ([DRAWN[name][1]] if DRAWN[name][1] else [])
    assert all(issubclass(getattr(builtins, base), Exception) for base in standard)


@pytest.mark.parametrize("name", DRAWN)
def test_it_has_the_exit_code_that_is_drawn(name):
    assert exit_code(CLASSES[name]("anything")) == DRAWN[name][2]


@pytest.mark.parametrize("name", DRAWN)
def test_it_survives_pickling_with_its_message(name):
    error = pickle.loads(pickle.dumps(CLASSES[name]("logits: are bad; expected good ones. Mend them.")))

    assert type(error) is CLASSES[name]
    assert str(error) == "logits: are bad; expected good ones. Mend them."


@pytest.mark.parametrize("name", DRAWN)
def test_its_message_is_the_text_and_no_tuple_of_arguments(name):
    assert str(CLASSES[name]("one line")) == "one line"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("DtypeError", 3),
        ("ClassAxisError", 3),
        ("SplitClassAxisError", 3),
        ("TargetError", 3),
        ("TemperatureError", 2),
        ("ColumnError", 2),
    ],
)
def test_errors_of_the_library_have_an_exit_code(name, code):
    assert exit_code(getattr(library, name)("anything")) == code


def test_an_error_of_the_pipelines_is_one_of_the_library():
    assert issubclass(PipelineError, library.SoftmaxDaskError)
