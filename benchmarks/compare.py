"""Measures again, and compares with the committed results by ratio; ends with 1 where a ratio became worse.

Worse: by more than 25 %, and the better quartile of now is worse than the worse quartile of then, so that noise
which the spread shows is not taken for a change. What has a unit (seconds, MiB) and what is not ours is left out.
Where the instruction set is not that of the committed results, ratios mean something else: ends with 2.

    python -m benchmarks.compare [--only NAME ...] [--then FILE] [--now FILE]
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Figure, markdown
from benchmarks.report import RESULTS, Results, read
from benchmarks.run import SCRIPTS, measured

TOLERANCE = 1.25


@dataclass(frozen=True, slots=True)
class Change:
    """One figure, then and now."""

    then: Figure
    now: Figure

    @property
    def worse(self) -> float:
        """How many times worse; below 1 is better."""
        then, now = self.then.spread.middle, self.now.spread.middle
        above, below = (then, now) if self.then.better == "more" else (now, then)
        return above / below if below > 0 else float(above > 0)

    @property
    def is_regression(self) -> bool:
        """Whether it is worse beyond the tolerance and beyond the spread of both."""
        then, now = self.then.spread, self.now.spread
        apart = now.high < then.low if self.then.better == "more" else now.low > then.high
        return self.worse > TOLERANCE and apart


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=None, metavar="NAME")
    parser.add_argument("--then", type=Path, default=RESULTS, help="the results to compare with")
    parser.add_argument("--now", type=Path, default=None, help="results that are there, in place of measuring")
    arguments = parser.parse_args()
    then = read(arguments.then)
    names = arguments.only or list(then.sections)
    now = measured(then.effort, names) if arguments.now is None else read(arguments.now)
    return compare(then, now)


def compare(then: Results, now: Results) -> int:
    """Print what changed, the worst first; the exit code."""
    sets = then.machine["instruction_set"], now.machine["instruction_set"]
    if sets[0] != sets[1]:
        print(f"the committed results are of {sets[0]}, and this machine has {sets[1]}: nothing is compared.")
        return 2
    found = changes(then.figures, now.figures)
    if not found:
        print("no figure is in both results: nothing is compared. Measure the same scripts, with the same packages.")
        return 2
    print(table(found))
    regressions = sum(change.is_regression for change in found)
    print(f"\n{regressions} of {len(found)} became worse by more than {TOLERANCE - 1:.0%} and beyond their spread.")
    return 1 if regressions else 0


def changes(then: Sequence[Figure], now: Sequence[Figure]) -> list[Change]:
    """Figures that are in both and are compared, the worst first."""
    by_name = {figure.name: figure for figure in now}
    kept = (figure for figure in then if figure.is_relative and figure.name in by_name)
    return sorted((Change(figure, by_name[figure.name]) for figure in kept), key=lambda change: -change.worse)


def table(found: Sequence[Change]) -> str:
    """A line a figure."""
    lines = [
        [
            "**WORSE**" if change.is_regression else "",
            change.then.name.replace(" | ", ", "),
            change.then.text(),
            change.now.text(),
            f"{1 / change.worse if change.worse else float('inf'):.2f}",
        ]
        for change in found
    ]
    return markdown(["", "figure", "then", "now", "times as good"], lines)


if __name__ == "__main__":
    sys.exit(main())
