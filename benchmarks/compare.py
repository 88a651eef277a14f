"""Measures again, and compares with the committed results by ratio; ends with 1 where a ratio became worse.

Worse: by more than the tolerance of the effort, and the better quartile of now is worse than the worse quartile of
then; each time: scripts with such ratios are measured up to twice more, for noise seldom hits one figure three times.
What has a unit (seconds, MiB) and what is not ours is left out. Ends with 2 where there is no telling: the committed
results are of another instruction set, or other work took more than a tenth of the machine meanwhile.

    python -m benchmarks.compare [--only NAME ...] [--then FILE] [--now FILE]
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from benchmarks import machine
from benchmarks.figures import Figure, markdown
from benchmarks.report import RESULTS, Results, read
from benchmarks.run import SCRIPTS, measured

TOLERANCES = {"tiny": 2.0, "quick": 1.33, "full": 1.2}
"""Between two runs of the same code the medians of a few turns differ by up to a third, those of many by less."""

MOST_RUNS = 3
"""Of a script, before its figures are called worse."""

OTHERS_SHARE = 0.1
"""Of the machine, taken by other work: beyond it contenders of two threads lose more than those of one."""

Measure = Callable[[Sequence[str]], Results]
"""Runs these scripts."""


@dataclass(frozen=True, slots=True)
class Change:
    """One figure, then, and each time that it was measured now."""

    then: Figure
    now: Sequence[Figure]
    tolerance: float

    @property
    def best(self) -> Figure:
        """The one of now that is least worse."""
        return min(self.now, key=self._times_worse)

    @property
    def worse(self) -> float:
        """How many times worse; below 1 is better."""
        return self._times_worse(self.best)

    @property
    def is_regression(self) -> bool:
        """Whether it is worse beyond the tolerance, and beyond the spread of both, each time."""
        return all(self._times_worse(now) > self.tolerance and self._is_apart(now) for now in self.now)

    def _times_worse(self, figure: Figure) -> float:
        then, now = self.then.spread.middle, figure.spread.middle
        above, below = (then, now) if self.then.better == "more" else (now, then)
        return above / below if below > 0 else float(above > 0)

    def _is_apart(self, figure: Figure) -> bool:
        then, now = self.then.spread, figure.spread
        return now.high < then.low if self.then.better == "more" else now.low > then.high


@dataclass(slots=True)
class Comparison:
    """The committed results beside all that was measured now."""

    then: Results
    measure: Measure | None
    """None: there is nothing but `runs`."""
    runs: list[Results]
    others: list[float] = field(default_factory=list)
    """What other work took of the machine, each time that was measured."""

    def changes(self) -> list[Change]:
        """Figures that are in both and are compared, the worst first."""
        now: dict[str, list[Figure]] = {}
        for figure in (figure for run in self.runs for figure in run.figures):
            now.setdefault(figure.name, []).append(figure)
        tolerance = TOLERANCES[self.then.effort]
        kept = (figure for figure in self.then.figures if figure.is_relative and figure.name in now)
        return sorted((Change(figure, now[figure.name], tolerance) for figure in kept), key=lambda c: -c.worse)

    def run(self, names: Sequence[str]) -> None:
        """Measure these scripts, and those with figures that look worse again."""
        assert self.measure is not None, "nothing measures"
        while names and len(self.runs) < MOST_RUNS:
            share = machine.others_share()
            self.runs.append(self.measure(names))
            self.others.append(share())
            names = self.suspects()
            if names and len(self.runs) < MOST_RUNS:
                print(f"measuring again, for it looks worse: {', '.join(names)}", file=sys.stderr)

    def suspects(self) -> list[str]:
        """Scripts with figures that were worse each time so far."""
        worse = {change.then.name for change in self.changes() if change.is_regression}
        return [name for name, found in self.then.sections.items() if any(figure.name in worse for figure in found)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=None, metavar="NAME")
    parser.add_argument("--then", type=Path, default=RESULTS, help="the results to compare with")
    parser.add_argument("--now", type=Path, default=None, help="results that are there, in place of measuring")
    arguments = parser.parse_args()
    then = read(arguments.then)
    if arguments.now is not None:
        return verdict(Comparison(then, None, [read(arguments.now)]))
    if then.machine["instruction_set"] != machine.instruction_set():
        return no_verdict(_other_sets(then.machine["instruction_set"], machine.instruction_set()))
    names = arguments.only or [name for name in then.sections if name not in then.efforts]
    return measured_verdict(then, partial(measured_as, then), names)


def measured_as(then: Results, names: Sequence[str]) -> Results:
    """Run these scripts, each with the effort that it had then."""
    efforts = sorted({then.effort_of(name) for name in names})
    found = [measured(effort, [name for name in names if then.effort_of(name) == effort]) for effort in efforts]
    return replace(found[0], sections={name: part for each in found for name, part in each.sections.items()})


def measured_verdict(then: Results, measure: Measure, names: Sequence[str]) -> int:
    """Measure, print what changed, the worst first; the exit code."""
    comparison = Comparison(then, measure, [])
    comparison.run(names)
    return verdict(comparison)


def verdict(comparison: Comparison) -> int:
    """Print what changed, the worst first; the exit code."""
    sets = [results.machine["instruction_set"] for results in (comparison.then, comparison.runs[0])]
    if sets[0] != sets[1]:
        return no_verdict(_other_sets(*sets))
    found = comparison.changes()
    if not found:
        return no_verdict("no figure is in both results. Measure the same scripts, with the same packages")
    print(table(found))
    regressions = sum(change.is_regression for change in found)
    tolerance = f"more than {found[0].tolerance - 1:.0%} and beyond their spread"
    print(f"\n{regressions} of {len(found)} became worse by {tolerance}, each of {len(comparison.runs)} times.")
    others = max(comparison.others, default=0.0)
    if regressions and others > OTHERS_SHARE:
        return no_verdict(f"other work took {others:.0%} of the machine. Measure when it is idle")
    return 1 if regressions else 0


def no_verdict(why: str) -> int:
    """Say why there is none; the exit code."""
    print(f"No telling: {why}.")
    return 2


def table(found: Sequence[Change]) -> str:
    """A line a figure; of now the measurement that was least worse."""
    lines = [
        [
            "**WORSE**" if change.is_regression else "",
            change.then.name.replace(" | ", ", "),
            change.then.text(),
            change.best.text(),
            f"{1 / change.worse if change.worse else float('inf'):.2f}",
        ]
        for change in found
    ]
    return markdown(["", "figure", "then", "now", "times as good"], lines)


def _other_sets(then: str, now: str) -> str:
    return f"the committed results are of {then}, and this machine has {now}"


if __name__ == "__main__":
    sys.exit(main())
