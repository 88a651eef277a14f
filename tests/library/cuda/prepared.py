"""The kernels that the contract tests need, so that they are compiled together; others are compiled when asked for."""

import ml_dtypes
import numpy as np

from softmax_dask.kernels.cuda import variants
from softmax_dask.kernels.cuda.variants import Kernel, Work
from tests.library.cuda.emulator import Schedule

QUICK = (Schedule(2, 0xFF, 3, 1),)
"""One schedule, shuffled: tests/library/cuda compares them all."""

FLOAT16, FLOAT32, FLOAT64 = (np.dtype(name) for name in ("float16", "float32", "float64"))
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_ALL = Work.DECIDE | Work.ENTROPY | Work.RANK
_CLASSES = {FLOAT16: (3, 100, 200, 257, 2500), BFLOAT16: (3, 100, 200, 257, 2500), FLOAT64: (3, 100, 200, 257, 2500)}
_FLOAT32_CLASSES = (3, 16, 100, 200, 257, 1000, 2500, 20000)
_PRODUCTS = ("jvp", "log_jvp", "log_vjp")


def kernels() -> list[Kernel]:
    """Each once."""
    found = [
        variants.row_kernel(classes, FLOAT32, FLOAT32, work) for classes in _FLOAT32_CLASSES for work in variants.WORKS
    ]
    for dtype, counts in _CLASSES.items():
        floats = FLOAT64 if dtype == FLOAT64 else FLOAT32
        found += [variants.row_kernel(classes, dtype, floats, work) for classes in counts for work in (Work(0), _ALL)]
    for dtype in variants.DTYPES:
        found += [variants.product_kernel(classes, dtype, kind) for classes in (3, 100) for kind in _PRODUCTS]
        found += [variants.share_kernel(classes, dtype) for classes in (3, 100)]
        found += [variants.top_k_kernel(classes, dtype) for classes in (3, 4097)]
        found.append(variants.row_kernel(3, dtype, FLOAT64 if dtype == FLOAT64 else FLOAT32, Work.DECIDE))
    found += [variants.matrix_kernel(FLOAT32), variants.matrix_kernel(FLOAT64)]
    return list({kernel.name: kernel for kernel in found}.values())
