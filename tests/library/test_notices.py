"""Warnings point at the line that called the library, whichever function and kind of array it was."""

import warnings
from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from softmax_dask import SingleClassWarning, SoftmaxDaskWarning, TopKWarning, decisions, logsumexp, softmax, top_k

KINDS: dict[str, Callable[[Any], Any]] = {
    "numpy": lambda x: x,
    "dask": da.from_array,
    "xarray": lambda x: xr.DataArray(x, dims=("row", "class")),
    "xarray of dask": lambda x: xr.DataArray(da.from_array(x), dims=("row", "class")),
    "list": lambda x: x.tolist(),
}
CALLS: dict[str, tuple[Callable[[Any], Any], type[Warning], int]] = {
    "softmax": (lambda x: softmax(x), SingleClassWarning, 1),
    "logsumexp": (lambda x: logsumexp(x), SingleClassWarning, 1),
    "decisions": (lambda x: decisions(x), SingleClassWarning, 1),
    "top_k": (lambda x: top_k(x, 5), TopKWarning, 3),
    "decisions with top_k": (lambda x: decisions(x, ("top_k_labels",), top_k=5), TopKWarning, 3),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", CALLS)
def test_a_warning_points_at_the_line_that_called(kind, call):
    function, category, classes = CALLS[call]
    logits = KINDS[kind](np.zeros((2, classes), np.float32))

    with pytest.warns(category) as caught:
        function(logits)

    code = function.__code__
    assert [(warning.filename, warning.lineno) for warning in caught] == [(code.co_filename, code.co_firstlineno)]


@pytest.mark.parametrize("category", [SingleClassWarning, TopKWarning])
def test_every_warning_can_be_silenced_as_one_of_the_package(category):
    assert issubclass(category, SoftmaxDaskWarning)


def test_a_warning_that_was_made_an_error_is_raised():
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        with pytest.raises(SingleClassWarning):
            softmax(np.zeros((2, 1), np.float32))
