"""From the type of a block to the backend that computes on it, imported when such a block appears."""

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Protocol

from softmax_dask.errors import UnsupportedArrayError
from softmax_dask.sizes import BLOCK_BYTES, DEVICE_BLOCK_BYTES


class Kernels(Protocol):
    """A module of row kernels; see `softmax_dask.kernels`."""

    def takes_planes(self, columns: Any, classes: int) -> bool:
        """Whether rows may lie next to each other, as (groups, rows, classes)."""

    def writes_wide(self, dtype: Any, floats: Any) -> bool:
        """Whether wide columns may be of `dtype` where the arithmetic is that of `floats`."""

    def softmax_rows(self, logits: Any, out: Any, temperature: float) -> None:
        """Fill `out` with probabilities."""

    def decision_rows(self, logits: Any, targets: Any, out: Any, temperature: float) -> None:
        """Fill the columns in `out`."""

    def fills_tails(self, classes: int, k: int) -> bool:
        """Whether `decision_rows` fills columns of what is beyond the k largest."""

    def tail_rows(self, logits: Any, labels: Any, out: Any, temperature: float) -> None:
        """Fill the columns in `out` of rows without some classes."""

    def jacobian_rows(self, logits: Any, out: Any, temperature: float, first: int = 0, second: int = 0) -> None:
        """Fill `out` with a part of each row's Jacobian."""

    def jvp_rows(self, logits: Any, vectors: Any, out: Any, temperature: float) -> None:
        """Fill `out` with the Jacobian times a vector."""

    def log_jvp_rows(self, logits: Any, vectors: Any, out: Any, temperature: float) -> None:
        """Fill `out` with the Jacobian of log-softmax times a vector."""

    def log_vjp_rows(self, logits: Any, vectors: Any, out: Any, temperature: float) -> None:
        """Fill `out` with a vector times the Jacobian of log-softmax."""


@dataclass(frozen=True, slots=True)
class Backend:
    """What computes on one kind of array."""

    arrays: Any
    """The array module, with NumPy's functions."""
    kernels: Kernels
    slab_bytes: int
    """Of logits, in float32, that one call of a kernel gets: what fits the caches, or what makes a launch worth it."""


_BACKENDS = {
    "numpy.ndarray": ("numpy", "softmax_dask.kernels.cpu", BLOCK_BYTES),
    "cupy.ndarray": ("cupy", "softmax_dask.kernels.cuda", DEVICE_BLOCK_BYTES),
}
"""Array type -> its array module, its kernels and the bytes of a slab."""


_REMEDIES = {
    "dask": "{}.to_dask_array(lengths=True)",
    "pandas": "{}.to_numpy()",
    "polars": "{}.to_numpy()",
    "scipy": "{}.toarray()",
    "sparse": "{}.todense()",
    "tensorflow": "{}.numpy()",
    "torch": "{}.numpy(force=True)",
    "xarray": "{}['NAME'], one of its arrays",
    "zarr": "dask.array.from_zarr({})",
}
"""Package that defines an array type -> how its arrays become ones that a backend takes."""
_REMEDY = "numpy.asarray({})"
_TORCH_BFLOAT16 = "{}.float().numpy(force=True)"
"""NumPy has no bfloat16 of its own, and torch does not know the one of ml_dtypes."""


def backend_of(block: Any) -> Backend:
    """The backend for `block`.

    Raises
    ------
    UnsupportedArrayError
        No backend computes on this type.
    """
    backend = _backend(block.__class__)
    if backend is None:
        _require(block)
    assert backend is not None
    return backend


def require_backend(array: Any, *, dask: bool = False) -> None:
    """Refuse what no backend computes on, be it itself or, of a Dask array, its blocks; loads no kernels.

    Raises
    ------
    UnsupportedArrayError
        No backend computes on this type.
    """
    _require(array, dask=dask)


def is_foreign(thing: Any) -> bool:
    """Whether it is of a package whose things hold numbers, and that no backend computes on."""
    return not {*_packages(thing)}.isdisjoint(_REMEDIES)


def is_on_device(thing: Any) -> bool:
    """Whether it is an array in the memory of a GPU, which must not be taken for one of NumPy's."""
    return _is_of_a_device(thing.__class__)


@cache
def _is_of_a_device(kind: type) -> bool:
    return "cupy.ndarray" in map(_name, kind.__mro__)


@cache
def _backend(kind: type) -> Backend | None:
    modules = _modules_of(kind)
    return modules and Backend(import_module(modules[0]), import_module(modules[1]), modules[2])


@cache
def _modules_of(kind: type) -> tuple[str, str, int] | None:
    # By name, so that no array module is imported to look; the package alone would take its mixins for arrays.
    return next((_BACKENDS[_name(ancestor)] for ancestor in kind.__mro__ if _name(ancestor) in _BACKENDS), None)


def _require(array: Any, *, dask: bool = False) -> None:
    if _modules_of(array.__class__) is not None:
        return
    kind, remedy = _name(type(array)), _remedy(array)
    call = f"logits.map_blocks(lambda block: {remedy.format('block')})" if dask else remedy.format("logits")
    raise UnsupportedArrayError(
        f"logits are a {'Dask array of ' if dask else ''}{kind}; expected a {' or '.join(_BACKENDS)}, or a Dask or "
        f"xarray array of these. Convert it first: {call}."
    )


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _packages(array: Any) -> list[str]:
    """The packages that define the type of an array and those that it is made from."""
    return [ancestor.__module__.partition(".")[0] for ancestor in type(array).__mro__]


def _remedy(array: Any) -> str:
    if "torch" in _packages(array) and str(getattr(array, "dtype", "")) == "torch.bfloat16":
        return _TORCH_BFLOAT16
    return next((_REMEDIES[package] for package in _packages(array) if package in _REMEDIES), _REMEDY)
