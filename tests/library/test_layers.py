"""What importing and using the library loads, each in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("numba", "dask", "dask.array", "zarr", "click", "cupy", "distributed", "pandas", "pyarrow", "xarray", "scipy")


def loaded_by(code: str) -> list[str]:
    """Which of the heavy modules a fresh process has loaded after `code`."""
    report = f"\nimport json, sys; print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code + report],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded: list[str] = json.loads(run.stdout)
    return loaded


@pytest.mark.parametrize(
    "code",
    [
        "import softmax_dask",
        "from softmax_dask import softmax",
        "from softmax_dask import *",
        "import softmax_dask.columns, softmax_dask.sizes, softmax_dask.errors",
    ],
)
def test_importing_the_library_loads_nothing_heavy(code):
    found = loaded_by(code)

    assert found == []


def test_using_it_on_numpy_loads_numba_alone():
    found = loaded_by("import numpy, softmax_dask; softmax_dask.softmax(numpy.zeros((2, 3), 'float32'))")

    assert [name for name in found if name != "scipy"] == ["numba"]  # Numba looks for SciPy's BLAS


def test_building_a_dask_graph_loads_no_numba():
    code = (
        "import dask.array as da, softmax_dask\n"
        "x = da.zeros((8, 3), chunks=(2, 3), dtype='float32')\n"
        "softmax_dask.softmax(x), softmax_dask.decisions(x, targets=da.zeros(8, dtype='int64'))"
    )

    found = loaded_by(code)

    assert "numba" not in found


def test_the_reference_kernels_load_no_numba():
    found = loaded_by("import softmax_dask.kernels.reference")

    assert found == []
