"""As much of CuPy as the library calls, on the host: arrays that keep their type, and functions that make them."""

from types import ModuleType
from typing import Any

import numpy as np

from tests.library.cuda.emulator import Emulator


def fake_cupy() -> ModuleType:
    """A module of the name `cupy`."""
    module = ModuleType("cupy")
    kind: Any = type("ndarray", (np.ndarray,), {"__module__": "cupy"})

    def made(array: Any) -> Any:
        return array.view(kind)

    module.ndarray = kind  # type: ignore[attr-defined]
    functions = {
        "asarray": lambda array, dtype=None: made(np.asanyarray(array, dtype)),
        "ascontiguousarray": lambda array: made(np.require(array, requirements="C")),
        "asnumpy": lambda array: array.view(np.ndarray),
        "concatenate": lambda arrays, axis=0: made(np.concatenate(arrays, axis)),
        "take": np.take,
        "tensordot": np.tensordot,
        "empty": lambda shape, dtype: made(np.empty(shape, dtype)),
        "may_share_memory": np.may_share_memory,
        "moveaxis": np.moveaxis,
        "where": lambda *arguments: made(np.where(*arguments)),
    }
    for name, function in functions.items():
        setattr(module, name, function)
    return module


class FakeDevice:
    """The emulator, as a device that sees no array of the host."""

    def __init__(self, emulator: Emulator, cupy: ModuleType) -> None:
        self.emulator, self.cupy = emulator, cupy
        self.blocks = emulator.blocks

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self.cupy.empty(shape, dtype)

    def launch(self, kernel: Any, blocks: int, arguments: tuple[Any, ...]) -> None:
        strangers = [a for a in arguments if isinstance(a, np.ndarray) and not isinstance(a, self.cupy.ndarray)]
        assert not strangers, f"{kernel.name} was given arrays of the host"
        self.emulator.launch(kernel, blocks, arguments)
