"""`results.md` and `results.json`: what was asked beside what was measured, on which machine, and how busy it was.

The page says what the scripts and `targets` say now. After an edit of these it is made again without measuring:

    python -m benchmarks.report
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, from_json, markdown, tables, to_json
from benchmarks.targets import Verdict, verdicts

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"
PAGE = FOLDER / "results.md"

_INTRODUCTION = """# Results
Written by `{command}`; edit nothing here. Read ratios: seconds are this machine's alone. Each figure is
the median of ratios of contenders that took turns, with quartiles in brackets. What failed is in [notes.md](notes.md).
"""

_NO_RESULTS = """**These are no results.** It was a trial of the scripts, with sizes so tiny that the cost of a call is
most of what is measured. `make bench` and `make bench-full` measure."""


@dataclass(frozen=True, slots=True)
class Results:
    """All figures of one run of the benchmarks."""

    effort: str
    machine: Mapping[str, Any]
    """`machine.description()`, and the load at begin and end."""
    sections: Mapping[str, Sequence[Figure]]
    """Figures by the script that measured them."""
    efforts: Mapping[str, str] = field(default_factory=dict)
    """Of scripts that were measured with another effort."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """What else must be said of how a script was measured."""

    def effort_of(self, name: str) -> str:
        """That of a script."""
        return self.efforts.get(name, self.effort)

    @property
    def figures(self) -> list[Figure]:
        """Those of all sections."""
        return [figure for found in self.sections.values() for figure in found]

    @property
    def small(self) -> frozenset[str]:
        """Names of figures that were not measured with the full effort."""
        names = (name for name in self.sections if self.effort_of(name) != "full")
        return frozenset(figure.name for name in names for figure in self.sections[name])


def write(results: Results, folder: Path = FOLDER) -> None:
    """Both files."""
    folder.mkdir(parents=True, exist_ok=True)
    sections = ",\n".join(f"{json.dumps(name)}: {to_json(found)}" for name, found in results.sections.items())
    efforts = f'"effort": {json.dumps(results.effort)},\n"efforts": {json.dumps(dict(results.efforts))}'
    efforts += f',\n"notes": {json.dumps(dict(results.notes))}'
    facts = f'{efforts},\n"machine": {json.dumps(dict(results.machine))}'
    (folder / RESULTS.name).write_text(f'{{\n{facts},\n"sections": {{\n{sections}\n}}\n}}\n')
    (folder / PAGE.name).write_text(page(results) + "\n")


def read(path: Path = RESULTS) -> Results:
    """What `write` wrote."""
    found = json.loads(path.read_text())
    sections = {name: from_json(json.dumps(entries)) for name, entries in found["sections"].items()}
    return Results(found["effort"], found["machine"], sections, found.get("efforts", {}), found.get("notes", {}))


def page(results: Results) -> str:
    """Targets, the worst first; then each script's tables, under what it says it measures."""
    judged = verdicts(results.figures, results.machine["instruction_set"], small=results.small)
    return "\n\n".join(
        [
            _INTRODUCTION.format(command=command(results.effort)).strip(),
            *([_NO_RESULTS] if results.effort == "tiny" else []),
            _where(results.machine),
            f"## What must be reached, the worst first\n{_count(judged)}\n\n{_verdict_table(judged, results.machine)}",
            *(f"## {name}\n{_about(results, name)}\n\n{tables(found)}" for name, found in results.sections.items()),
        ]
    )


def command(effort: str) -> str:
    """The target of make, or the line, that measures with this effort."""
    return {"quick": "make bench", "full": "make bench-full"}.get(effort, f"python -m benchmarks.run --effort {effort}")


def about(name: str) -> str:
    """What a script says it measures."""
    return (FOLDER / f"{name}.py").read_text().split('"""')[1].strip()


def _about(results: Results, name: str) -> str:
    effort = results.effort_of(name)
    said = [] if effort == results.effort else [f"Measured with {effort} effort."]
    return "\n\n".join([about(name), " ".join([*said, *filter(None, [results.notes.get(name)])])]).strip()


def _where(machine: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {found}" for name, found in machine["versions"].items())
    begin, end = machine["load"]
    lines = [
        f"{machine['processor']}, **{machine['instruction_set']}**, {machine['cores']} cores.",
        f"Load average {begin} at the beginning, {end} at the end.",
        f"Python {machine['python']}, {versions}.",
    ]
    if machine["missing"]:
        lines.append(f"Not installed, so skipped: {', '.join(machine['missing'])}; `make bench-peers` installs them.")
    return "\n".join(lines)


def _count(judged: Sequence[Verdict]) -> str:
    measured = [verdict for verdict in judged if verdict.figure is not None and not verdict.is_small]
    met, small = sum(verdict.margin >= 1 for verdict in measured), sum(verdict.is_small for verdict in judged)
    missing = sum(verdict.figure is None for verdict in judged)
    text = f"{met} of {len(measured)} met, {len(measured) - met} not"
    text += f"; {small} not judged, for their dumps are smaller than those that are asked for" if small else ""
    return f"{text}; {missing} not measured." if missing else f"{text}."


def _verdict_table(judged: Sequence[Verdict], machine: Mapping[str, Any]) -> str:
    return markdown(
        ["", "what", "must be", "is"], [_verdict_line(verdict, machine["instruction_set"]) for verdict in judged]
    )


def _verdict_line(verdict: Verdict, instruction_set: str) -> list[str]:
    name = verdict.target.name.replace(" | ", ", ")
    limit = f"{verdict.limit:g}" if verdict.target.is_for(instruction_set) else f"{verdict.limit:g} (of AVX-512)"
    if verdict.figure is None:
        return ["not measured", name, limit, ""]
    word = "at least" if verdict.figure.better == "more" else "at most"
    if verdict.is_small:
        return ["too small", name, f"{word} {limit}", verdict.figure.text()]
    return ["met" if verdict.margin >= 1 else "**NOT met**", name, f"{word} {limit}", verdict.figure.text()]


if __name__ == "__main__":
    write(read())
