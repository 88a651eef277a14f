"""What is worked out once for many calls: it changes no result, no error and no warning, and later calls are short."""

import sys
from typing import Any

import numpy as np
import pytest

import softmax_dask
from softmax_dask import DtypeError, SingleClassWarning, TemperatureError, decisions, plans, softmax

FOUR = ("label", "confidence", "margin", "entropy")


@pytest.fixture
def logits() -> Any:
    return np.random.default_rng(0).normal(0, 6, (3, 10)).astype(np.float32)


def python_calls(run: Any) -> int:
    """Functions written in Python that one more call of `run` enters."""
    run()
    entered = []
    sys.setprofile(lambda frame, event, argument: entered.append(event) if event == "call" else None)
    try:
        run()
    finally:
        sys.setprofile(None)
    return len(entered) - 1  # `run` itself


@pytest.mark.parametrize("columns", [("probabilities",), FOUR])
@pytest.mark.parametrize("into", [False, True])
def test_a_call_enters_few_functions(logits, columns, into):
    out = decisions(logits, columns) if into else None

    found = python_calls(lambda: decisions(logits, columns, out=out))

    # 26 to 43. Before there were plans 93 to 142, and five times the time.
    assert found <= 28 + 4 * len(columns)


def test_a_second_call_asks_nothing_that_was_asked(logits, monkeypatch):
    first = decisions(logits, FOUR, temperature=1.25)
    monkeypatch.delattr(plans, "require_columns")

    second = decisions(logits, FOUR, temperature=1.25)

    np.testing.assert_array_equal(second["entropy"], first["entropy"])


@pytest.mark.parametrize("taken", [1, 1.0])
def test_an_option_that_equals_one_that_was_taken_is_refused_all_the_same(logits, taken):
    softmax(logits, temperature=taken)

    with pytest.raises(TemperatureError, match="temperature is True"):
        softmax(logits, temperature=True)


@pytest.mark.parametrize(
    ("option", "error"),
    [({"temperature": [1.0]}, TemperatureError), ({"dtype": ["float32"]}, DtypeError)],
    ids=["temperature", "dtype"],
)
def test_an_option_that_cannot_be_hashed_is_refused_in_our_words(logits, option, error):
    with pytest.raises(error, match=f"{next(iter(option))} is ") as caught:
        softmax(logits, **option)

    assert not isinstance(caught.value.__context__, KeyError)


def test_columns_may_be_a_list(logits):
    found = decisions(logits, list(FOUR))

    assert tuple(found) == FOUR


def test_every_call_warns():
    for _ in range(2):
        with pytest.warns(SingleClassWarning):
            softmax(np.zeros((2, 1), np.float32))


def test_calls_of_other_dtypes_and_axes_have_their_own_plans(logits):
    softmax(logits)

    found = softmax(logits.astype(">f8"), axis=0)

    np.testing.assert_allclose(found, softmax(logits.T.astype(np.float64)).T, rtol=1e-14)
    assert found.dtype == np.float64


def test_a_public_name_is_looked_up_once():
    function = softmax_dask.log_softmax

    assert vars(softmax_dask)["log_softmax"] is function
