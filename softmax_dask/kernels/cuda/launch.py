"""How kernels are launched: the one seam between the host code and whatever runs them."""

from typing import Any, Protocol

import numpy as np

from softmax_dask.kernels.cuda.variants import Kernel

Array = Any
"""An array in the memory of the device."""


class Device(Protocol):
    """What runs kernels: a GPU through CuPy, or in tests the emulator."""

    def blocks(self, kernel: Kernel) -> int:
        """The most blocks of a kernel that are worth it; each takes several rows, one after the other."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Memory for what one kernel leaves to the next."""

    def launch(self, kernel: Kernel, blocks: int, arguments: tuple[Any, ...]) -> None:
        """Run a kernel, in the order of the calls, without waiting for it.

        An argument is an array, a NumPy scalar of the width that the kernel declares, or None for no array.
        """


def launch_rows(device: Device, kernel: Kernel, rows: int, before: tuple[Any, ...], after: tuple[Any, ...]) -> None:
    """Launch a kernel that finishes a batch of rows at a time; the batch stands between the arguments.

    More rows make larger batches, which changes when a row is computed and no bit of it.
    """
    batch = min(max(1, rows // (kernel.rows * device.blocks(kernel))), kernel.members, 32)
    device.launch(kernel, blocks_for(device, kernel, rows, batch), (*before, np.int32(batch), *after))


def blocks_for(device: Device, kernel: Kernel, rows: int, batch: int = 1) -> int:
    """Blocks for so many rows; each goes on with the rows that no block has taken."""
    return min(device.blocks(kernel), -(-rows // (kernel.rows * batch)))
