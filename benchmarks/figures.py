"""What a benchmark gives: figures, each a cell of a table; as Markdown for people, as JSON for `compare`."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from benchmarks.measure import Spread

Better = Literal["more", "less", "shown"]
"""`shown`: neither is better, or the figure is someone else's; it has no target."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured."""

    table: str
    row: str
    column: str
    spread: Spread
    better: Better
    unit: str = "x"

    @property
    def name(self) -> str:
        """Unlike that of every other figure."""
        return f"{self.table} | {self.row} | {self.column}"

    @property
    def is_relative(self) -> bool:
        """Whether another machine may be held to it: a ratio or a relative error, and ours."""
        return self.better != "shown" and self.unit in ("x", "")

    def text(self) -> str:
        """The median, and the quartiles where they differ from it."""
        spread = self.spread
        unit = self.unit if self.unit in ("x", "") else f" {self.unit}"
        text = f"{_short(spread.middle)}{unit}"
        return text if spread.low == spread.high else f"{text} ({_short(spread.low)} to {_short(spread.high)})"


def tables(figures: Sequence[Figure]) -> str:
    """All tables, in the order of the figures."""
    names = dict.fromkeys(figure.table for figure in figures)
    return "\n\n".join(table([figure for figure in figures if figure.table == name]) for name in names)


def table(figures: Sequence[Figure]) -> str:
    """One table: a line a row, a cell a figure."""
    columns = list(dict.fromkeys(figure.column for figure in figures))
    rows = dict.fromkeys(figure.row for figure in figures)
    cells = {(figure.row, figure.column): figure.text() for figure in figures}
    lines = [[row, *(cells.get((row, column), "") for column in columns)] for row in rows]
    return markdown([figures[0].table, *columns], lines)


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def to_json(figures: Iterable[Figure]) -> str:
    """A figure a line, so that a change of one is a change of a line."""
    return "[\n" + ",\n".join(json.dumps(asdict(figure)) for figure in figures) + "\n]"


def from_json(text: str) -> list[Figure]:
    """What `to_json` wrote."""
    return [Figure(**entry | {"spread": Spread(**entry["spread"])}) for entry in json.loads(text)]


def _short(value: float) -> str:
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
