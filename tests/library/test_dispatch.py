"""Things that hold numbers and are no arrays of ours: what the refusal calls them, and that its remedy works.

The packages are stand-ins: what counts is the name of the package that defines a type.
"""

import re
import sys
from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import xarray as xr
import zarr
from numpy.testing import assert_allclose

from softmax_dask import UnsupportedArrayError, decisions, softmax

LOGITS = np.array([[0.0, np.log(3.0)], [0.0, 0.0]], np.float32)
PROBABILITIES = [[0.25, 0.75], [0.5, 0.5]]


class Held(np.lib.mixins.NDArrayOperatorsMixin):
    """As much of an array of another package as Dask asks of one."""

    __array_priority__ = 10

    def __init__(self, data: Any) -> None:
        self.data = np.asarray(data)

    dtype = property(lambda self: self.data.dtype)
    shape = property(lambda self: self.data.shape)
    ndim = property(lambda self: self.data.ndim)

    def __getitem__(self, key: Any) -> Any:
        return type(self)(self.data[key])

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return type(self)(function(*(a.data if isinstance(a, Held) else a for a in args), **kwargs))

    def astype(self, dtype: Any, **_: Any) -> Any:
        return type(self)(self.data.astype(dtype))


@pytest.fixture
def sparse() -> type:
    """An array type of a package `sparse`, with the method that makes one of NumPy."""
    return type("COO", (Held,), {"__module__": "sparse", "todense": lambda self: self.data})


def refusal_of(logits: Any) -> str:
    with pytest.raises(UnsupportedArrayError) as caught:
        softmax(logits)
    return str(caught.value)


def remedied(message: str, logits: Any, **names: Any) -> Any:
    """What the remedy in the message, run as Python, makes of the logits."""
    remedy = message.partition("Convert it first: ")[2].removesuffix(".").partition(", ")[0]
    return eval(remedy, {"logits": logits, "numpy": np, "dask": sys.modules["dask"], **names})


def test_an_array_of_another_package_is_refused_by_name(sparse):
    message = refusal_of(sparse(LOGITS))

    assert message.startswith("logits are a sparse.COO; expected a numpy.ndarray or cupy.ndarray, or a Dask or xarray ")


def test_the_remedy_for_an_array_of_another_package_works(sparse):
    logits = sparse(LOGITS)

    array = remedied(refusal_of(logits), logits)

    assert_allclose(softmax(array), PROBABILITIES, rtol=1e-6)


@pytest.fixture
def lazy(sparse: type) -> Any:
    """A Dask array of such blocks."""
    return da.from_array(sparse(LOGITS), chunks=(1, 2), asarray=False, meta=sparse(LOGITS[:0]))


@pytest.mark.parametrize("call", [softmax, decisions])
def test_a_dask_array_of_them_is_refused_before_anything_is_computed(lazy, call):
    with pytest.raises(UnsupportedArrayError, match=r"^logits are a Dask array of sparse\.COO; "):
        call(lazy)


def test_the_remedy_for_a_dask_array_of_them_works(lazy):
    array = remedied(refusal_of(lazy), lazy)

    assert_allclose(softmax(array).compute(), PROBABILITIES, rtol=1e-6)


def test_an_array_that_derives_from_one_of_numpy_is_taken():
    recarray = LOGITS.view(type("Mine", (np.ndarray,), {"__module__": "mine"}))

    assert_allclose(softmax(recarray), PROBABILITIES, rtol=1e-6)


class Tensor:
    """As much of a tensor of torch as is asked of one."""

    __module__ = "torch"
    shape, ndim = LOGITS.shape, LOGITS.ndim

    def __init__(self, dtype: str) -> None:
        self.dtype = type("dtype", (), {"__str__": lambda _: f"torch.{dtype}"})()

    def float(self) -> "Tensor":
        return Tensor("float32")

    def numpy(self, *, force: bool) -> Any:
        if str(self.dtype) == "torch.bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16")
        assert force, "a tensor on a device, or one that requires a gradient"
        return LOGITS


FOREIGN: dict[str, tuple[Callable[[], Any], str]] = {
    "torch": (lambda: Tensor("float32"), "torch.Tensor"),
    "torch, bfloat16": (lambda: Tensor("bfloat16"), "torch.Tensor"),
    "jax": (lambda: type("ArrayImpl", (Held,), {"__module__": "jaxlib._jax", "__array__": _array})(LOGITS), "jaxlib."),
    "pandas": (lambda: pd.DataFrame(LOGITS), "pandas."),
    "pandas, transposed": (lambda: pd.DataFrame(LOGITS.T).T, "pandas."),
    "polars": (lambda: pl.DataFrame(LOGITS), "polars."),
    "scipy.sparse": (lambda: scipy.sparse.csr_array(LOGITS), "scipy.sparse."),
    "zarr": (lambda: zarr.create_array({}, data=LOGITS), "zarr."),
    "xarray.Dataset": (lambda: xr.Dataset({"NAME": (("row", "class"), LOGITS)}), "xarray."),
}


def _array(self: Held, dtype: Any = None, copy: Any = None) -> Any:
    return self.data


@pytest.mark.parametrize(("make", "name"), FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_array_of_ours_is_refused_by_name(make, name):
    assert re.match(
        rf"logits are a {re.escape(name)}\S*; expected a numpy.ndarray or cupy.ndarray, ", refusal_of(make())
    )


@pytest.mark.parametrize("make", [make for make, _ in FOREIGN.values()], ids=FOREIGN)
def test_the_remedy_works(make):
    logits = make()

    array = remedied(refusal_of(logits), logits)

    assert_allclose(np.asarray(softmax(array)), PROBABILITIES, rtol=1e-6)


@pytest.mark.parametrize("make", [lambda x: x.tolist(), lambda x: tuple(map(tuple, x.tolist()))], ids=["list", "tuple"])
def test_nested_lists_and_tuples_are_taken(make):
    assert_allclose(softmax(make(LOGITS)), PROBABILITIES, rtol=1e-6)


@pytest.mark.parametrize(("logits", "kind"), [([[1, 2], [3]], "list"), (["a"], "list"), ({"a": 1}, "dict")])
def test_lists_that_are_no_table_of_numbers_are_refused_by_name(logits, kind):
    with pytest.raises(TypeError, match=rf"^logits are a {kind}, .*; expected an array, or nested lists of numbers\."):
        softmax(logits)
