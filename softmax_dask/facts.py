"""What computes here: for reports of bugs, and of slow runs. Computes nothing itself."""

from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """The kernels that this machine gets."""

    backend: str
    """Module of the kernels, such as softmax_dask.kernels.cpu."""
    instruction_set: str
    """Widest vectors that the processor has: AVX-512, AVX2, AVX, or baseline for none of these."""
    float32_lanes: int
    """Float32 numbers that one vector of a kernel holds."""
    converts_float16: bool
    """Whether the processor itself turns float16 into float32."""
    cache_folder: str
    """Where Numba keeps compiled kernels; need not be there yet."""


def kernel_facts() -> KernelFacts:
    """What computes on arrays in the memory of this machine. Loads Numba, and compiles nothing.

    Returns
    -------
    KernelFacts
        Of the processor, or of NUMBA_CPU_NAME and NUMBA_CPU_FEATURES where they are set.

    Raises
    ------
    RuntimeError
        Numba finds no folder for its cache that it may write; set NUMBA_CACHE_DIR to one.
    """
    # Numba is loaded by who asks, not by who imports.
    from softmax_dask.kernels import cpu
    from softmax_dask.kernels.cpu import row, simd

    return KernelFacts(
        backend=cpu.__name__,
        instruction_set=simd.INSTRUCTION_SET,
        float32_lanes=simd.FLOAT32_LANES,
        converts_float16=simd.CONVERTS_HALVES,
        cache_folder=str(row.decision_row.stats.cache_path),
    )


def kernel_name(backend: str = "cpu") -> str:
    """Name of the kernels of a backend, such as `cpu-16-lanes-v2`: kernels of one name give the same bits.

    Parameters
    ----------
    backend : "cpu", those that compute here, or "cuda"
    """
    name: str = import_module(f"softmax_dask.kernels.{backend}").NAME
    return name
