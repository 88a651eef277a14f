"""The small sizes of the campaign; `make faults` runs the large ones."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


SECTIONS = {
    "kills": 20,
    "forgotten names": 30,
    "failing calls": 20,
    "races": 4,
    "readers": 2,
    "mutants": 5,
    "power cuts": 8,
    "cuts after exit 0": 10,
}
"""Of the campaign: how many faults, at least, are tried."""


@pytest.mark.parametrize("section", SECTIONS)
def test_no_fault_shows_a_half_or_loses_a_row_and_the_next_run_completes_it(section):
    line = [sys.executable, "-m", "tests.pipelines.faults.campaign", "--power-stride", "120", "--only", section]

    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    if section not in found:
        pytest.skip(f"no power cuts: {found['no power cuts']}")
    assert found[section]["violations"] == []
    assert found[section]["tried"] >= SECTIONS[section]
