"""The kernels that the quick tests need, so that they are compiled together; others are compiled when asked for."""

from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from softmax_dask.kernels.cuda import variants
from softmax_dask.kernels.cuda.variants import Kernel, Work
from tests.library.cuda.emulator import Schedule

QUICK = (Schedule(2, 0xFF, 3, 1),)
"""One schedule, shuffled: tests/library/cuda compares them all."""

FLOAT16, FLOAT32, FLOAT64 = (np.dtype(name) for name in ("float16", "float32", "float64"))
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
CLASS_COUNTS = {
    FLOAT32: (1, 2, 3, 100, 257, 1000, 1001, 2500),
    FLOAT16: (3, 200, 257, 2500),
    BFLOAT16: (3, 257),
    FLOAT64: (3, 257),
}
"""Of quick tests: a tile, part of a warp, a warp, several warps."""
_PRODUCTS = ("jvp", "log_jvp", "log_vjp")


def is_quick(params: Mapping[str, Any]) -> bool:
    """Whether a case of the contract needs none but these kernels."""
    case = params.get("case")
    dtype = np.dtype(params.get("dtype") or params.get("precision") or (case.dtype if case else FLOAT32))
    classes = params.get("classes", case.classes if case else 3)
    return _place(classes, dtype) in {_place(c, dtype) for c in CLASS_COUNTS[dtype]}


def _place(classes: int, dtype: np.dtype[Any]) -> variants.Place:
    return variants.place_of(classes, dtype)


def kernels() -> list[Kernel]:
    """Each once."""
    return list({kernel.name: kernel for kernel in _kernels()}.values())


def _kernels() -> Iterator[Kernel]:
    for dtype, counts in CLASS_COUNTS.items():
        floats = FLOAT64 if dtype == FLOAT64 else FLOAT32
        works = variants.WORKS if dtype in (FLOAT32, FLOAT16) else (Work.DECIDE, variants.WORKS[-1])
        yield from (variants.row_kernel(classes, dtype, None, work) for classes in counts for work in works)
        works = (Work(0), variants.WORKS[0], variants.WORKS[-1])
        yield from (variants.row_kernel(classes, dtype, floats, work) for classes in counts for work in works)
        yield from (variants.product_kernel(classes, dtype, kind) for classes in (3, 100) for kind in _PRODUCTS)
        yield from (variants.share_kernel(classes, dtype) for classes in (3, 100))
        yield from (variants.top_k_kernel(classes, dtype) for classes in (3, 4097))
    yield from (variants.matrix_kernel(floats) for floats in (FLOAT32, FLOAT64))
    yield from (variants.row_kernel(50257, FLOAT16, None, work) for work in variants.WORKS)
    yield variants.row_kernel(16, FLOAT32, FLOAT32, Work(0))
