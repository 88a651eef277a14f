"""What all scripts share: their flags, one thread where they ask for it, and how they print."""

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec

from benchmarks.figures import Figure, tables, to_json
from benchmarks.measure import EFFORTS, Effort

Figures = Callable[[Effort], Iterator[Figure]]


def main(about: str, figures: Figures) -> None:
    """Measure, and print tables, or with --json what `run` reads."""
    arguments = _parser(about).parse_args()
    effort = EFFORTS[arguments.effort]
    if arguments.size is not None:
        size = int(arguments.size * 2**20)
        effort = replace(effort, kernel_bytes=size, dump_bytes=size)
    found = list(figures(effort))
    print(to_json(found) if arguments.json else tables(found))


def one_core() -> None:
    """Keep this process and all threads of it on one core, so that no contender computes on two."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def installed(*names: str) -> list[str]:
    """Those of the packages that are there; each that is not has been named by `run`."""
    return [name for name in names if find_spec(name) is not None]


def _parser(about: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--effort", choices=EFFORTS, default="quick")
    parser.add_argument("--size", type=float, metavar="MIB", help="of the logits, in place of the effort's")
    parser.add_argument("--json", action="store_true", help="figures for machines")
    return parser
