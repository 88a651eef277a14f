"""Where a run computes: on the CPU, or on a GPU if there is one that works."""

import warnings
from importlib import import_module
from threading import Lock
from typing import Any, Literal

from softmax_dask_pipelines.errors import ConfigError
from softmax_dask_pipelines.notices import BackendWarning

Backend = Literal["cpu", "cuda"]

REMEDY = "pip install softmax-dask[gpu], on a machine with an NVIDIA GPU and its driver"


def chosen_backend(wanted: Literal["cpu", "cuda", "auto"], *, elsewhere: bool = False) -> Backend:
    """The backend for `wanted`; `auto` falls back to the CPU, and says why.

    Parameters
    ----------
    elsewhere : whether workers on other machines compute; each looks for its GPU itself, when it comes

    Raises
    ------
    ConfigError
        A GPU is wanted, and none works; or what is wanted hangs on workers that are not there yet.
    """
    if wanted == "cpu":
        return "cpu"
    if elsewhere and wanted == "auto":
        raise ConfigError(
            "backend: is auto; expected cpu or cuda on a Dask cluster, for all workers of a run must compute alike, "
            "and one that comes later may have no GPU. Say which it is."
        )
    if elsewhere:
        return "cuda"
    trouble = trouble_with_gpu()
    if trouble is None:
        return "cuda"
    if wanted == "cuda":
        raise ConfigError(f"backend: is cuda, but {trouble}; expected a GPU that works. {REMEDY}; or take backend cpu.")
    warnings.warn(f"backend auto computes on the CPU: {trouble}. For a GPU: {REMEDY}.", BackendWarning, stacklevel=3)
    return "cpu"


class GpuOfProcess:
    """Fills columns, as `decisions` does, on the GPU of whatever process calls it.

    The process that has the plan of a run on a cluster needs no GPU, and loads nothing for one.
    """

    def __init__(self) -> None:
        self._begin = Lock()
        self._streams: Any = None

    def __reduce__(self) -> tuple[type["GpuOfProcess"], tuple[()]]:
        return GpuOfProcess, ()

    def __call__(self, *arguments: Any, **options: Any) -> None:
        """As `HostStreams`, made at the first call."""
        with self._begin:
            if self._streams is None:
                self._streams = import_module("softmax_dask_pipelines.streaming").HostStreams()
        self._streams(*arguments, **options)


def trouble_with_gpu() -> str | None:
    """Why no GPU can be used; None if one can. Runs a small kernel, since much that is installed does not work."""
    try:
        import_module("softmax_dask_pipelines.streaming").try_device()
    except ModuleNotFoundError as error:
        return "CuPy is not installed" if error.name == "cupy" else f"{error.name} is not installed"
    except Exception as error:  # CuPy raises what its libraries, the driver and the compiler come up with
        return f"CuPy fails: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None
