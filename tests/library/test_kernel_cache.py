"""Compiled kernels are kept on disk, and are forgotten when any source of theirs changes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from softmax_dask.kernels.cpu import compile as compiling

ROOT = Path(__file__).parents[2]

USE_ALL = """
import json
import numpy as np
from softmax_dask import decisions, softmax
from softmax_dask.kernels.cpu import row, tile

for classes in (4, 300):
    x = np.zeros((3, classes), "float32")
    softmax(x), decisions(x)
kernels = (row.softmax_row, row.decision_row, tile.softmax_tile, tile.decision_tile)
print(json.dumps([[sum(k.stats.cache_hits.values()), sum(k.stats.cache_misses.values())] for k in kernels]))
"""

USE_ONE = """
import json
import numpy as np
from softmax_dask import softmax
from softmax_dask.kernels.cpu.tile import softmax_tile as kernel

softmax(np.zeros((3, 4), "float32"))
print(json.dumps([sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values())]))
"""

SOURCES = sorted(path.name for path in (ROOT / "softmax_dask" / "kernels" / "cpu").glob("*.py"))


def run(code: str, root: Path, cache: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root), "NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the library that a test may edit."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "softmax_dask", tmp_path / "copy" / "softmax_dask", ignore=ignored)
    return tmp_path / "copy"


@pytest.mark.slow
def test_a_second_process_compiles_nothing(tmp_path):
    run(USE_ALL, ROOT, tmp_path)

    found = json.loads(run(USE_ALL, ROOT, tmp_path))

    assert found == [[1, 0]] * 4  # hits, misses


@pytest.mark.slow
def test_an_edit_of_another_file_makes_kernels_compile_again(tmp_path, copy):
    run(USE_ONE, copy, tmp_path / "cache")
    edited = copy / "softmax_dask" / "kernels" / "cpu" / "simd.py"
    edited.write_text(edited.read_text() + "\n# edited\n")

    found = json.loads(run(USE_ONE, copy, tmp_path / "cache"))

    assert found == [0, 1]  # hits, misses


@pytest.mark.parametrize("name", SOURCES)
def test_an_edit_of_any_file_changes_the_stamp(copy, monkeypatch, name):
    before = stamp_of(copy, monkeypatch)
    edited = copy / "softmax_dask" / "kernels" / "cpu" / name
    edited.write_text(edited.read_text() + "\n# edited\n")

    after = stamp_of(copy, monkeypatch)

    assert after != before


def test_the_stamp_of_equal_sources_is_equal(copy, monkeypatch):
    found = stamp_of(copy, monkeypatch)

    assert found == compiling.package_stamp.__wrapped__()


def stamp_of(root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The stamp that the package would have at `root`."""
    with monkeypatch.context() as patch:
        patch.setattr(compiling, "__file__", str(root / "softmax_dask" / "kernels" / "cpu" / "compile.py"))
        stamp: str = compiling.package_stamp.__wrapped__()
    return stamp
