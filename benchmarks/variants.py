"""CPU kernels: other dtypes, the k largest, another axis; one core, outputs allocated before.

dtypes: rate per logit beside float32, of the same number of logits. decisions: label, confidence, margin, entropy.
top_k: beside those decisions of the same array, and beside `torch.topk`, which gives logits and no probabilities.
axis 1 of (N, C, H, W): beside the same number of logits with the classes side by side.

    python -m benchmarks.variants
"""

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from benchmarks import script
from benchmarks.figures import Figure
from benchmarks.kernels import ours_decisions, ours_softmax, timed
from benchmarks.logits import exact_softmax, normal, rows_of
from benchmarks.measure import Effort, ratio
from benchmarks.peers import Contender, contenders
from softmax_dask import decisions

_TOP_K = ("top_k_labels", "top_k_probabilities")
_PIXELS = 64


def figures(effort: Effort) -> Iterator[Figure]:
    """All of them with full effort, else those that have a target."""
    script.one_core()
    is_full = effort.name == "full"
    for classes in (10, 16, 100, 1000, 32000) if is_full else (10, 1000):
        yield from _dtypes(classes, effort)
    for classes, k in ((1000, 5), (50000, 64), *(((50000, 5), (1000, 64)) if is_full else ())):
        yield from _top_k(classes, k, effort)
    for classes in (20, 150):
        yield _axis(classes, effort)


def _dtypes(classes: int, effort: Effort) -> Iterator[Figure]:
    x = normal((rows_of(effort.kernel_bytes, classes), classes))
    by_name = {"float32": x, "float16": x.astype(np.float16), "float64": x.astype(np.float64)}
    by_name["bfloat16"] = x.astype(ml_dtypes.bfloat16)
    softmax = {name: ours_softmax(array, _result(array)) for name, array in by_name.items()}
    yield from _beside_float32(softmax, "softmax", classes, effort)
    yield from _beside_float32(
        {name: ours_decisions(array) for name, array in by_name.items()}, "decisions", classes, effort
    )


def _result(x: NDArray[Any]) -> Any:
    return np.float64 if x.dtype == np.float64 else np.float32


def _beside_float32(given: dict[str, Contender], what: str, classes: int, effort: Effort) -> Iterator[Figure]:
    seconds = timed(given, None, effort)
    for name in ("float16", "bfloat16", "float64"):
        yield Figure("dtypes", f"{classes} classes", f"{name} {what}", ratio(seconds, "float32", name), "more")


def _top_k(classes: int, k: int, effort: Effort) -> Iterator[Figure]:
    x = normal((rows_of(effort.kernel_bytes, classes), classes))
    given = {"ours": _ours_top_k(x, k), "decisions": ours_decisions(x), "both": _ours_top_k(x, k, ("label", "entropy"))}
    others = contenders("torch", work="top_k", x=x, k=k)
    for who, contender in others.items():
        contender.run()
        np.testing.assert_array_equal(np.take_along_axis(x, contender.result(), 1), _largest(x, k), err_msg=who)
    seconds = timed(given | others, None, effort)
    row = f"k = {k} of {classes}"
    yield Figure("top_k", row, "of the time of decisions", ratio(seconds, "ours", "decisions"), "less")
    yield Figure("top_k", row, "with label and entropy, of their time", ratio(seconds, "both", "decisions"), "less")
    for who in others:
        yield Figure("top_k", row, f"faster than {who}", ratio(seconds, who, "ours"), "more")


def _ours_top_k(x: NDArray[Any], k: int, more: tuple[str, ...] = ()) -> Contender:
    columns = (*more, *_TOP_K)
    out = decisions(x, columns, top_k=k)
    np.testing.assert_array_equal(np.take_along_axis(x, out["top_k_labels"], 1), _largest(x, k), err_msg="ours")
    return Contender(lambda: decisions(x, columns, top_k=k, out=out), lambda: out["top_k_labels"])


def _largest(x: NDArray[Any], k: int) -> NDArray[Any]:
    largest: NDArray[Any] = -np.sort(-x, axis=1)[:, :k]
    return largest


def _axis(classes: int, effort: Effort) -> Figure:
    images = max(1, effort.kernel_bytes // (4 * classes * _PIXELS**2))
    x = normal((images, classes, _PIXELS, _PIXELS))
    side_by_side = np.ascontiguousarray(np.moveaxis(x, 1, -1)).reshape(-1, classes)
    out = np.moveaxis(np.empty((images, _PIXELS, _PIXELS, classes), np.float32), -1, 1)
    apart = Contender(
        lambda: decisions(x, ("probabilities",), axis=1, out={"probabilities": out}),
        lambda: np.moveaxis(out, 1, -1).reshape(-1, classes),
    )
    given = {"apart": apart, "contiguous": ours_softmax(side_by_side)}
    seconds = timed(given, exact_softmax(side_by_side[:50]), effort)
    rate = ratio(seconds, "contiguous", "apart")
    return Figure("axis 1 of (N, C, H, W)", f"{classes} classes", "of the contiguous rate", rate, "more")


if __name__ == "__main__":
    script.main(__doc__, figures)
