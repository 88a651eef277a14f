"""How kernels are compiled: without the GIL, IEEE arithmetic, and cached on disk.

Numba stamps a cached kernel with the file of the kernel alone, so an edit of `simd.py` would
leave yesterday's code in use. Here the stamp is a hash of every file of this package.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    InTreeCacheLocator,
    UserProvidedCacheLocator,
    UserWideCacheLocator,
)


def kernel(function: Callable[..., Any]) -> Any:
    """Compile an entry point: called from Python, releases the GIL, kept on disk."""
    dispatcher = njit(nogil=True, error_model="numpy")(function)
    dispatcher._cache = _KernelCache(function)
    return dispatcher


def step(function: Callable[..., Any]) -> Any:
    """Compile a part of a kernel: called from compiled code only, and inlined there by LLVM."""
    return njit(error_model="numpy", forceinline=True)(function)


@cache
def package_stamp() -> str:
    """Hash of the sources of this package."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class _PackageStamp:
    def get_source_stamp(self) -> str:
        return package_stamp()


class _UserProvided(_PackageStamp, UserProvidedCacheLocator):  # type: ignore[misc]
    pass


class _InTree(_PackageStamp, InTreeCacheLocator):  # type: ignore[misc]
    pass


class _UserWide(_PackageStamp, UserWideCacheLocator):  # type: ignore[misc]
    pass


class _KernelCacheImpl(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_UserProvided, _InTree, _UserWide)


class _KernelCache(FunctionCache):  # type: ignore[misc]
    _impl_class = _KernelCacheImpl
