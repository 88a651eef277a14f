"""Largest relative error of probabilities above 1e-30, beside long double. No times: the machine may be busy.

Every package gets the same float32 logits, and divides them by the temperature in float32 where it has no argument
for it. N(0, 6) + 10000 and U(-80, 80) are what offsets and wide logits do; in "a winner by 16.6" the exponential of
each other class is half an eps, which a plain sum loses beside the 1. "worst" is over all rows of the table.
float64: ours alone, in units of float64 eps, 2.2e-16.

    python -m benchmarks.exactness
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import script
from benchmarks.figures import Figure
from benchmarks.logits import exact_softmax, normal
from benchmarks.measure import Effort, Spread
from benchmarks.peers import peer
from softmax_dask import softmax

TABLE = "largest relative error"
CLASSES = (2, 3, 10, 16, 17, 100, 129, 257, 1000, 1013, 32000, 250000)
PEERS = ("torch", "scipy", "jax")

_LOGITS = {"tiny": 1 << 12, "quick": 1 << 18, "full": 1 << 21}
_SMALLEST = 1e-30
Probabilities = Callable[[NDArray[Any], float], NDArray[Any]]


def figures(effort: Effort) -> Iterator[Figure]:
    """A row each for class count and kind of logits, and the worst of all first."""
    who = {"softmax-dask": _ours} | {name: peer(name).probabilities for name in PEERS if peer(name)}
    found = [figure for name, x, temperature in _cases(effort) for figure in _row(name, x, temperature, who)]
    yield from _worst(found)
    yield _float64(effort)
    yield from found


def error(found: NDArray[Any], exact: NDArray[np.longdouble]) -> float:
    """Largest relative error where the probability is large enough to have one."""
    kept = exact >= _SMALLEST
    return float(np.abs(found[kept] / exact[kept] - 1).max())


def _cases(effort: Effort) -> Iterator[tuple[str, NDArray[Any], float]]:
    for classes in CLASSES:
        shape = (max(1, _LOGITS[effort.name] // classes), classes)
        usual, random = normal(shape), np.random.default_rng(1)
        wide = random.uniform(-80, 80, shape).astype(np.float32)
        yield f"{classes} classes, N(0, 6)", usual, 1.0
        yield f"{classes} classes, N(0, 6), temperature 1.7", usual, 1.7
        yield f"{classes} classes, N(0, 6) + 10000", usual + np.float32(10_000), 1.0
        yield f"{classes} classes, U(-80, 80)", wide, 1.0
        yield f"{classes} classes, U(-80, 80), temperature 0.3", wide, 0.3
        yield f"{classes} classes, a winner by 16.6", _with_a_winner(random, shape), 1.0


def _with_a_winner(random: np.random.Generator, shape: tuple[int, int]) -> NDArray[Any]:
    x = -16.6 + random.uniform(-0.15, 0.15, (shape[0], 1)) + random.normal(0, 0.01, shape)
    x[:, 0] = 0
    return x.astype(np.float32)


def _row(name: str, x: NDArray[Any], temperature: float, who: dict[str, Probabilities]) -> Iterator[Figure]:
    exact = exact_softmax(x, temperature)
    for package, probabilities in who.items():
        yield _figure(name, package, error(probabilities(x, temperature), exact))


def _worst(found: list[Figure]) -> Iterator[Figure]:
    for package in dict.fromkeys(figure.column for figure in found):
        largest = max(figure.spread.middle for figure in found if figure.column == package)
        yield _figure("worst, float32", package, largest)


def _figure(row: str, package: str, value: float) -> Figure:
    return Figure(TABLE, row, package, Spread.exactly(value), "less" if package == "softmax-dask" else "shown", "")


def _float64(effort: Effort) -> Figure:
    cases = ((x.astype(np.float64), temperature) for _, x, temperature in _cases(effort))
    errors = [error(_ours(x, temperature), exact_softmax(x, temperature)) for x, temperature in cases]
    return _figure("worst, float64, in eps", "softmax-dask", max(errors) / np.finfo(np.float64).eps)


def _ours(x: NDArray[Any], temperature: float) -> NDArray[Any]:
    found: NDArray[Any] = softmax(x, temperature=temperature)
    return found


if __name__ == "__main__":
    script.main(__doc__, figures)
