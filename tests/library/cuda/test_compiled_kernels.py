"""The CUDA text under NVIDIA's own compiler, for every architecture, without a GPU."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softmax_dask.kernels.cuda import variants
from softmax_dask.kernels.cuda.text import OPTIONS, package_text, source
from softmax_dask.kernels.cuda.variants import Kernel, Work
from tests.library.cuda import nvrtc
from tests.library.cuda.prepared import FLOAT16, FLOAT32

pytestmark = pytest.mark.skipif(nvrtc.NVRTC is None, reason="no NVRTC: pip install nvidia-cuda-nvrtc-cu12")
disassembled = pytest.mark.skipif(nvrtc.NVDISASM is None, reason="no nvdisasm: pip install nvidia-cuda-nvdisasm")

ARCHITECTURES = (70, 75, 80, 86, 89, 90, 100, 120)
EVERY = list(variants.every_kernel())
A_THIRD = EVERY[::3]
"""All of them would take half an hour."""
RANKED, ALL = variants.WORKS[-2:]
FEW = [
    variants.row_kernel(10, FLOAT32, FLOAT32, Work.DECIDE),
    variants.row_kernel(1000, FLOAT16, FLOAT16, Work(0)),
    variants.product_kernel(10, FLOAT16, "log_vjp"),
]
"""A tile with all columns, a warp with results of 16 bits, and one that goes over its rows."""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_compile_for_every_architecture_and_spill_nothing(architecture):
    made = nvrtc.compiled(source(FEW), architecture, OPTIONS)

    assert made.spills() == {kernel.name: 0 for kernel in FEW}


PARTS = [
    (start, architecture)
    for i, start in enumerate(range(0, len(A_THIRD), 20))
    for architecture in dict.fromkeys((90, ARCHITECTURES[i % len(ARCHITECTURES)]))
]
"""Each for the one that was measured, and for one more."""


@pytest.mark.long
@pytest.mark.parametrize(("start", "architecture"), PARTS)
def test_kernels_of_every_place_compile_and_spill_nothing(start, architecture):
    kernels = A_THIRD[start : start + 20]

    made = nvrtc.compiled(source(kernels), architecture, OPTIONS)

    assert made.spills() == {kernel.name: 0 for kernel in kernels}


def test_the_text_includes_nothing():
    assert "#include" not in package_text()


# ---- machine code


def machine_code(kernel: Kernel, folder: Path) -> list[str]:
    made = nvrtc.compiled(source([kernel]), 90, OPTIONS)
    return nvrtc.instructions(made.cubin, folder)[kernel.name]


def loads(lines: list[str]) -> list[str]:
    return [line for line in lines if "LDG" in line]


@disassembled
@pytest.mark.parametrize(
    ("classes", "dtype", "work"),
    [
        (1000, FLOAT16, Work(0)),
        pytest.param(1000, FLOAT32, Work(0), marks=pytest.mark.long),
        pytest.param(2048, FLOAT32, Work.DECIDE, marks=pytest.mark.long),
    ],
    ids=str,
)
def test_logits_are_loaded_16_bytes_at_a_time(tmp_path, classes, dtype, work):
    lines = machine_code(variants.row_kernel(classes, dtype, FLOAT32, work), tmp_path)

    wide = [line for line in loads(lines) if ".128" in line]
    # All but those of a row's target, and for each pack one: so many are in flight before the first is used.
    assert len(wide) >= variants.place_of(classes, dtype, work).held
    assert not any("LDL" in line or "STL" in line for line in lines)
    if not work:
        assert wide == loads(lines)


BUDGETS: list[Any] = [
    # Instructions of a loop over the chunks of a row, with the way for rows that begin anywhere; a logit.
    (FLOAT16, Work.DECIDE, 19),
    pytest.param(FLOAT16, RANKED, 34, marks=pytest.mark.long),
    pytest.param(FLOAT16, ALL, 35, marks=pytest.mark.long),
    pytest.param(FLOAT32, Work.DECIDE, 30, marks=pytest.mark.long),
    pytest.param(FLOAT32, Work.DECIDE | Work.ENTROPY, 33, marks=pytest.mark.long),
]
"""What was counted, and a few per cent: more is a regression. Nothing here says how fast a GPU is."""


@disassembled
@pytest.mark.parametrize(("dtype", "work", "budget"), BUDGETS, ids=str)
def test_decisions_of_long_rows_keep_their_budget_of_instructions(tmp_path, dtype, work, budget):
    kernel = variants.row_kernel(100_000, dtype, None, work)
    logits_a_pass = variants.place_of(100_000, dtype, work).held * 16 // dtype.itemsize

    loop = nvrtc.innermost_loop(machine_code(kernel, tmp_path), r"LDG\.E.*128")

    assert len(loop) <= budget * logits_a_pass


@disassembled
@pytest.mark.parametrize("classes", [1000])
def test_16_bit_logits_cost_one_exponential_each(tmp_path, classes):
    kernel = variants.row_kernel(classes, FLOAT16, FLOAT16, Work(0))

    lines = nvrtc.innermost_loop(machine_code(kernel, tmp_path), r"LDG\.E.*128")

    # One a logit that a thread holds; a second one would take all that the unit can do at the memory's rate.
    assert sum("MUFU.EX2" in line for line in lines) == variants.place_of(classes, FLOAT16).held * 8


@pytest.mark.parametrize("dtype", variants.DTYPES, ids=str)
@pytest.mark.parametrize("classes", [1, 10, 64, 257, 1000, 2048, 50257, 262144])
def test_the_kernel_hangs_on_class_count_dtype_and_columns_alone(dtype, classes):
    wide = np.dtype(np.float64) if dtype == np.float64 else FLOAT32

    names = {variants.row_kernel(classes, dtype, w, work).name for work in variants.WORKS for w in (None, wide)}

    assert names <= {kernel.name for kernel in EVERY}
