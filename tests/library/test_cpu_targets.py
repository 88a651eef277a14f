"""The kernels on other CPUs than this one, in processes of their own; and 16 lanes, which LLVM splits where it must."""

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from softmax_dask.kernels import cpu
from softmax_dask.kernels.cpu import simd

ROOT = Path(__file__).parents[2]

HASWELL = "+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+popcnt,+sse4.1,+sse4.2,+ssse3,+sse3"
TARGETS = {
    "generic": {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},  # no FMA, no F16C
    "haswell": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": HASWELL},
    "16 lanes": {},
}

DTYPES = {
    "float16": "float16 and not bfloat16",
    "bfloat16": "bfloat16",
    "float32": "not float16 and not float64",  # and the tests that have no dtype in their name
    "float64": "float64",
}
# Of the contract, one temperature and one spread: the others find nothing that depends on the CPU.
OTHER_CASES = "uniform or offset or T0.1 or T1.7 or T100"
CONTRACT = [
    ("haswell", "float16"),
    *(
        pytest.param(target, dtype, marks=pytest.mark.long)
        for target, dtype in (
            *(("generic", dtype) for dtype in ("float16", "bfloat16", "float32", "float64")),
            *(("haswell", dtype) for dtype in ("float32", "bfloat16", "float64")),
            *(("16 lanes", "float16"), ("16 lanes", "float32")),
        )
    ),
]

PYTEST = """
import sys
import pytest
from softmax_dask.kernels.cpu import simd
if sys.argv[1] == "16 lanes":
    simd.FLOAT32_LANES = 16
sys.exit(pytest.main(sys.argv[2:]))
"""

BITS = """
import hashlib, json, sys
import numpy as np
from softmax_dask.kernels import cpu
from softmax_dask.kernels.cpu import simd
if sys.argv[1] == "16 lanes":
    simd.FLOAT32_LANES = 16
bits = {}
for classes in (30, 100, 300):
    rng = np.random.default_rng(classes)
    logits, targets = rng.normal(0, 6, (333, classes)).astype("float32"), rng.integers(0, classes, 333)
    out = {name: np.zeros(333, "float32") for name in ("confidence", "margin", "entropy", "logsumexp", "nll")}
    out["log_probabilities"], alone = np.zeros((2, 333, classes), "float32")
    cpu.decision_rows(logits, targets, out, 1.7)
    cpu.softmax_rows(logits, alone, 1.7)
    columns = out | {"softmax": alone}
    bits[str(classes)] = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in columns.items()}
print(json.dumps(bits))
"""

FACTS = """
import json
from softmax_dask.kernels import cpu
from softmax_dask.kernels.cpu import simd
print(json.dumps([cpu.NAME, simd.FLOAT32_LANES, simd.CONVERTS_HALVES]))
"""


@pytest.fixture
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for compiled kernels that all tests of this run share."""
    return tmp_path_factory.getbasetemp() / "targets"


@pytest.mark.slow
@pytest.mark.parametrize(("target", "dtype"), CONTRACT)
def test_the_contract_holds_on_another_cpu(caches, target, dtype):
    chosen = f"cpu and {DTYPES[dtype]} and not ({OTHER_CASES})"

    ended = on(target, caches, PYTEST, "-q", "-x", "-p", "no:cacheprovider", "-k", chosen, *contract_files())

    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["generic", "haswell"])
def test_vectors_round_and_decode_alike_on_another_cpu(caches, target):
    chosen = "(fma or half or float16 or 16_bit) and not decisions"
    files = "tests/library/test_simd.py", "tests/library/test_seen.py"

    ended = on(target, caches, PYTEST, "-q", "-x", "-p", "no:cacheprovider", "-k", chosen, *files)

    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]


@pytest.mark.slow
def test_kernels_of_one_name_give_the_same_bits(caches):
    found = [json.loads(checked("generic", caches, BITS)), json.loads(checked("haswell", caches, BITS))]

    assert found[0] == found[1]


@pytest.mark.slow
@pytest.mark.long
def test_few_classes_give_the_same_bits_with_any_number_of_lanes(caches):
    found = [json.loads(checked("haswell", caches, BITS)), json.loads(checked("16 lanes", caches, BITS))]

    for few in (bits["100"] for bits in found):
        del few["softmax"]  # whose sums have a part a lane from 32 classes on
    assert [found[0]["30"], found[0]["100"]] == [found[1]["30"], found[1]["100"]]


@pytest.mark.slow
@pytest.mark.parametrize(("target", "facts"), [("generic", [8, False]), ("haswell", [8, True])])
def test_a_lesser_cpu_has_eight_lanes(caches, target, facts):
    assert facts_of(target, caches)[1:] == facts


@pytest.mark.slow
def test_cpus_of_as_many_lanes_have_one_kernel_name(caches):
    assert facts_of("generic", caches)[0] == facts_of("haswell", caches)[0]


def test_the_name_of_the_kernels_says_lanes_and_arithmetic():
    assert re.fullmatch(rf"cpu-{simd.FLOAT32_LANES}-lanes-v{cpu.ARITHMETIC}", cpu.NAME)


# ---- processes


def contract_files() -> list[str]:
    return ["tests/library/test_kernels.py", "tests/library/test_top_k.py"]


def on(target: str, caches: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code as if on `target`, whose name it gets as its first argument."""
    if target == "haswell" and not simd._host_has("avx2"):
        pytest.skip("this machine has no AVX2")
    environment = {
        "NUMBA_CACHE_DIR": str(caches / target),  # the forced lanes are not in the name of a file
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    return subprocess.run(
        [sys.executable, "-c", code, target, *arguments],
        env=os.environ | TARGETS[target] | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@cache
def facts_of(target: str, caches: Path) -> list[Any]:
    found: list[Any] = json.loads(checked(target, caches, FACTS))
    return found


def checked(target: str, caches: Path, code: str) -> str:
    ended = on(target, caches, code)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
