"""From the type of a block to the backend that computes on it, imported when such a block appears."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from softmax_dask.errors import UnsupportedArrayError


class Kernels(Protocol):
    """A module of row kernels; see `softmax_dask.kernels`."""

    def softmax_rows(self, logits: Any, out: Any, temperature: float) -> None:
        """Fill `out` with probabilities."""

    def decision_rows(self, logits: Any, targets: Any, out: Any, temperature: float) -> None:
        """Fill the columns in `out`."""


@dataclass(frozen=True, slots=True)
class Backend:
    """What computes on one kind of array."""

    arrays: Any
    """The array module, with NumPy's functions."""
    kernels: Kernels


_BACKENDS = {"numpy": ("numpy", "softmax_dask.kernels.cpu")}
"""Package that defines an array type -> its array module and its kernels. CuPy will be a line here."""


def backend_of(block: Any) -> Backend:
    """The backend for `block`.

    Raises
    ------
    UnsupportedArrayError
        No backend computes on this type.
    """
    for ancestor in type(block).__mro__:
        names = _BACKENDS.get(ancestor.__module__.partition(".")[0])
        if names is not None:
            arrays, kernels = (import_module(name) for name in names)
            return Backend(arrays, kernels)
    raise UnsupportedArrayError(
        f"logits are a {type(block).__module__}.{type(block).__qualname__}; expected an array of "
        f"{', '.join(_BACKENDS)}, or a Dask or xarray array of these. Convert it first, e.g. with numpy.asarray."
    )
