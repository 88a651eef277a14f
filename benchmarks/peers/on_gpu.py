"""A GPU through CuPy: timing, checks, and the peers that are installed. Imported on a machine that has one."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from time import perf_counter
from typing import Any

import cupy
import cupyx
import cupyx.scipy.special
import numpy as np

import softmax_dask

Job = tuple[Callable[[], Any], int]
"""What to run, and the bytes that must move."""

_TOLERANCES = {2: 1e-5, 4: 4.8e-7, 8: 8 * 2.3e-16}
"""Of probabilities, relative, by the bytes of a logit: the contract."""


_HEAD_START = 1 << 29
"""Bytes that the device copies before each run: about 0.3 ms, in which the host puts all of the run on the stream. So
the host's own time is not measured where the device's is longer, and nothing of the run before is left in a cache."""


class Gpu:
    """The current device."""

    def __init__(self) -> None:
        self._ahead = cupy.zeros(_HEAD_START, np.uint8), cupy.zeros(_HEAD_START, np.uint8)
        properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
        self.card = properties["name"].decode()
        self.torch = _optional("torch")
        self.versions = [f"CuPy {cupy.__version__}", f"driver {cupy.cuda.runtime.driverGetVersion()}"]
        if self.torch is not None:
            self.versions.append(f"PyTorch {self.torch.__version__}")

    def free(self) -> None:
        cupy.get_default_memory_pool().free_all_blocks()
        if self.torch is not None:
            self.torch.cuda.empty_cache()

    def random(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> Any:
        made = cupy.empty(shape, dtype)
        for rows in _slices(shape[0], max(1, (1 << 26) // shape[1])):
            made[rows] = cupy.random.standard_normal((rows.stop - rows.start, shape[1]), np.float32) * 4
        return made

    def seconds(self, run: Callable[[], Any], repeats: int, warm_up: int) -> float:
        """The median of some runs, as the device's own clock has it."""
        for _ in range(warm_up):
            run()
        times = []
        for _ in range(repeats):
            begin, end = cupy.cuda.Event(), cupy.cuda.Event()
            self._ahead[0].data.copy_from_device_async(self._ahead[1].data, _HEAD_START)
            begin.record()
            run()
            end.record()
            end.synchronize()
            times.append(cupy.cuda.get_elapsed_time(begin, end) / 1e3)
        return float(np.median(times))

    def copy_rate(self, size: int, repeats: int) -> float:
        source, target = cupy.arange(size // 4, dtype=np.uint32).view(np.uint8), cupy.empty(size, np.uint8)
        return 2 * size / self.seconds(lambda: target.data.copy_from_device_async(source.data, size), repeats, 3) / 1e9

    def read_rate(self, size: int, repeats: int) -> float:
        """Of a sum, which reads all and writes next to nothing."""
        source = cupy.arange(size // 4, dtype=np.float32)
        return size / self.seconds(source.sum, repeats, 3) / 1e9

    # ---- what is measured

    def softmaxes(self, logits: Any) -> dict[str, Job]:
        """softmax in the dtype of the logits, ours and the peers'."""
        moved = 2 * logits.nbytes
        out = {"probabilities": cupy.empty_like(logits)}
        ours = lambda: softmax_dask.decisions(logits, ("probabilities",), dtype=logits.dtype, out=out)  # noqa: E731
        jobs: dict[str, Job] = {"softmax-dask": (ours, moved)}
        if logits.dtype.kind == "f" and logits.dtype.itemsize >= 4:
            jobs["cupyx.scipy.special.softmax"] = (lambda: cupyx.scipy.special.softmax(logits, axis=1), moved)
        if self.torch is not None:
            tensor = self._tensor(logits)
            jobs["torch.softmax"] = (lambda: self.torch.softmax(tensor, 1), moved)
            if (fused := _triton_softmax(self.torch, tensor)) is not None:
                jobs["Triton, fused"] = (fused, moved)
        return jobs

    def decisions(self, logits: Any, columns: tuple[str, ...]) -> Job:
        floats = np.float64 if logits.dtype == np.float64 else np.float32
        out = {n: cupy.empty(len(logits), np.int32 if n == "label" else floats) for n in columns}
        moved = logits.nbytes + sum(array.nbytes for array in out.values())
        return (lambda: softmax_dask.decisions(logits, columns, out=out)), moved

    def _tensor(self, array: Any) -> Any:
        if array.dtype.kind == "f":
            return self.torch.from_dlpack(array)
        return self.torch.from_dlpack(array.view(np.int16)).view(self.torch.bfloat16)

    # ---- right or wrong

    def wrong_results(self, class_counts: tuple[int, ...], dtypes: tuple[np.dtype[Any], ...]) -> list[str]:
        """What breaks the contract, on rows with masks, ties and undecidable ones among them."""
        cases = ((classes, dtype) for dtype in dtypes for classes in class_counts)
        return [text for classes, dtype in cases for text in self._wrong(classes, dtype)]

    def _wrong(self, classes: int, dtype: np.dtype[Any]) -> Iterator[str]:
        logits = self.random((257 if classes < 5000 else 65, classes), dtype)
        logits[3], logits[4, classes // 2], logits[5, 0] = -np.inf, np.nan, np.inf
        logits[6] = logits[6, 0]
        found = softmax_dask.decisions(logits, ("label", "confidence", "probabilities"))
        expected = _exact(cupy.asnumpy(logits).astype(np.longdouble))
        case = f"{classes} classes of {dtype}"
        if not np.array_equal(cupy.asnumpy(found["label"]), expected["label"]):
            yield f"labels of {case}"
        for name in ("confidence", "probabilities"):
            error = _relative_error(cupy.asnumpy(found[name]), expected[name])
            if not error <= _TOLERANCES[dtype.itemsize]:
                yield f"{name} of {case}: off by {error:.1e}"

    # ---- from the host

    def stream_rates(self, size: int) -> dict[str, float]:
        """Logits of the host, in blocks as `score` has them: copied alone, and decided by one thread and by many."""
        streams = import_module("softmax_dask_pipelines.streaming").HostStreams()
        rows, classes = (8 << 20) // 2000, 1000
        block = np.random.default_rng(0).normal(0, 4, (rows, classes)).astype(np.float16)
        options: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "dtype": np.dtype(np.float32)}
        pinned, device = cupyx.empty_pinned(block.shape, block.dtype), cupy.empty(block.shape, block.dtype)
        count = size // block.nbytes

        def decide(_: Any = None) -> None:
            out = {"label": np.empty(rows, np.int32), "confidence": np.empty(rows, np.float32)}
            streams(block, tuple(out), out=out, **options)

        rates = {"copied from pinned memory": _rate(lambda _: device.set(pinned), count, block.nbytes, map)}
        for threads in (1, os.cpu_count() or 1):
            with ThreadPoolExecutor(threads) as pool:
                rates[f"decided by {threads} threads"] = _rate(decide, count, block.nbytes, pool.map)
        return rates


def _rate(run: Callable[[Any], Any], count: int, size: int, all_of: Callable[..., Iterable[Any]]) -> float:
    for _ in range(2):  # the first time is a warm-up
        begin = perf_counter()
        list(all_of(run, range(count)))
        cupy.cuda.Device().synchronize()
    return count * size / (perf_counter() - begin) / 1e9


def _slices(rows: int, step: int) -> Iterator[slice]:
    return (slice(start, min(rows, start + step)) for start in range(0, rows, step))


def _exact(x: Any) -> dict[str, Any]:
    with np.errstate(all="ignore"):
        terms = np.exp(x - x.max(axis=1, keepdims=True))
        probabilities = terms / terms.sum(axis=1, keepdims=True)
    decided = ~np.isnan(probabilities[:, 0])
    confidence = np.where(decided, probabilities.max(axis=1), np.nan)
    return {
        "label": np.where(decided, x.argmax(axis=1), -1),
        "confidence": confidence,
        "probabilities": probabilities,
    }


def _relative_error(found: Any, expected: Any) -> float:
    if not np.array_equal(np.isnan(found), np.isnan(expected)):
        return float("inf")
    counted = expected > 1e-30
    return float((np.abs(found - expected)[counted] / expected[counted]).max(initial=0))


def _optional(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        return None


def _triton_softmax(torch: Any, tensor: Any) -> Callable[[], Any] | None:
    """A row a program, in one piece, for rows that fit one."""
    triton = _optional("triton")
    if triton is None or tensor.shape[1] > 65536 or tensor.dtype == torch.float64:
        return None
    kernel = import_module("benchmarks.peers.triton_softmax").softmax_kernel
    out = torch.empty_like(tensor)
    rows, classes = tensor.shape
    block = triton.next_power_of_2(classes)
    warps = 4 if block < 2048 else 8 if block < 4096 else 16
    run = lambda: kernel[(rows,)](tensor, out, classes, BLOCK=block, num_warps=warps)  # noqa: E731
    try:
        run()
    except Exception as error:  # of its compiler: a peer that fails must not take our figures with it
        print(f"Triton fails: {error}", file=sys.stderr)
        return None
    return run
