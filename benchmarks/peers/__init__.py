"""The same work in other packages, a module each, written as their users would, and no faster or slower than need be.

`peer` picks a module where its package is installed; `make bench-peers` installs all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Contender:
    """Work on an array in memory, into an array that was there before where the package allows it."""

    run: Callable[[], object]
    result: Callable[[], NDArray[Any]]
    """What the last run gave."""


def peer(package: str) -> Any:
    """The module that does the work with this package; None where it is not installed."""
    return import_module(f"{__name__}.with_{package}") if find_spec(package) else None


def contenders(*packages: str, work: str, **given: Any) -> dict[str, Contender]:
    """The contender of each package that is installed: its module's function `work` of what is given."""
    modules = {package: peer(package) for package in packages}
    return {package: getattr(module, work)(**given) for package, module in modules.items() if module is not None}


def require_equal(found: NDArray[Any], exact: NDArray[Any], *, who: str) -> None:
    """Refuse to time what gives wrong results: beyond 1e-4 relative and 1e-6 absolute, of any package's rounding."""
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-6, err_msg=f"{who} gives other results")
