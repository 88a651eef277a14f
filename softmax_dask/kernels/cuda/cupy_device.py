"""A GPU, through CuPy. The one module of the library that imports it, imported when the first CuPy array appears."""

from functools import cache
from typing import Any

import cupy
import numpy as np

from softmax_dask.kernels.cuda.text import OPTIONS, source
from softmax_dask.kernels.cuda.variants import Kernel


class CupyDevice:
    """The current GPU, on its current stream."""

    def blocks(self, kernel: Kernel) -> int:
        """As many as its multiprocessors get in all."""
        return _multiprocessors(cupy.cuda.Device().id) * kernel.crowd

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """Memory from CuPy's pool, which gives it out in the order of the stream."""
        return cupy.empty(shape, dtype)

    def launch(self, kernel: Kernel, blocks: int, arguments: tuple[Any, ...]) -> None:
        """Put the kernel on the stream; compiled at its first use, and kept on disk by CuPy."""
        _compiled(kernel)((blocks,), (kernel.threads,), arguments)


@cache
def _multiprocessors(device: int) -> int:
    return int(cupy.cuda.Device(device).attributes["MultiProcessorCount"])


@cache
def _compiled(kernel: Kernel) -> Any:
    return cupy.RawModule(code=source([kernel]), options=OPTIONS).get_function(kernel.name)
