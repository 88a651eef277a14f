"""The derivative of softmax: the Jacobian of each row, and its products with vectors, which never form it.

J[j, k] = d s_j / d x_k = s_j (delta_jk - s_k) / T. NumPy, Dask or xarray in, the same kind out. How exact it is, and
why the winner is kept apart, stands in docs/numerics.md.
"""

from importlib import import_module
from typing import Any, TypeVar

from numpy.typing import DTypeLike

from softmax_dask import jacobian_blocks
from softmax_dask.arguments import as_array, check, class_dimension, is_dask, is_xarray
from softmax_dask.errors import ClassAxisError, DtypeError, VectorError
from softmax_dask.sizes import kernel_dtype

ArrayT = TypeVar("ArrayT")


def jacobian(
    x: Any, *, axis: int | str = -1, temperature: float = 1.0, dtype: DTypeLike | None = None, out: Any = None
) -> Any:
    """The derivatives of all probabilities of a row by all its logits; lazy when `x` is lazy.

    Parameters
    ----------
    x, axis, temperature : as for `softmax`
        Of a Dask array the lengths of all chunks must be known.
    dtype : float16, bfloat16, float32 or float64
        Of the result. Float64 also computes in float64.
    out : an array to fill, for logits in memory only
        C order with the axes of classes last, of the dtype and shape of the result.

    Returns
    -------
    the kind of `x`, with two axes of classes in place of one: x.shape[:axis] + (classes, classes) + x.shape[axis + 1:]
        [..., j, k, ...] is s_j * ((j == k) - s_k) / temperature: j is the class of the probability, k that of the
        logit. Symmetric to the bit; masked classes have 0; undecidable rows have NaN; one class has 0. float32, for
        float64 and 32-bit integers float64, unless `dtype` says otherwise. Of a Dask array: in tiles of at most
        32 MiB, or Dask's `array.chunk-size` where that is less, along the rows and both axes of classes; select
        rows of `x` before, or any part of the result after. Of an xarray.DataArray the second axis is
        "<dimension>_of_logit", and so are the names of the coordinates along it. Of a NumPy array it is made at once:
        1000 rows of 50000 classes would be 10 TB, and NumPy raises MemoryError.

    Raises
    ------
    UnsupportedArrayError
        Chunks of unknown length.
    OutputBufferError
        An `out` that cannot take the result.
    SplitClassAxisError, ClassAxisError, DtypeError, TemperatureError
        As for `softmax`.
    """
    if is_xarray(x):
        return _xarray_jacobian(x, axis=axis, temperature=temperature, dtype=dtype, out=out)
    logits = as_array(x)
    position = check(logits, axis, temperature, dtype, warn=out is None)
    options: dict[str, Any] = {"axis": position, "temperature": float(temperature), "dtype": dtype, "out": out}
    return _implementation(logits).jacobian(logits, **options)


def jvp(x: ArrayT, v: Any, *, axis: int | str = -1, temperature: float = 1.0) -> ArrayT:
    """The Jacobian of softmax times `v`: how the probabilities change when the logits move along `v`.

    s * (v - <s, v>) / temperature of each row, in one read of each array; lazy when `x` is lazy.

    Parameters
    ----------
    x, axis, temperature : as for `softmax`
    v : the shape of `x`; of an xarray.DataArray its dimensions, in any order
        Of a Dask array in memory, or lazy in any chunks. A row with NaN or an infinity gives NaN.

    Returns
    -------
    the kind, shape and chunks of `x`; float64 where `x` or `v` is float64 or a 32-bit integer, else float32
        Masked classes have 0. An undecidable row has NaN.

    Raises
    ------
    VectorError
        `v` has another shape, or other dimensions or coordinates, than `x`; or is lazy where `x` is not.
    SplitClassAxisError, ClassAxisError, DtypeError, TemperatureError
        As for `softmax`.
    """
    result: ArrayT = _product(x, v, kind="jvp", axis=axis, temperature=temperature)
    return result


