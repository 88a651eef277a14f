"""Where a run computes: on the CPU, or on a GPU if there is one that works."""

import warnings
from importlib import import_module
from typing import Literal

from softmax_dask_pipelines.errors import ConfigError
from softmax_dask_pipelines.notices import BackendWarning

Backend = Literal["cpu", "cuda"]

REMEDY = "pip install softmax-dask[gpu], on a machine with an NVIDIA GPU and its driver"


def chosen_backend(wanted: Literal["cpu", "cuda", "auto"]) -> Backend:
    """The backend for `wanted`; `auto` falls back to the CPU, and says why.

    Raises
    ------
    ConfigError
        A GPU is wanted, and none works.
    """
    if wanted == "cpu":
        return "cpu"
    trouble = trouble_with_gpu()
    if trouble is None:
        return "cuda"
    if wanted == "cuda":
        raise ConfigError(f"backend: is cuda, but {trouble}; expected a GPU that works. {REMEDY}; or take backend cpu.")
    warnings.warn(f"backend auto computes on the CPU: {trouble}. For a GPU: {REMEDY}.", BackendWarning, stacklevel=3)
    return "cpu"


def trouble_with_gpu() -> str | None:
    """Why no GPU can be used; None if one can. Runs a small kernel, since much that is installed does not work."""
    try:
        import_module("softmax_dask_pipelines.streaming").try_device()
    except ModuleNotFoundError as error:
        return "CuPy is not installed" if error.name == "cupy" else f"{error.name} is not installed"
    except Exception as error:  # CuPy raises what its libraries, the driver and the compiler come up with
        return f"CuPy fails: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None
