"""CPU kernels: one core, float32, N(0, 6), outputs allocated before, through the library's public functions.

softmax: beside `torch.softmax(x, 1, out=)`, SciPy, JAX under jit, and `np.copyto` of the same array.
decisions: label + confidence + margin + entropy in one read, beside `torch.softmax(x, 1).max(1)`, which gives
label and confidence; "into" is the same with every array of it allocated before; and beside `x.max(axis=1)`,
one read of the array. "All columns" has logsumexp, max_logit, nll, target_probability and target_rank too, of targets
at random; "mostly right" the same where four of five targets are the label.
In cache: 256 KiB of logits, where the Python of a call weighs: `a call` is softmax of one row of ten.
Two threads: what two of them compute on two cores, each on 1 MiB of its own, over what one computes in that time.
PyTorch's own speed hangs on the instruction set: at 10 classes it is several times slower with AVX-512 than with AVX2.

    python -m benchmarks.kernels
"""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import script
from benchmarks.figures import Figure
from benchmarks.logits import exact_softmax, normal, rows_of
from benchmarks.measure import Effort, Seconds, Spread, in_turns, ratio
from benchmarks.peers import Contender, contenders, require_equal
from softmax_dask import decisions
from softmax_dask.kernels.cpu import softmax_rows

FOUR = ("label", "confidence", "margin", "entropy")
ALL = (*FOUR, "logsumexp", "max_logit", "nll", "target_probability", "target_rank")

_CACHE_BYTES = 256 << 10
_THREAD_BYTES = 1 << 20
_CHECKED_ROWS = 50
_RIGHT = 0.8


def figures(effort: Effort) -> Iterator[Figure]:
    """All of them."""
    yield from _two_threads(effort)
    script.one_core()
    for classes in effort.classes:
        x = normal((rows_of(effort.kernel_bytes, classes), classes))
        yield from _softmax(x, effort)
        yield from _decisions(x, effort)
    for classes in (1000, 32000):
        yield from _in_cache(normal((rows_of(_CACHE_BYTES, classes), classes)), effort)
    yield _call(effort)


def ours_softmax(x: NDArray[Any], dtype: Any = None) -> Contender:
    """Ours, into an array that is there."""
    out = {"probabilities": np.empty(x.shape, dtype or np.float32)}
    return Contender(lambda: decisions(x, ("probabilities",), out=out, dtype=dtype), lambda: out["probabilities"])


def ours_decisions(x: NDArray[Any], columns: tuple[str, ...] = FOUR, **options: Any) -> Contender:
    """Ours, into arrays that are there."""
    out = decisions(x, columns, **options)
    return Contender(lambda: decisions(x, columns, out=out, **options), lambda: out["confidence"])


def timed(given: Mapping[str, Contender], exact: NDArray[Any] | None, effort: Effort) -> Seconds:
    """Time contenders in turns, once each has given the right results."""
    for who, contender in given.items():
        contender.run()
        if exact is not None:
            require_equal(contender.result()[: len(exact)], exact, who=who)
    return in_turns({who: contender.run for who, contender in given.items()}, effort)


def _softmax(x: NDArray[Any], effort: Effort) -> Iterator[Figure]:
    others = contenders("torch", "scipy", "jax", work="softmax", x=x)
    seconds = timed({"ours": ours_softmax(x), **others}, exact_softmax(x[:_CHECKED_ROWS]), effort)
    row = f"{x.shape[1]} classes"
    for who in others:
        yield Figure("softmax", row, f"faster than {who}", ratio(seconds, who, "ours"), "more")
    out = np.empty_like(x)
    beside = {"ours": ours_softmax(x).run, "copyto": lambda: np.copyto(out, x)}
    yield Figure("softmax", row, "of the rate of copyto", ratio(in_turns(beside, effort), "copyto", "ours"), "more")
    yield _nanoseconds("softmax", seconds["ours"], x)


