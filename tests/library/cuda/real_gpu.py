"""A real GPU in the place of the emulator: `make test-gpu`, on a machine that has one."""

import ctypes
import os
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from softmax_dask.kernels.cuda.variants import Kernel

WANTED = os.environ.get("SOFTMAX_DASK_TEST_GPU") == "1"
_ALIGNED = 512
"""Where memory of a GPU begins; what lies elsewhere on the host keeps its distance from such a boundary."""


class RealGpu:
    """The current GPU through CuPy; remembers what was launched."""

    def __init__(self) -> None:
        self.cupy: ModuleType = import_module("cupy")
        self.device = import_module("softmax_dask.kernels.cuda.cupy_device").CupyDevice()
        self.blocks = self.device.blocks
        self.launched: list[str] = []

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        return self.device.empty(shape, dtype)

    def launch(self, kernel: Kernel, blocks: int, arguments: tuple[Any, ...]) -> None:
        self.launched.append(kernel.name)
        self.device.launch(kernel, blocks, arguments)


class HostedGpu(RealGpu):
    """Takes arrays of the host, as the emulator does: copies them there, and back after the launch."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        return np.frombuffer(bytearray(b"\xa5" * (int(np.prod(shape)) * dtype.itemsize)), dtype).reshape(shape)

    def launch(self, kernel: Kernel, blocks: int, arguments: tuple[Any, ...]) -> None:
        copies = [self._copied(a) if isinstance(a, np.ndarray) else a for a in arguments]
        super().launch(kernel, blocks, tuple(copies))
        self.cupy.cuda.runtime.deviceSynchronize()
        for array, copy in zip(arguments, copies, strict=True):
            if isinstance(array, np.ndarray) and array.flags.writeable:
                _memory_of(array)[...] = self.cupy.asnumpy(copy)

    def _copied(self, array: Any) -> Any:
        memory = _memory_of(array)
        skip = np.lib.array_utils.byte_bounds(array)[0] % _ALIGNED
        copy = self.cupy.empty(skip + memory.size, np.uint8)[skip:]
        copy.set(memory)
        return copy


def _memory_of(array: Any) -> Any:
    """The bytes from its first item to its last one, those between its rows among them."""
    low, high = np.lib.array_utils.byte_bounds(array)
    size = high - low if array.size else 0
    return np.frombuffer((ctypes.c_uint8 * size).from_address(low), np.uint8)
