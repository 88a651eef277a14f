"""How kernels are compiled: without the GIL, IEEE arithmetic, and kept on disk.

Numba's cache is not enough for that. It stamps a kernel with the kernel's own file, so an edit of
`simd.py` would leave yesterday's code in use; its index numbers the compiled files, so two processes
that begin at once can leave a number naming the other's code; a torn file or a full disk stops the
program. Here a compiled kernel is a file of its own, named by what it was compiled from and for, with
a checksum; whatever cannot be read is compiled again, and what cannot be written stays in memory.
"""

import hashlib
import pickle
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba import config
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    IndexDataCacheFile,
    InTreeCacheLocator,
    UserProvidedCacheLocator,
    UserWideCacheLocator,
)
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher, cpu_target
from numba.core.runtime import rtsys

from softmax_dask.kernels.cpu.lowering import StepCompiler

_CHECKSUM_BYTES = hashlib.sha256().digest_size


# Nobody calls a step from Python or C: no wrappers for that, and no machine code before it is part of a kernel.
_STEP = {"forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def kernel(function: Callable[..., Any]) -> Any:
    """Compile an entry point: called from Python, releases the GIL, kept on disk if it stands in a file."""
    dispatcher = _dispatcher(function, {"nogil": True})
    if Path(function.__code__.co_filename).is_file():
        dispatcher._cache = _KernelCache(function)
    return dispatcher


def step(function: Callable[..., Any]) -> Any:
    """Compile a part of a kernel: called from compiled code only, and inlined there by LLVM.

    It counts no references to arrays, so it makes none. Between branches and loops LLVM cannot prove such counting
    useless, and it is atomic: for short rows it took as long as all the arithmetic.
    """
    return _dispatcher(function, {**_STEP, "_nrt": False}, pipeline_class=StepCompiler)


def owning_step(function: Callable[..., Any]) -> Any:
    """As `step`, for a part that makes an array, or asks one where it lies in memory."""
    return _dispatcher(function, _STEP, pipeline_class=StepCompiler)


def _dispatcher(function: Callable[..., Any], options: dict[str, bool], **more: Any) -> Any:
    fixed = {"nopython": True, "boundscheck": None, "error_model": "numpy"}
    return _Dispatcher(py_func=function, targetoptions={**fixed, **options}, **more)


class _Dispatcher(CPUDispatcher):  # type: ignore[misc]
    """What `njit` makes, whatever NUMBA_DISABLE_JIT says: it shows code as Python, which vectors cannot be."""

    def compile(self, sig: Any) -> Any:
        """Compile for these types; Numba's own parts ask the setting too, while they are made part of a kernel."""
        with global_compiler_lock:
            before, config.DISABLE_JIT = config.DISABLE_JIT, 0
            try:
                return super().compile(sig)
            finally:
                config.DISABLE_JIT = before


@cache
def package_stamp() -> str:
    """Hash of the sources of this package, and of the compiler's versions."""
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def host_folder() -> str:
    """Name of the folder for code that this machine runs: its CPU, and a hash of the CPU's features.

    Homes and images are shared by machines. Those of one CPU share compiled kernels, whatever their
    names are; others never meet each other's files.
    """
    _, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    return f"{cpu}-{hashlib.sha256(features.encode()).hexdigest()[:12]}"


def _source_stamp(file: str) -> str:
    """That of the package; for a kernel outside of it, of its own file as well."""
    path = Path(file)
    if path.parent == Path(__file__).parent:
        return package_stamp()
    return hashlib.sha256(package_stamp().encode() + path.read_bytes()).hexdigest()


class _KernelFiles(IndexDataCacheFile):  # type: ignore[misc]
    """A kernel's compiled code, a file for each signature, in place of Numba's index of numbered files."""

    def load(self, key: Any) -> Any:
        """What was saved under `key`; None if that is not there, or not whole."""
        try:
            content = self._path(key).read_bytes()
        except OSError:
            return None
        checksum, data = content[:_CHECKSUM_BYTES], content[_CHECKSUM_BYTES:]
        return pickle.loads(data) if checksum == hashlib.sha256(data).digest() else None

    def save(self, key: Any, data: Any) -> None:
        """Write a file, by a rename, and remove those of other sources."""
        pickled = self._dump(data)
        with self._open_for_write(str(self._path(key))) as file:
            file.write(hashlib.sha256(pickled).digest() + pickled)
        self._remove(lambda name: not name.startswith(self._prefix()))

    def flush(self) -> None:
        """Forget everything that was saved."""
        self._remove(lambda name: True)

    def _prefix(self) -> str:
        return f"{self._kernel_name()}.{self._source_stamp[:16]}."

    def _kernel_name(self) -> str:
        return str(self._index_name).removesuffix(".nbi")

    def _path(self, key: Any) -> Path:
        return Path(self._cache_path, f"{self._prefix()}{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.nbc")

    def _remove(self, is_old: Callable[[str], bool]) -> None:
        for path in Path(self._cache_path).glob(f"{self._kernel_name()}.*.nbc*"):
            if is_old(path.name):
                path.unlink(missing_ok=True)


class _Located:
    """What our locators have in common; they come before Numba's, whose folders they divide by host."""

    def get_source_stamp(self) -> str:
        return _source_stamp(self._py_file)  # type: ignore[attr-defined]

    def get_cache_path(self) -> str:
        return str(Path(super().get_cache_path(), host_folder()))  # type: ignore[misc]

    def get_disambiguator(self) -> str:
        """Nothing: kernels have names of their own, and with line numbers an edit would leave old files behind."""
        return "kernel"


class _UserProvided(_Located, UserProvidedCacheLocator):  # type: ignore[misc]
    pass


class _InTree(_Located, InTreeCacheLocator):  # type: ignore[misc]
    pass


class _UserWide(_Located, UserWideCacheLocator):  # type: ignore[misc]
    pass


class _ReadOnly(_InTree):
    """The last resort, where no folder may be written: kernels that lie beside the sources, or none."""

    @classmethod
    def from_function(cls, function: Any, file: str) -> Any:
        return cls(function, file)


class _KernelCacheImpl(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_UserProvided, _InTree, _UserWide, _ReadOnly)


class _KernelCache(FunctionCache):  # type: ignore[misc]
    _impl_class = _KernelCacheImpl

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        stamp = self._impl.locator.get_source_stamp()
        self._cache_file = _KernelFiles(self._cache_path, self._impl.filename_base, stamp)

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """As Numba's, which first loads all that its compiler knows: a quarter of the time of a short run."""
        rtsys.initialize(target_context)
        with self._guard_against_spurious_io_errors():
            return self._load_overload(signature, target_context)

    def save_overload(self, signature: Any, compiled: Any) -> None:
        # A full disk, a folder that went away; a function of no module, whose globals Numba keeps with it.
        with suppress(OSError, TypeError, pickle.PicklingError):
            super().save_overload(signature, compiled)
