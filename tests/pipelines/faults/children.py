"""Runs that end in a process of their own: forked from one that has everything loaded, so that each is cheap."""

import json
import os
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softmax_dask import SoftmaxDaskError
from softmax_dask_pipelines.errors import BUG, exit_code

KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Ended:
    """How a child ended: exit code of the contract, or minus a signal; what it returned, or its error."""

    code: int
    value: Any


def start(call: Callable[[], Any]) -> tuple[int, int]:
    """Fork a child that calls it; its process id, and where its answer can be read."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    os.close(reading)
    code, value = _outcome(call)
    os.write(writing, json.dumps(value).encode()[:60_000])
    os._exit(code)


def end(child: tuple[int, int]) -> Ended:
    """Wait for a child."""
    pid, reading = child
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(pid, 0)
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return Ended(code, json.loads(answer) if answer else None)


def forked(call: Callable[[], Any]) -> Ended:
    """Call it in a child, and wait."""
    return end(start(call))


def _outcome(call: Callable[[], Any]) -> tuple[int, Any]:
    warnings.simplefilter("ignore")
    try:
        return 0, call()
    except SoftmaxDaskError as error:
        return exit_code(error), f"{type(error).__name__}: {error}"
    except BaseException:
        return BUG, traceback.format_exc()


class Checker:
    """The checker, in its process."""

    def __init__(self) -> None:
        line = [sys.executable, "-m", "tests.pipelines.faults.checker"]
        root = Path(__file__).parents[3]
        self._process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)

    def state(self, output: Path, logits: Path, states: list[tuple[int, float]], reader: str | None) -> Any:
        """Number of the state that the output is in, None where there is none; text where something is wrong.

        By one reader, or by all, which must agree.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"output": str(output), "logits": str(logits), "states": states, "reader": reader}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["error"] if "error" in answer else answer["state"]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
