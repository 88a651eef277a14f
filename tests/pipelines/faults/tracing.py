"""What the command asks of the system, as `strace` tells it: calls in order, with where each began and ended."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

CALLS = ("fsync", "fdatasync", "rename", "renameat", "renameat2", "link", "linkat", "write")

_PROGRAM = """
from softmax_dask_pipelines import plan
from softmax_dask_pipelines.cli import main
from softmax_dask_pipelines.ledger import journal
from softmax_dask_pipelines.sources import blocks
plan.CHUNK_BYTES = blocks.READ_BYTES = 240
plan.PARTITION_BYTES = 500
journal.SYNC_EVERY_S = 0.0
main(prog_name="softmax-dask")
"""
"""The command, in chunks and partitions of some ten rows, its journal synced after each line."""

_BEGUN = re.compile(r"(\d+) +(\w+)\((.*)")
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)")
_DESCRIPTOR = re.compile(r"\d+<([^>]*)>")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Call:
    """One call of the system."""

    name: str
    path: str
    """Of the file that was open; of renames and links the old name."""
    to: str
    """Of renames and links the new name; of writes what was written, as strace shows it."""
    begun: int
    ended: int
    """Lines of the trace."""


def why_not() -> str | None:
    """Why nothing can be traced here; None where it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    done = subprocess.run(["strace", "-f", "-qq", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return f"strace may not trace here ({done.stderr.decode().strip()})" if done.returncode else None


def run(*arguments: object, log: Path, more: Sequence[str] = ()) -> "subprocess.CompletedProcess[str]":
    """The command, traced; `more` are options of strace."""
    line = ["strace", "-f", "-qq", "-y", "-s", "4000", "-e", f"trace={','.join(CALLS)}", "-o", str(log), *more]
    words = [*line, sys.executable, "-c", _PROGRAM, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)


def calls(log: Path, below: Path) -> list[Call]:
    """Those that went well, of files below a folder, in the order in which they began."""
    return [call for call in _all(log) if call.path.startswith(f"{below}/") or call.path == str(below)]


def _all(log: Path) -> Iterator[Call]:
    waiting: dict[str, Call] = {}
    found: list[Call] = []
    for number, line in enumerate(log.read_text(errors="replace").splitlines()):
        if begun := _BEGUN.match(line):
            thread, name, rest = begun.groups()
            call = Call(name, *_names(rest), number, number)
            if rest.endswith("<unfinished ...>"):
                waiting[thread] = call
            elif " = -1 " not in rest:
                found.append(call)
        elif resumed := _RESUMED.match(line):
            call = waiting.pop(resumed[1])
            if " = -1 " not in resumed[3]:
                found.append(replace(call, ended=number))
    return iter(sorted(found, key=lambda call: call.begun))


def _names(rest: str) -> tuple[str, str]:
    descriptor, texts = _DESCRIPTOR.match(rest), _TEXT.findall(rest)
    first = descriptor[1] if descriptor else texts[0] if texts else ""
    return first, texts[-1] if texts else ""
