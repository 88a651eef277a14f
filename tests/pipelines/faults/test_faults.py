"""The small sizes of the campaign and its scripts; `make faults` runs the large ones."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.pipelines.faults.flips import CHECKED, PLAIN

ROOT = Path(__file__).parents[3]


SECTIONS = {
    "kills": 15,
    "forgotten names": 30,
    "failing calls": 12,
    "races": 4,
    "readers": 8,
    "mutants": 5,
    "power cuts": 8,
    "cuts after exit 0": 10,
}
"""Of the campaign: how many faults, at least, are tried."""
LONG = {"mutants", "forgotten names", "cuts after exit 0"}
SHORT = tuple(name for name in SECTIONS if name not in LONG)


def found_by(script: str, *arguments: object) -> dict[str, Any]:
    """What a script of this folder prints."""
    line = [sys.executable, "-m", f"tests.pipelines.faults.{script}", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@cache
def found_in(*sections: str) -> dict[str, Any]:
    """What the campaign finds in some sections; all the short ones in one run, for each begins with the same work."""
    return found_by("campaign", "--stride", 60, "--power-stride", 120, "--seconds", 2, "--only", *sections)


@pytest.mark.parametrize(
    "section", [pytest.param(name, marks=pytest.mark.long) if name in LONG else name for name in SECTIONS]
)
def test_no_fault_shows_a_half_or_loses_a_row_and_the_next_run_completes_it(section):
    found = found_in(section) if section in LONG else found_in(*SHORT)

    if section not in found:
        pytest.skip(f"no power cuts: {found['no power cuts']}")
    assert found[section]["violations"] == []
    assert found[section]["tried"] >= SECTIONS[section]


@pytest.mark.long
def test_every_library_looks_at_an_output_while_runs_are_killed_and_go_on():
    found = found_by("campaign", "--seconds", 2, "--only", "readers")["readers"]["more"]

    assert set(found["looks"]) == {
        *(f"{name}, zarr" for name in ("zarr", "xarray", "dask")),
        *(f"{name}, parquet" for name in ("pyarrow", "DuckDB", "polars", "dask")),
    }
    assert found["kills"] > 0


def test_the_real_command_goes_on_after_kills_and_recomputes_what_was_in_flight():
    found = found_by("random_kills", 4)

    assert (found["tried"], found["violations"]) == (4, [])
    # Two threads: what they had in their hands, and what they had handed over when the journal was cut off.
    assert found["recomputed partitions a kill"] <= 4


@pytest.mark.long
def test_the_real_command_ends_soon_after_a_signal():
    found = found_by("stops", 6)

    assert (found["tried"], found["violations"]) == (6, [])
    assert found["longest_s"] < 25  # Kubernetes waits for 30


def test_no_flipped_bit_passes_where_there_are_checksums():
    found = found_by("flips", 8)

    assert found["violations"] == []
    assert {name for name in found["more"] if not name.startswith("verify")} == {*PLAIN, *CHECKED}
    assert any(found["more"][name]["other values"] for name in PLAIN)  # else nothing was flipped that matters
