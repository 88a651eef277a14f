"""Derivatives on the CPU: one core, float32, into arrays that were there before where the package allows it.

jacobian: a dense block, (rows, classes, classes), beside `np.copyto` of as many bytes.
jvp: the product of the derivative with a vector, a row each, beside PyTorch by the formula s * (v - sum(s * v)).

    python -m benchmarks.products
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import script
from benchmarks.figures import Figure
from benchmarks.kernels import timed
from benchmarks.logits import exact_softmax, normal, rows_of
from benchmarks.measure import Effort, ratio
from benchmarks.peers import Contender, contenders
from softmax_dask import jacobian, jvp


def figures(effort: Effort) -> Iterator[Figure]:
    """All of them."""
    script.one_core()
    for classes in (10, 100, 1000):
        yield _jacobian(classes, effort)
    for classes in (10, 1000):
        yield from _jvp(classes, effort)


def _jacobian(classes: int, effort: Effort) -> Figure:
    x = normal((max(1, 2 * effort.kernel_bytes // (4 * classes**2)), classes))
    out = np.empty((*x.shape, classes), np.float32)
    other = np.zeros_like(out)
    ours = Contender(lambda: jacobian(x, out=out), lambda: out)
    timed({"ours": ours}, _exact_jacobian(x[:3]), effort)
    copy = Contender(lambda: np.copyto(out, other), lambda: out)
    seconds = timed({"ours": ours, "copyto": copy}, None, effort)
    rate = ratio(seconds, "copyto", "ours")
    return Figure("jacobian", f"{classes} classes", "of the rate of copyto", rate, "more")


def _jvp(classes: int, effort: Effort) -> Iterator[Figure]:
    shape = (rows_of(effort.kernel_bytes, classes), classes)
    x, v = normal(shape), normal(shape, scale=1.0, seed=1)
    kept: dict[str, NDArray[Any]] = {}

    def run() -> None:
        kept["product"] = jvp(x, v)

    others = contenders("torch", work="jvp", x=x, v=v)
    seconds = timed({"ours": Contender(run, lambda: kept["product"]), **others}, _exact_jvp(x[:50], v[:50]), effort)
    for who in others:
        yield Figure("jvp", f"{classes} classes", f"faster than {who}", ratio(seconds, who, "ours"), "more")


def _exact_jacobian(x: NDArray[Any]) -> NDArray[Any]:
    s = exact_softmax(x)
    return np.eye(x.shape[1]) * s[:, :, None] - s[:, :, None] * s[:, None, :]


def _exact_jvp(x: NDArray[Any], v: NDArray[Any]) -> NDArray[Any]:
    s = exact_softmax(x)
    found: NDArray[Any] = s * (v - (s * v).sum(axis=1, keepdims=True))
    return found


if __name__ == "__main__":
    script.main(__doc__, figures)
