"""A real browser without a window: Chromium, spoken to in its own protocol through a pair of pipes."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

_WITH_PIPES = (
    "import os, sys; r, w, *line = sys.argv[1:]; os.dup2(int(r), 3); os.dup2(int(w), 4); os.execv(line[0], line)"
)
"""Chromium reads commands from 3 and answers on 4."""
_PATIENCE_S = 60.0


class Browser:
    """One tab."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._number, self._unread, self._session = 0, b"", None
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def open(self, page: Path, *, width: int, height: int = 800, scheme: str = "light", media: str = "screen") -> None:
        """Show a page at a width; what it complains of, or asks for, is in `events`."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", media=media, features=features)
        self.events.clear()
        self.send("Page.navigate", url=page.absolute().as_uri())
        self._until(lambda: any(event["method"] == "Page.loadEventFired" for event in self.events))

    def value(self, script: str) -> Any:
        """Of an expression in the page."""
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def screenshot(self) -> bytes:
        """All of the page, as PNG."""
        found = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(found["data"])

    def complaints(self) -> list[str]:
        """Of the console and of the log."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event["params"]) for event in self.events if event["method"] in kinds]

    def requests(self) -> list[str]:
        """Addresses that were asked for, but for the page itself and what stands in it."""
        asked = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in asked[1:] if not url.startswith("data:")]

    def send(self, method: str, **parameters: Any) -> Any:
        """What the browser answers to a command."""
        self._number += 1
        number = self._number
        command: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            command["sessionId"] = self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        answers: list[dict[str, Any]] = []
        self._until(
            lambda: bool(answers), lambda message: answers.append(message) if message.get("id") == number else None
        )
        assert "result" in answers[0], answers[0]
        return answers[0]["result"]

    def _until(self, is_done: Any, take: Any = lambda message: None) -> None:
        end = monotonic() + _PATIENCE_S
        while not is_done():
            for message in self._messages(end):
                take(message)
                if "method" in message:
                    self.events.append(message)

    def _messages(self, end: float) -> list[dict[str, Any]]:
        ready, _, _ = select.select([self._answers], [], [], max(0.0, end - monotonic()))
        assert ready, f"no answer from {CHROMIUM} within {_PATIENCE_S:.0f} s"
        data = os.read(self._answers, 1 << 20)
        assert data, f"{CHROMIUM} has ended"
        *whole, self._unread = (self._unread + data).split(b"\0")
        return [json.loads(each) for each in whole]


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser whose profile is in `folder`."""
    assert CHROMIUM is not None, "ask for CHROMIUM first"
    (command_end, commands), (answers, answer_end) = os.pipe(), os.pipe()
    theirs = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (command_end, answer_end)]
    for end in (command_end, answer_end):
        os.close(end)
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe")
    quiet = ("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")
    line = [CHROMIUM, *flags, *quiet, f"--user-data-dir={folder / 'profile'}", "about:blank"]
    process = subprocess.Popen(
        [sys.executable, "-c", _WITH_PIPES, *map(str, theirs), *line],
        pass_fds=theirs,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for end in theirs:
        os.close(end)
    try:
        yield Browser(commands, answers)
    finally:
        with suppress(OSError):
            os.write(commands, b'{"id": 0, "method": "Browser.close"}\0')
        os.close(commands)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        process.kill()
        process.wait()
        os.close(answers)
