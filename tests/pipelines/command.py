"""The command line as people meet it: in this process, because that is fast, or in one of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from click.testing import CliRunner

from softmax_dask import SoftmaxDaskWarning
from softmax_dask_pipelines.cli import main, process

PROGRAM = (sys.executable, "-c", "from softmax_dask_pipelines.console import main; main()")
"""What the console script does, by the Python that runs the tests."""

IN_SMALL_PARTITIONS = (
    sys.executable,
    "-c",
    "from softmax_dask_pipelines import plan\n"
    "from softmax_dask_pipelines.sources import blocks\n"
    "from softmax_dask_pipelines.console import main\n"
    "blocks.READ_BYTES = plan.CHUNK_BYTES = plan.PARTITION_BYTES = 240\n"
    "main()",
)
"""The same, with partitions of some ten rows."""

UNPRIVILEGED = (
    sys.executable,
    "-c",
    """
import ctypes, os, sys
PR_CAPBSET_DROP, OVERRIDE, READ_SEARCH = 24, 1, 2
for capability in (OVERRIDE, READ_SEARCH):
    if os.getuid() == 0 and ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
        sys.exit(f"cannot drop capability {capability}")
os.execv(sys.argv[1], sys.argv[1:])
""",
)
"""Runs what follows so that modes of files hold for it, also for root."""


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


def softmax_dask(*arguments: object) -> Outcome:
    """Run the command in this process."""
    # The command makes a line of any warning; here those of other packages are errors, as in every test.
    with patch.object(process, "_show_warning", _show_ours_alone):
        result = CliRunner().invoke(main, [str(part) for part in arguments], prog_name="softmax-dask")
    return Outcome(result.exit_code, result.stdout, result.stderr)


_SHOW = process._show_warning


def _show_ours_alone(message: Warning, *where: Any, **more: Any) -> None:
    if not isinstance(message, SoftmaxDaskWarning):
        raise message
    _SHOW(message, *where, **more)


NOTICES_A_HANGUP = ("env", "--default-signal=HUP")
"""Before a command that must, even where the tests run under nohup."""


def start(
    *arguments: object, before: Sequence[str] = (), program: Sequence[str] = PROGRAM, **options: Any
) -> "subprocess.Popen[str]":
    """Start the command in a process of its own."""
    line = [*before, *program, *(str(part) for part in arguments)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def end(process: "subprocess.Popen[str]") -> Outcome:
    """Wait for a command that was started."""
    out, err = process.communicate(timeout=120)
    return Outcome(process.returncode, out, err)


def run_alone(*arguments: object, **options: Any) -> Outcome:
    """Run the command in a process of its own."""
    return end(start(*arguments, **options))


def tree(folder: Path) -> dict[str, Any]:
    """What is in a folder, and a change of which anything would be: sizes, times and inodes; but no records of runs."""
    paths = [Path(parent, name) for parent, folders, files in os.walk(folder) for name in (*folders, *files)]
    return {str(path): _identity(path) for path in paths if not _is_record(path)}


def records(output: Path) -> list[dict[str, Any]]:
    """The records of the runs of an output, in the order in which they began."""
    return [json.loads(path.read_text()) for path in sorted(Path(f"{output}.job", "runs").glob("*.json"))]


def _is_record(path: Path) -> bool:
    """Whether it is the record of a run, which stays when the run fails, or a folder of nothing but records."""
    if path.suffix == ".json":
        return path.parent.name == "runs" and path.parents[1].suffix == ".job"
    return path.is_dir() and ".job" in (path.suffix, path.parent.suffix) and all(map(_is_record, path.iterdir()))


def _identity(path: Path) -> Any:
    status = os.lstat(path)
    return (status.st_ino, status.st_mode) + (() if path.is_dir() else (status.st_size, status.st_mtime_ns))
