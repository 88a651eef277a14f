"""Runs every benchmark, each in a process of its own, and writes `results.md` and `results.json`.

With quick effort the longer ones are left out, unless `--only` names them. Sections that are not measured stay as
they are, if they were measured on the same machine; where that was with another effort, they say so.

python -m benchmarks.run --effort quick|full [--only NAME ...] [--folder FOLDER]
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import machine
from benchmarks.figures import Figure, from_json
from benchmarks.measure import EFFORTS
from benchmarks.report import FOLDER, RESULTS, Results, read, write

SCRIPTS = (
    "kernels",
    "variants",
    "products",
    "exactness",
    "score",
    "few",
    "carried",
    "stages",
    "parquet",
    "compact",
    "calibrate",
    "evaluate",
    "partitions",
    "growth",
    "durability",
    "disk",
    "memory",
    "startup",
)

LONGER = frozenset(
    {
        "variants",
        "score",
        "few",
        "carried",
        "stages",
        "parquet",
        "compact",
        "calibrate",
        "evaluate",
        "partitions",
        "growth",
        "durability",
        "disk",
    }
)
"""Left out by `make bench`, which takes three minutes; `make bench-full` and `--only` have them. Of whole runs of
small dumps, their beginning is most: `score` and `parquet` say something with the full effort."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--effort", choices=EFFORTS, default="quick")
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, metavar="NAME", help="these, whatever the effort")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the results go")
    arguments = parser.parse_args()
    names = arguments.only or scripts_of(arguments.effort)
    write(completed(measured(arguments.effort, names), arguments.folder), arguments.folder)


def scripts_of(effort: str) -> tuple[str, ...]:
    """What is measured where nothing else is said."""
    return tuple(name for name in SCRIPTS if effort == "full" or name not in LONGER)


def measured(effort: str, names: Sequence[str] = SCRIPTS) -> Results:
    """Run these scripts one after the other."""
    before = machine.load()
    where = machine.description()
    for name in where["missing"]:
        print(f"{name} is not installed: skipped. `make bench-peers` installs it.", file=sys.stderr)
    sections = {name: _figures(name, effort) for name in names}
    return Results(effort, where | {"load": [before, machine.load()]}, sections)


def completed(results: Results, folder: Path) -> Results:
    """With the sections that were not measured, as they stand in the folder's results, where these are comparable."""
    path = folder / RESULTS.name
    if not path.exists():
        return results
    old = read(path)
    is_trial = "tiny" in {old.effort, results.effort} and old.effort != results.effort
    if is_trial or _lasting(old.machine) != _lasting(results.machine):
        return results
    both = {**old.sections, **results.sections}
    sections = {name: both[name] for name in SCRIPTS if name in both}
    given = {name: (results if name in results.sections else old).effort_of(name) for name in sections}
    effort = results.effort if set(scripts_of(results.effort)) <= results.sections.keys() else old.effort
    efforts = {name: found for name, found in given.items() if found != effort}
    notes = {name: note for name, note in old.notes.items() if name not in results.sections} | dict(results.notes)
    return Results(effort, results.machine, sections, efforts, notes)


def _lasting(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: fact for name, fact in facts.items() if name != "load"}


def _figures(name: str, effort: str) -> list[Figure]:
    begin = perf_counter()
    line = [sys.executable, "-m", f"benchmarks.{name}", "--effort", effort, "--json"]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True, cwd=FOLDER.parent)
    print(f"benchmarks.{name}: {perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
    return from_json(done.stdout)


if __name__ == "__main__":
    main()
