"""The CUDA text of the kernels: what both CuPy and the emulator of the tests compile."""

from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from softmax_dask.kernels.cuda.variants import Kernel

_PARTS = (
    "device",
    "numbers",
    "exp2",
    "groups",
    "segments",
    "places",
    "columns",
    "held",
    "stream",
    "top_k",
    "derivative",
    "entries",
)

OPTIONS = ("-std=c++17", "-fmad=false")
"""For the compiler. Fused multiply-adds are written out, so results do not hang on what it makes of a * b + c."""


def source(kernels: Iterable[Kernel]) -> str:
    """A text that defines these kernels and includes nothing."""
    return "\n".join([package_text(), *(kernel.line for kernel in kernels), ""])


@cache
def package_text() -> str:
    """All that the kernels share."""
    folder = files("softmax_dask.kernels.cuda")
    return "\n".join((folder / f"{part}.cuh").read_text(encoding="utf-8") for part in _PARTS)
