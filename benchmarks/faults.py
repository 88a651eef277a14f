"""The large sizes of the fault tests, and `faults.md` from what they find: `make faults`.

Every crash point of two histories (kill, and a file system that forgets names), power cuts, errors of the system,
races, readers, mutants, and kills of the real command. Power cuts need root and loop mounts.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SECTIONS = (
    "kills",
    "forgotten names",
    "failing calls",
    "races",
    "readers",
    "mutants",
    "power cuts",
    "cuts after exit 0",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stride", type=int, default=1, help="1: every crash point")
    parser.add_argument("--power-stride", type=int, default=2)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--output", type=Path, default=HERE / "faults.md")
    given = parser.parse_args()
    sizes = ("--stride", given.stride, "--power-stride", given.power_stride, "--mutant-stride", 3, "--times", 50)
    found: dict[str, Any] = {}
    for section in SECTIONS:
        found |= _of("tests.pipelines.faults.campaign", *sizes, "--only", section)
        print(section, _short(found.get(section, {})), flush=True)
    found["random kills"] = _of("tests.pipelines.faults.random_kills", given.kills)
    print("random kills", _short(found["random kills"]), flush=True)
    given.output.write_text(text_of(found))
    violations = [text for section in found.values() if isinstance(section, dict) for text in section["violations"]]
    print(*violations, sep="\n")
    sys.exit(bool(violations))


def text_of(found: dict[str, Any]) -> str:
    """The page."""
    lines = [_HEAD, "| fault | tried | violations |", "|---|---|---|"]
    lines += [f"| {text} | {_tried(found, name)} | {_violations(found, name)} |" for name, text in _TEXTS.items()]
    caught, kills = found["mutants"]["more"]["caught"], found["random kills"]
    each = kills["partitions"] // kills["histories"]
    lines += [
        f"\nProtocols broken on purpose, and noticed: {sum(caught.values())} of {len(caught)} ({', '.join(caught)}).",
        f"\nOf the real command, {kills['tried']} kills in {kills['histories']} histories of {each} partitions: "
        f"{kills['recomputed partitions a kill']:.2f} partitions a kill were computed again.",
        f"\nExit codes where the system said no: {json.dumps(found['failing calls']['more']['exit codes'])}.",
    ]
    if found["no power cuts"]:
        lines.append(f"\nNo power cuts here: {found['no power cuts']}.")
    return "\n".join(lines) + "\n"


_HEAD = """# Faults injected, and what they did
Written by `make faults`; the tests run small sizes of the same. Two histories, Zarr to Zarr and Parquet to Parquet:
20, 37, 48, 49 rows in chunks of 8, then a replacement with another temperature. After each fault a reader in a process
of its own (NumPy, zarr, pyarrow) must find the state before or after, every row right; then the same command again must
end with 0, the bytes of a run that was never stopped, and nothing left behind.
"""

_TEXTS = {
    "kills": "SIGKILL at an operation of `storage`",
    "forgotten names": "power cut on a model of a file system that forgets names whose folder was not synced",
    "power cuts": "power cut on ext4 (shut down without flushing; every second time after a stranger's fsync)",
    "cuts after exit 0": "power cut on ext4 right after exit 0",
    "failing calls": "ENOSPC, EIO, EMFILE, EACCES from an operation, once or from then on",
    "random kills": "SIGKILL of the real command at a random moment",
    "races": "four commands at once, and four `put_new` at once",
    "readers": "looks of two readers while increments are committed",
    "mutants": "protocol broken on purpose",
}


def _tried(found: dict[str, Any], name: str) -> str:
    return f"{found[name]['tried']:,}" if name in found else "not here"


def _violations(found: dict[str, Any], name: str) -> str:
    return str(len(found[name]["violations"])) if name in found else ""


def _short(section: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key != "violations"} | {
        "violations": len(section.get("violations", ()))
    }


def _of(module: str, *arguments: object) -> dict[str, Any]:
    line = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
