"""The large sizes of the fault tests, and `faults.md` from what they find: `make faults`.

Every crash point of two histories (kill, and a file system that forgets names), power cuts, errors of the system,
races, readers, mutants, kills and stops of the real command, a store that spoils its answers, flipped bits. Power cuts
need root and loop mounts. `--only SECTION` does one, and keeps what is known of the others in `--folder`.
"""

import argparse
import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.pipelines.faults.random_kills import LANDINGS

HERE = Path(__file__).parent
CAMPAIGN = (
    "kills",
    "forgotten names",
    "failing calls",
    "races",
    "readers",
    "mutants",
    "power cuts",
    "cuts after exit 0",
)
SCRIPTS = {
    "random kills": "tests.pipelines.faults.random_kills",
    "stops": "tests.pipelines.faults.stops",
    "store faults": "tests.pipelines.faults.stores",
    "bit flips": "tests.pipelines.faults.flips",
}
SECTIONS = (*CAMPAIGN, *SCRIPTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stride", type=int, default=1, help="1: every crash point")
    parser.add_argument("--power-stride", type=int, default=2)
    parser.add_argument("--kills", type=int, default=200, help="of the real command")
    parser.add_argument("--stops", type=int, default=50, help="of the real command")
    parser.add_argument("--spoilt", type=int, default=100, help="answers of a store, of each kind")
    parser.add_argument("--flips", type=int, default=200, help="bits of each layout")
    parser.add_argument("--seconds", type=int, default=600, help="that readers look")
    parser.add_argument("--only", choices=SECTIONS, action="append")
    parser.add_argument("--page", action="store_true", help="try nothing, write the page of what is known")
    parser.add_argument("--folder", type=Path, default=HERE / ".faults", help="for what each section has found")
    parser.add_argument("--output", type=Path, default=HERE / "faults.md")
    given = parser.parse_args()
    given.folder.mkdir(exist_ok=True)
    for section in () if given.page else given.only or SECTIONS:
        found = _found(section, given)
        (given.folder / f"{section}.json").write_text(json.dumps(found))
        print(section, _short(found), flush=True)
    known = {name: _read(given.folder, name) for name in SECTIONS}
    given.output.write_text(text_of({name: found for name, found in known.items() if found is not None}))
    violations = [text for found in known.values() if found for text in found["violations"]]
    print(*violations, sep="\n")
    sys.exit(bool(violations))


def text_of(found: dict[str, dict[str, Any]]) -> str:
    """The page."""
    lines = [_HEAD, f"\n{_machine(found)}\n", "| fault | tried | violations |", "|---|---|---|"]
    lines += [f"| {text} | {_tried(found, name)} | {_violations(found, name)} |" for name, text in _TEXTS.items()]
    for name, tell in _MORE.items():
        if name in found and found[name]["tried"]:
            lines.append(f"\n{tell(found[name])}")
    return "\n".join(lines) + "\n"


_HEAD = """# Faults injected, and what they did
Written by `make faults`; the tests run small sizes of the same. Two histories, Zarr to Zarr and Parquet to Parquet:
20, 37, 48, 49 rows in chunks of 8, then a replacement with another temperature. After each fault readers in a process
of its own (zarr, xarray, Dask; pyarrow, DuckDB, polars, Dask; NumPy judges) must find the state before or after, every
row right; then the same command again must end with 0, the bytes of a run that was never stopped, and nothing left
behind."""

_TEXTS = {
    "kills": "SIGKILL at an operation of `storage`, then all readers",
    "forgotten names": "power cut on a model of a file system that forgets names whose folder was not synced",
    "power cuts": "power cut on ext4 (shut down without flushing; every second time after a stranger's fsync)",
    "cuts after exit 0": "power cut on ext4 right after exit 0",
    "failing calls": "ENOSPC, EIO, EMFILE, EACCES from an operation, once or from then on",
    "random kills": "SIGKILL of the real command at a random moment of its work",
    "stops": "SIGTERM or SIGINT to the real command, every third time twice",
    "races": "four commands at once, and four `put_new` at once",
    "readers": "looks of readers while runs commit, are killed, go on, grow and replace",
    "store faults": "answers of an object store that were spoilt, Zarr to Zarr in it",
    "bit flips": "one bit of a dump with checksums, or of an output before `verify`; and of dumps without",
    "mutants": "protocol broken on purpose",
}


def _mutants(found: dict[str, Any]) -> str:
    caught = found["more"]["caught"]
    return f"Protocols broken on purpose, and noticed: {sum(caught.values())} of {len(caught)} ({', '.join(caught)})."


def _kills(found: dict[str, Any]) -> str:
    each = found["partitions"] // found["histories"]
    landed = ", ".join(f"{text} {found['landed'].get(text, 0)}" for text in LANDINGS)
    return (
        f"Of the real command, {found['tried']} kills in {found['histories']} histories of {each} partitions, on two "
        f"threads: {found['recomputed partitions a kill']:.2f} partitions a kill were computed again. Where they "
        f"landed: {landed}. What is done stays done, so the later kills of a history land later."
    )


def _stops(found: dict[str, Any]) -> str:
    return (
        f"From a signal to the end of the process, {found['rows']:,} rows of 100 classes in {found['partitions']} "
        f"partitions: median {found['median_s']:.2f} s, 99th percentile {found['p99_s']:.2f} s, longest "
        f"{found['longest_s']:.2f} s."
    )


def _races(found: dict[str, Any]) -> str:
    return f"In each of {found['tried']} races one command published, and one `put_new` won."


def _readers(found: dict[str, Any]) -> str:
    more = found["more"]
    looks = ", ".join(f"{name} {count:,}" for name, count in sorted(more["looks"].items()))
    return (
        f"Looks, by library and format, during {more['runs']:,} runs and {more['kills']:,} that were killed: {looks}. "
        f"{more['crossed a swap']:,} more crossed the swap of a replacement, and do not count: they may open files of "
        "the old output and of the new one."
    )


def _failing(found: dict[str, Any]) -> str:
    return f"Exit codes where the system said no: {json.dumps(found['more']['exit codes'])}."


def _stores(found: dict[str, Any]) -> str:
    each = "; ".join(
        f"{name}: {of['tried']}, {of['silent wrong results']} wrong results ({_ended(of['ended'])})"
        for name, of in found["more"].items()
    )
    return f"Answers of a store that were spoilt, and how attempts with up to four of them ended: {each}."


def _ended(ended: dict[str, int]) -> str:
    return ", ".join(f"{count} {text}" for text, count in sorted(ended.items()))


def _flips(found: dict[str, Any]) -> str:
    rows = [
        f"| {name} | {sum(counts.values())} | {counts.get('seen', counts.get('refused'))} | "
        f"{counts.get('same values', 0)} | {counts.get('other values', 0)} |"
        for name, counts in found["more"].items()
    ]
    return "\n".join(["| a bit of | flipped | seen | same values | other values |", "|---|---|---|---|---|", *rows])


_MORE = {
    "mutants": _mutants,
    "random kills": _kills,
    "stops": _stops,
    "races": _races,
    "readers": _readers,
    "failing calls": _failing,
    "store faults": _stores,
    "bit flips": _flips,
}


def _machine(found: dict[str, dict[str, Any]]) -> str:
    """When and where; the seconds of each section are those of a machine that did other things as well."""
    days = sorted({section["day"] for section in found.values()})
    return f"{' to '.join(dict.fromkeys((days[0], days[-1])))}, {platform.system()} {platform.release()}."


def _tried(found: dict[str, Any], name: str) -> str:
    if name not in found:
        return "not run"
    return f"{found[name]['tried']:,}" if found[name]["tried"] else "not here"


def _violations(found: dict[str, Any], name: str) -> str:
    return str(len(found[name]["violations"])) if name in found and found[name]["tried"] else ""


def _short(found: dict[str, Any]) -> dict[str, Any]:
    return found | {"violations": len(found["violations"])}


def _found(section: str, given: argparse.Namespace) -> dict[str, Any]:
    if section in SCRIPTS:
        size = {"random kills": given.kills, "stops": given.stops, "store faults": given.spoilt}
        found = _of(SCRIPTS[section], size.get(section, given.flips))
    else:
        sizes = ("--stride", given.stride, "--power-stride", given.power_stride, "--seconds", given.seconds)
        told = _of("tests.pipelines.faults.campaign", *sizes, "--mutant-stride", 3, "--times", 50, "--only", section)
        found = told.get(section, {"tried": 0, "violations": [], "why not": told["no power cuts"]})
    return found | {"day": datetime.now(UTC).date().isoformat()}


def _read(folder: Path, section: str) -> dict[str, Any] | None:
    path = folder / f"{section}.json"
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return found


def _of(module: str, *arguments: object) -> dict[str, Any]:
    line = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
