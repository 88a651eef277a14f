"""PyTorch: on one thread for kernels, on as many as the run has for dumps."""

from typing import Any

import numpy as np
import torch
import zarr
from numpy.typing import NDArray

from benchmarks.peers import Contender

torch.set_grad_enabled(False)


def softmax(x: NDArray[Any]) -> Contender:
    torch.set_num_threads(1)
    given = torch.from_numpy(x)
    out = torch.empty_like(given)
    return Contender(lambda: torch.softmax(given, 1, out=out), out.numpy)


def confidence(x: NDArray[Any]) -> Contender:
    """As it is written: `torch.softmax(x, 1).max(1)`. Label and confidence, no more."""
    torch.set_num_threads(1)
    given, kept = torch.from_numpy(x), {}

    def run() -> None:
        kept["values"] = torch.softmax(given, 1).max(1).values

    return Contender(run, lambda: kept["values"].numpy())


def confidence_into(x: NDArray[Any]) -> Contender:
    """The same into arrays that are there, the one between included."""
    torch.set_num_threads(1)
    given = torch.from_numpy(x)
    between, values = torch.empty_like(given), torch.empty(len(x))
    labels = torch.empty(len(x), dtype=torch.int64)

    def run() -> None:
        torch.softmax(given, 1, out=between)
        torch.max(between, 1, out=(values, labels))

    return Contender(run, values.numpy)


def top_k(x: NDArray[Any], k: int) -> Contender:
    """Logits and classes of the k largest; no probabilities."""
    torch.set_num_threads(1)
    given = torch.from_numpy(x)
    values, labels = torch.empty((len(x), k)), torch.empty((len(x), k), dtype=torch.int64)
    return Contender(lambda: torch.topk(given, k, 1, out=(values, labels)), labels.numpy)


def jvp(x: NDArray[Any], v: NDArray[Any]) -> Contender:
    """By the formula that its own derivative has: s * (v - sum(s * v))."""
    torch.set_num_threads(1)
    given, direction, kept = torch.from_numpy(x), torch.from_numpy(v), {}

    def run() -> None:
        s = torch.softmax(given, 1)
        kept["product"] = s * (direction - (s * direction).sum(1, keepdim=True))

    return Contender(run, lambda: kept["product"].numpy())


def probabilities(x: NDArray[Any], temperature: float) -> NDArray[Any]:
    return torch.softmax(torch.from_numpy(x) / temperature, 1).numpy()


def score(logits: "zarr.Array[Any]", out: dict[str, Any], *, rows: int, threads: int) -> None:
    """A loop over the array, `rows` rows at a time, into Zarr arrays."""
    torch.set_num_threads(threads)
    for start in range(0, logits.shape[0], rows):
        found = torch.softmax(torch.from_numpy(np.asarray(logits[start : start + rows])).float(), 1)
        best = found.max(1)
        parts = {"label": best.indices.to(torch.int32), "confidence": best.values, "probabilities": found}
        for name, array in out.items():
            array[start : start + rows] = parts[name].numpy()
