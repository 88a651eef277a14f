"""As much of CuPy as is called, on the host: arrays that keep their type, functions that make them, and streams.

Copies on a stream happen late: those to the device before the next kernel, those back when somebody waits. So what is
read too early, or overwritten, is wrong.
"""

from collections.abc import Callable
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from tests.library.cuda.emulator import Emulator


def fake_cupy() -> ModuleType:
    """A module of the name `cupy`."""
    module = ModuleType("cupy")
    kind: Any = type("ndarray", (np.ndarray,), {"__module__": "cupy", "set": _set, "get": _get})

    def made(array: Any) -> Any:
        return array.view(kind)

    module.ndarray = kind  # type: ignore[attr-defined]
    functions = {
        "arange": lambda stop: made(np.arange(stop)),
        "asarray": lambda array, dtype=None: made(np.asanyarray(array, dtype)),
        "ascontiguousarray": lambda array: made(np.require(array, requirements="C")),
        "asnumpy": lambda array: array.view(np.ndarray),
        "concatenate": lambda arrays, axis=0: made(np.concatenate(arrays, axis)),
        "take": np.take,
        "tensordot": np.tensordot,
        "exp": np.exp,
        "log1p": np.log1p,
        "maximum": np.maximum,
        "empty": lambda shape, dtype: made(np.empty(shape, dtype)),
        "may_share_memory": np.may_share_memory,
        "moveaxis": np.moveaxis,
        "zeros": lambda shape, dtype: made(np.zeros(shape, dtype)),
        "where": lambda *arguments: made(np.where(*arguments)),
    }
    for name, function in functions.items():
        setattr(module, name, function)
    module.cuda = SimpleNamespace(Stream=FakeStream, Device=lambda number: nullcontext())  # type: ignore[attr-defined]
    return module


def fake_cupyx() -> ModuleType:
    """A module of the name `cupyx`."""
    module = ModuleType("cupyx")
    module.empty_pinned = lambda shape, dtype: np.full(shape, 0xA5, dtype)  # type: ignore[attr-defined]
    return module


class FakeStream:
    """Work in the order in which it was given, done when somebody waits."""

    current: "FakeStream | None" = None

    def __init__(self, *, non_blocking: bool) -> None:
        assert non_blocking, "else it waits for the streams of others"
        self.work: list[Callable[[], None]] = []

    def __enter__(self) -> "FakeStream":
        FakeStream.current = self
        return self

    def __exit__(self, *_: object) -> None:
        FakeStream.current = None

    def synchronize(self) -> None:
        for done in self.work:
            done()
        self.work.clear()


def _set(self: Any, array: Any, stream: FakeStream) -> None:
    stream.work.append(lambda: np.copyto(self, array))


def _get(self: Any, stream: FakeStream | None = None, out: Any = None, blocking: bool = True) -> Any:
    if out is None:
        return self.view(np.ndarray).copy()
    assert stream is not None
    assert not blocking
    stream.work.append(lambda: np.copyto(out, self.view(np.ndarray)))
    return out


class FakeDevice:
    """The emulator, as a device that sees no array of the host."""

    def __init__(self, emulator: Emulator, cupy: ModuleType) -> None:
        self.emulator, self.cupy = emulator, cupy
        self.blocks, self.launched = emulator.blocks, emulator.launched

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self.cupy.empty(shape, dtype)

    def launch(self, kernel: Any, blocks: int, arguments: tuple[Any, ...]) -> None:
        strangers = [a for a in arguments if isinstance(a, np.ndarray) and not isinstance(a, self.cupy.ndarray)]
        assert not strangers, f"{kernel.name} was given arrays of the host"
        if FakeStream.current is not None:
            FakeStream.current.synchronize()
        self.emulator.launch(kernel, blocks, arguments)
