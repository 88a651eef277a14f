"""Rows of the host computed on a GPU: copied through pinned memory, on several streams, so that copies overlap work.

The one module of the pipelines that imports CuPy; imported when a GPU is asked for. Tested with a stand-in for CuPy
where there is no GPU.
"""

from collections.abc import Mapping
from threading import Lock
from typing import Any

import cupy
import cupyx
import numpy as np
from numpy.typing import NDArray

from softmax_dask import decisions

_SLOTS = 3
"""One piece is copied to the device, one computed, one copied back."""
_PIECE_BYTES = 4 << 20
"""Of logits, at least: putting a piece on a stream costs about as much as copying a megabyte."""

Arrays = Mapping[str, NDArray[Any]]


def try_device() -> None:
    """Compute something, or raise what keeps it from being computed."""
    found = decisions(cupy.zeros((1, 2), np.float32), ("label",))["label"]
    if int(found.get()[0]) != 0:
        raise RuntimeError("the GPU computes wrong labels")


class HostStreams:
    """`decisions` of arrays of the host into arrays of the host, on one GPU.

    Each caller copies to and from pinned memory of its own, at the same time as others; one at a time puts its work on
    the GPU.
    """

    def __init__(self, device: int = 0) -> None:
        self._device = device
        self._turn = Lock()
        self._idle: list[list[_Slot]] = []

    def __reduce__(self) -> tuple[type["HostStreams"], tuple[int]]:
        """In another process there are streams of its own."""
        return HostStreams, (self._device,)

    def __call__(
        self,
        logits: NDArray[Any],
        columns: tuple[str, ...],
        *,
        out: Arrays,
        targets: NDArray[np.int64] | None = None,
        **options: Any,
    ) -> None:
        """Fill the arrays of `out`; arguments as of `softmax_dask.decisions`."""
        step = _rows_of_piece(logits)
        with cupy.cuda.Device(self._device):
            slots = self._taken()
            try:
                for i, start in enumerate(range(0, len(logits), step)):
                    rows = slice(start, start + step)
                    part = {name: out[name][rows] for name in columns}
                    truth = None if targets is None else targets[rows]
                    slots[i % _SLOTS].begin(logits[rows], truth, part, options)
                for slot in slots:
                    slot.finish()
            finally:
                for slot in slots:
                    slot.forget()
                self._idle.append(slots)

    def _taken(self) -> list["_Slot"]:
        try:
            return self._idle.pop()
        except IndexError:  # more callers at a time than ever before
            return [_Slot(self._turn) for _ in range(_SLOTS)]


def _rows_of_piece(logits: NDArray[Any]) -> int:
    """A third of the rows, or as many as are worth it."""
    third, worth = -(-len(logits) // _SLOTS), -(-_PIECE_BYTES // max(1, logits[:1].nbytes))
    return max(1, min(len(logits), max(third, worth)))


class _Slot:
    """A stream, and the pinned memory that it copies from and to."""

    def __init__(self, turn: Lock) -> None:
        self._turn = turn
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._memory: dict[str, NDArray[np.uint8]] = {}
        self._waiting: list[tuple[NDArray[Any], NDArray[Any]]] = []

    def begin(
        self, logits: NDArray[Any], targets: NDArray[np.int64] | None, out: Arrays, options: Mapping[str, Any]
    ) -> None:
        """Copy, compute and copy back, without waiting for any of it."""
        self.finish()
        given = self._pinned("logits", logits.shape, logits.dtype.newbyteorder("="))
        given[...] = logits  # 16-bit logits cross the bus as they are
        with self._turn, self._stream:
            on_device = cupy.empty(given.shape, given.dtype)
            on_device.set(given, stream=self._stream)
            found = {name: cupy.empty(array.shape, array.dtype) for name, array in out.items()}
            decisions(on_device, tuple(out), targets=targets, out=found, **options)
            for name, array in found.items():
                pinned = self._pinned(name, array.shape, array.dtype)
                array.get(stream=self._stream, out=pinned, blocking=False)
                self._waiting.append((pinned, out[name]))

    def finish(self) -> None:
        """Wait, and hand over what came back."""
        if self._waiting:
            self._stream.synchronize()
        for pinned, wanted in self._waiting:
            wanted[...] = pinned
        self._waiting.clear()

    def forget(self) -> None:
        """After an error: wait, so that nothing is copied into memory that is used again."""
        if self._waiting:
            self._stream.synchronize()
            self._waiting.clear()

    def _pinned(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        size = int(np.prod(shape)) * dtype.itemsize
        if name not in self._memory or self._memory[name].size < size:
            self._memory[name] = cupyx.empty_pinned(max(1, size), np.uint8)
        array: NDArray[Any] = self._memory[name][:size].view(dtype).reshape(shape)
        return array