def _decisions(x: NDArray[Any], effort: Effort) -> Iterator[Figure]:
    others = contenders("torch", "jax", work="confidence", x=x)
    others |= {f"{who}, into": found for who, found in contenders("torch", work="confidence_into", x=x).items()}
    exact = exact_softmax(x[:_CHECKED_ROWS]).max(axis=1)
    targets = np.random.default_rng(1).integers(0, x.shape[1], len(x))
    mostly = np.where(np.random.default_rng(2).random(len(x)) < _RIGHT, x.argmax(axis=1), targets)
    ours = {"ours": ours_decisions(x)}
    ours |= {"all": ours_decisions(x, ALL, targets=targets), "mostly right": ours_decisions(x, ALL, targets=mostly)}
    seconds = timed(ours | others, exact, effort)
    row = f"{x.shape[1]} classes"
    for who in others:
        yield Figure("decisions", row, f"faster than {who}", ratio(seconds, who, "ours"), "more")
    largest = np.empty(len(x), np.float32)
    beside = {"ours": ours["ours"].run, "max": lambda: np.max(x, axis=1, out=largest)}
    yield Figure("decisions", row, "of the rate of max", ratio(in_turns(beside, effort), "max", "ours"), "more")
    yield Figure("decisions", row, "all columns, of the time", ratio(seconds, "all", "ours"), "less")
    yield Figure("decisions", row, "same, mostly right", ratio(seconds, "mostly right", "ours"), "less")
    yield _nanoseconds("decisions", seconds["ours"], x)


def _in_cache(x: NDArray[Any], effort: Effort) -> Iterator[Figure]:
    others = contenders("torch", "jax", work="softmax", x=x)
    ours = {"ours": ours_softmax(x), "kernel": _kernel_alone(x)}
    given = {who: _repeated(contender) for who, contender in (ours | others).items()}
    seconds = timed(given, exact_softmax(x), effort)
    row = f"{x.shape[1]} classes"
    for who in others:
        yield Figure("in cache", row, f"faster than {who}", ratio(seconds, who, "ours"), "more")
        yield Figure("in cache", row, f"the kernel alone, than {who}", ratio(seconds, who, "kernel"), "more")


def _kernel_alone(x: NDArray[Any]) -> Contender:
    """Without the checks of the public function."""
    out = np.empty_like(x)
    return Contender(lambda: softmax_rows(x, out, 1.0), lambda: out)


def _repeated(contender: Contender, times: int = 50) -> Contender:
    def run() -> None:
        for _ in range(times):
            contender.run()

    return Contender(run, contender.result)


def _call(effort: Effort) -> Figure:
    seconds = timed({"ours": _repeated(ours_softmax(normal((1, 10))))}, None, effort)["ours"]
    return Figure("in cache", "a call", "microseconds", Spread.of([taken / 50 * 1e6 for taken in seconds]), "shown", "")


def _two_threads(effort: Effort) -> Iterator[Figure]:
    """Nothing on a machine of one core."""
    if len(os.sched_getaffinity(0)) < 2:
        return
    for what, ours in (("softmax", ours_softmax), ("decisions", ours_decisions)):
        work = [_repeated(ours(normal((rows_of(_THREAD_BYTES, 1000), 1000))), 50).run for _ in range(2)]
        with ThreadPoolExecutor(2) as pool:
            given = {
                "one": Contender(lambda pool=pool, work=work: wait([pool.submit(work[0])]), lambda: None),
                "two": Contender(lambda pool=pool, work=work: wait([pool.submit(run) for run in work]), lambda: None),
            }
            seconds = timed(given, None, effort)
        times = ratio(seconds, "one", "two")
        both = Spread(2 * times.low, 2 * times.middle, 2 * times.high)
        yield Figure("two threads", what, "of what one computes", both, "more")


def _nanoseconds(table: str, seconds: Any, x: NDArray[Any]) -> Figure:
    spread = Spread.of([taken / x.size * 1e9 for taken in seconds])
    return Figure(table, f"{x.shape[1]} classes", "ns a logit", spread, "shown", "")


if __name__ == "__main__":
    script.main(__doc__, figures)
