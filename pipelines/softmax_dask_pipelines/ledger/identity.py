"""Which run this is: what the lock tells others of it, and what its manifest is called."""

import os
import re
import secrets
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

_SHOWN = re.compile(r"[^ -~]")
"""Anything that a terminal might not just print."""


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """A run: its name, and where and since when it runs."""

    run: str
    host: str
    pid: int
    started: datetime

    @staticmethod
    def new() -> "RunIdentity":
        """Of a run that begins now, in this process."""
        started = datetime.now(UTC)
        # Random, not only the clock: two runs may begin within one second.
        name = f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
        return RunIdentity(name, socket.gethostname(), os.getpid(), started)

    def facts(self) -> dict[str, Any]:
        """For a file: JSON types only."""
        return {
            "run": self.run,
            "host": self.host,
            "pid": self.pid,
            "started": self.started.isoformat(timespec="seconds"),
        }


def text_of_run(facts: dict[str, Any]) -> str:
    """Who a run is, from `RunIdentity.facts` as a file gave them back."""
    run, host, pid, started = (_SHOWN.sub("?", str(facts.get(key)))[:100] for key in ("run", "host", "pid", "started"))
    return f"run {run} on {host}, process {pid}, since {started}"
