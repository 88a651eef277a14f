"""What the library says of its kernels, beside what Linux and Numba say."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from softmax_dask import kernel_facts, softmax

SHOW = "import json; from dataclasses import asdict; from softmax_dask import kernel_facts; "
SHOW += "print(json.dumps(asdict(kernel_facts())))"


def flags() -> set[str]:
    """What Linux says that the processor can do."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return set(next((line for line in lines if line.startswith(("flags", "Features"))), "").split())


def facts_of(processor: str, features: str, cache: Path) -> dict[str, object]:
    """Of a process whose kernels are compiled for another processor."""
    env = os.environ | {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, "-c", SHOW], env=env, capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.skipif("NUMBA_CPU_NAME" in os.environ, reason="kernels are compiled for another processor")
def test_float16_is_converted_in_hardware_where_linux_says_so():
    assert kernel_facts().converts_float16 == ("f16c" in flags())


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ("+avx,+avx2,+f16c,+avx512f", ("AVX-512", 16, True)),
        ("+avx,+avx2,+f16c", ("AVX2", 8, True)),
        ("+avx", ("AVX", 8, False)),
        ("", ("baseline", 8, False)),
    ],
)
def test_they_are_those_of_the_processor_that_kernels_are_compiled_for(tmp_path, features, expected):
    found = facts_of("x86-64", features, tmp_path)

    assert (found["instruction_set"], found["float32_lanes"], found["converts_float16"]) == expected


def test_the_cache_is_where_compiled_kernels_lie():
    softmax(np.zeros((2, 3), np.float32))

    assert list(Path(kernel_facts().cache_folder).glob("*softmax_tile*"))


def test_the_cache_folder_follows_the_setting(tmp_path):
    found = facts_of("generic", "", tmp_path)

    assert Path(str(found["cache_folder"])).is_relative_to(tmp_path)


def test_they_are_plain_values_that_json_takes():
    assert json.loads(json.dumps(asdict(kernel_facts()))) == asdict(kernel_facts())
