"""CPU kernels, one thread, float32, 64 MB of N(0, 6) logits, outputs allocated before.

Speed: `softmax` beside SciPy's and beside `numpy.copyto` of the same array; label + confidence + margin + entropy
beside `x.max(axis=1)`, one read of it. Contenders take turns (A B A B); the figure is the median of
the ratios, above 1 is faster. Error: the largest relative error of probabilities above 1e-30, beside float64.

    python benchmarks/kernels.py
"""

from collections.abc import Callable
from statistics import median
from time import perf_counter

import numpy as np
import scipy.special

from softmax_dask import decisions
from softmax_dask.kernels.cpu.simd import FLOAT32_LANES

LOGITS = 1 << 24
CLASSES = (2, 10, 16, 100, 1000, 32000)
COLUMNS = ("label", "confidence", "margin", "entropy")
ROUNDS = 5


def main() -> None:
    print(f"float32 lanes: {FLOAT32_LANES} ({'AVX-512' if FLOAT32_LANES == 16 else 'AVX2 or narrower'})\n")
    print("| classes | softmax / SciPy | softmax / copyto | decisions / max | error | SciPy's error |")
    print("|---|---|---|---|---|---|")
    for classes in CLASSES:
        print(row_of(classes), flush=True)


def row_of(classes: int) -> str:
    x = np.random.default_rng(0).standard_normal((LOGITS // classes, classes), dtype=np.float32) * np.float32(6)
    wide = {"probabilities": np.empty_like(x)}
    narrow = decisions(x, COLUMNS)
    largest = np.empty(len(x), np.float32)

    def softmax() -> None:
        decisions(x, tuple(wide), out=wide)

    def decide() -> None:
        decisions(x, COLUMNS, out=narrow)

    figures = (
        ratio(softmax, lambda: scipy.special.softmax(x, axis=1)),
        ratio(softmax, lambda: np.copyto(wide["probabilities"], x)),
        ratio(decide, lambda: np.max(x, axis=1, out=largest)),
    )
    errors = (
        error_of(decisions(x[:2000], tuple(wide))["probabilities"], x),
        error_of(scipy.special.softmax(x[:2000], axis=1), x),
    )
    cells = [str(classes), *(f"{figure:.2f}x" for figure in figures), *(f"{error:.1e}" for error in errors)]
    return f"| {' | '.join(cells)} |"


def ratio(ours: Callable[[], object], peer: Callable[[], object]) -> float:
    """Median of peer's time over ours, of runs that take turns."""
    ours(), peer()
    return median(seconds(peer) / seconds(ours) for _ in range(ROUNDS))


def seconds(function: Callable[[], object]) -> float:
    begin = perf_counter()
    function()
    return perf_counter() - begin


def error_of(found: np.ndarray, x: np.ndarray) -> float:
    exact = scipy.special.softmax(x[: len(found)].astype(np.float64), axis=1)
    kept = exact > 1e-30
    return float(np.abs(found[kept] / exact[kept] - 1).max())


if __name__ == "__main__":
    main()