def vjp(x: ArrayT, g: Any, *, axis: int | str = -1, temperature: float = 1.0) -> ArrayT:
    """`g` times the Jacobian of softmax: the gradient by the logits, `g` being that by the probabilities.

    The Jacobian is symmetric, so this is `jvp`, whose parameters, result and errors it has.
    """
    result: ArrayT = _product(x, g, kind="jvp", axis=axis, temperature=temperature)
    return result


def log_softmax_jvp(x: ArrayT, v: Any, *, axis: int | str = -1, temperature: float = 1.0) -> ArrayT:
    """The Jacobian of log-softmax times `v`: (v - <s, v>) / temperature of each row.

    Parameters, result and errors are those of `jvp`, but that a masked class has the value of the formula and not 0.
    """
    result: ArrayT = _product(x, v, kind="log_jvp", axis=axis, temperature=temperature)
    return result


def log_softmax_vjp(x: ArrayT, g: Any, *, axis: int | str = -1, temperature: float = 1.0) -> ArrayT:
    """`g` times the Jacobian of log-softmax: (g - s * sum(g)) / temperature of each row.

    The gradient by the logits, `g` being that by the log-probabilities. Parameters, result and errors are those of
    `jvp`, but that a masked class has the value of the formula and not 0.
    """
    result: ArrayT = _product(x, g, kind="log_vjp", axis=axis, temperature=temperature)
    return result


def _product(x: Any, vector: Any, *, kind: str, axis: int | str, temperature: float) -> Any:
    if is_xarray(x):
        dimension = class_dimension(x, axis)
        given = _aligned(vector, x) if is_xarray(vector) else vector
        data = _product(x.data, given, kind=kind, axis=x.dims.index(dimension), temperature=temperature)
        return x.copy(data=data).drop_encoding()
    logits, given = as_array(x), as_array(vector.data if is_xarray(vector) else vector)
    position = check(logits, axis, temperature, None, warn=True)
    _require_vector(given, logits)
    module = _implementation(logits)
    return module.product(logits, given, kind=kind, axis=position, temperature=float(temperature))


def _require_vector(vector: Any, logits: Any) -> None:
    if is_dask(vector) and not is_dask(logits):
        raise VectorError("the vector is a Dask array and the logits are not; expected both, or call vector.compute().")
    if not is_dask(logits) and vector.shape != logits.shape:
        raise VectorError(f"the vector has shape {vector.shape}; expected {logits.shape}, that of the logits.")
    try:
        kernel_dtype(vector.dtype)
    except DtypeError as error:
        raise DtypeError(str(error).replace("logits have", "the vector has").replace("logits.", "vector.")) from None


def _implementation(x: Any) -> Any:
    """The module that computes on this kind of array: `jacobian_lazy` for Dask's, else `jacobian_blocks`."""
    return import_module("softmax_dask.jacobian_lazy") if is_dask(x) else jacobian_blocks


# ---- xarray


def _xarray_jacobian(x: Any, *, axis: int | str, **options: Any) -> Any:
    dimension = class_dimension(x, axis)
    second = f"{dimension}_of_logit"
    if second in x.dims or second in x.coords:
        raise ClassAxisError(
            f"logits have a dimension or coordinate {second!r}, the name of the second one. Rename it."
        )
    position = x.dims.index(dimension)
    data = jacobian(x.data, axis=position, **options)
    along = {name: c.variable for name, c in x.coords.items() if c.dims == (dimension,)}
    copies = {f"{name}_of_logit": (second, variable.data, variable.attrs) for name, variable in along.items()}
    dims = (*x.dims[: position + 1], second, *x.dims[position + 1 :])
    return type(x)(data, dims=dims, coords={**x.coords, **copies}, attrs=x.attrs, name=x.name)


def _aligned(vector: Any, x: Any) -> Any:
    """The vector's data in the order of the dimensions of `x`, by their names and not by position."""
    if set(vector.dims) != set(x.dims):
        raise VectorError(f"the vector has dimensions {vector.dims}; expected {x.dims}, those of the logits.")
    for name in set(x.dims) & set(vector.indexes) & set(x.indexes):
        if not vector.indexes[name].equals(x.indexes[name]):
            raise VectorError(f"the vector has other coordinates along {name!r} than the logits. Align them first.")
    return vector.transpose(*x.dims).data
