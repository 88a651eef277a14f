"""A run on a terminal: a pseudo-terminal is stderr, and a pipe is stdout."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from tests.pipelines import dumps
from tests.pipelines.command import PROGRAM

CTRL_C = b"\x03"
CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
"""An escape sequence that moves the cursor, clears a line or sets a colour."""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
PERCENT = re.compile(r"\d+%")


class Terminal:
    """A command whose controlling terminal is ours."""

    def __init__(self, *arguments: object, columns: int = 80, **env: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
        self._process = subprocess.Popen(
            [*PROGRAM, *(str(argument) for argument in arguments)],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=theirs,
            env=kept | {"TERM": "xterm-256color"} | env,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self.shown = ""

    def read_until(self, pattern: str) -> None:
        """What it shows, until that is there."""
        while not re.search(pattern, self.shown):
            assert self._read(), f"ended and never showed {pattern!r}: {self.shown!r}"

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def end(self) -> tuple[int, str]:
        """Exit code and stdout."""
        while self._read():
            pass
        out, _ = self._process.communicate(timeout=60)
        return self._process.returncode, out.decode()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        os.close(self._ours)

    def _read(self) -> bool:
        deadline = monotonic() + 120
        assert select.select([self._ours], [], [], max(0.0, deadline - monotonic()))[0], f"silent: {self.shown!r}"
        try:
            found = os.read(self._ours, 1 << 16)
        except OSError:  # Linux says so when the other end is closed
            return False
        self.shown += found.decode()
        return bool(found)


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 60 partitions or so."""
    path = tmp_path_factory.mktemp("dump") / "logits.zarr"
    return dumps.zarr_array(path, dumps.logits(60_000, 100), chunks=(1000, 100), compressors=None)


@pytest.fixture
def terminal(dump: Path, tmp_path: Path) -> Iterator[type[Terminal]]:
    """Makes terminals in which the dump is being scored."""
    made = []

    class Scoring(Terminal):
        def __init__(self, columns: int = 80, **env: str) -> None:
            flags = ("--columns", "probabilities,log_probabilities", "--dtype", "float64", "--threads", 1)
            super().__init__("score", dump, tmp_path / "out.zarr", *flags, columns=columns, **env)
            made.append(self)

    yield Scoring
    for each in made:
        each.close()


def frames(shown: str) -> list[str]:
    """What the line of the bar held, each time that it was drawn."""
    return [CONTROL.sub("", part).rstrip() for part in re.split(r"[\r\n]+", shown) if PERCENT.search(part)]


def test_a_bar_is_drawn_on_stderr_and_stdout_holds_the_summary_alone(terminal):
    there = terminal()

    code, out = there.end()

    assert code == 0
    assert frames(there.shown)[-1].startswith("rows ")
    assert "100%" in frames(there.shown)[-1]
    assert "rows/s" in there.shown
    assert out.startswith("rows ")
    assert CONTROL.search(out) is None


def test_the_bar_shows_rows_bytes_and_where_the_time_goes(terminal):
    there = terminal(columns=120)

    there.end()

    line = r"rows .*100%.* [\d,]+ rows/s, \d+\.\d\d GB/s, read \d+% kernel \d+% write \d+%"
    assert re.fullmatch(line, frames(there.shown)[-1])


def test_a_search_for_rows_has_a_bar_of_its_own(dump, tmp_path):
    there = Terminal("jacobian", dump, tmp_path / "out.zarr", "--where-confidence-below", 0.05, "--limit", 1)

    code, _ = there.end()

    assert code == 0
    assert frames(there.shown)[0].startswith("search ")
    assert frames(there.shown)[-1].startswith("rows ")


@pytest.mark.parametrize("columns", [20, pytest.param(60, marks=pytest.mark.long), 200])
def test_the_bar_fits_the_width(terminal, columns):
    there = terminal(columns=columns)

    there.end()

    assert len(frames(there.shown)) > 0
    assert max(len(frame) for frame in frames(there.shown)) <= columns


def test_the_cursor_is_shown_again(terminal):
    there = terminal()

    there.end()

    assert there.shown.count("\x1b[?25l") == there.shown.count("\x1b[?25h") > 0


def test_ctrl_c_ends_it_with_75_and_one_line_below_the_bar(terminal, tmp_path):
    there = terminal()
    there.read_until(r"[1-9]\d?%")

    there.press(CTRL_C)
    code, out = there.end()

    assert (code, out) == (75, "")
    last = CONTROL.sub("", there.shown).rstrip("\r\n").splitlines()[-1]
    assert re.fullmatch(r"Error: interrupted; .*\. Run the same command again.*", last)
    assert there.shown.count("\x1b[?25l") == there.shown.count("\x1b[?25h")
    assert not (tmp_path / "out.zarr").exists()


def test_ctrl_c_twice_ends_it_as_cleanly(terminal, tmp_path):
    there = terminal()
    there.read_until(r"[1-9]\d?%")

    there.press(CTRL_C)
    there.press(CTRL_C)
    code, _ = there.end()

    assert code == 75
    assert there.shown.count("Error: ") == 1
    assert "Traceback" not in there.shown
    assert not (tmp_path / "out.zarr").exists()


def test_no_color_draws_the_bar_without_colours(terminal):
    there = terminal(NO_COLOR="1")

    code, _ = there.end()

    assert code == 0
    assert "100%" in frames(there.shown)[-1]
    assert [found for found in COLOUR.findall(there.shown) if re.search(r"\b[34]\d", found)] == []


@pytest.mark.parametrize("name", ["dumb", "unknown"])
def test_a_terminal_that_cannot_move_its_cursor_gets_no_bar(terminal, name):
    there = terminal(TERM=name)

    code, out = there.end()

    assert (code, there.shown) == (0, "")
    assert out.startswith("rows ")


def test_force_color_draws_no_bar_where_stderr_is_a_file(dump, tmp_path):
    flags = ("--columns", "label", "--threads", "1")

    with open(tmp_path / "err", "wb") as err:
        env = os.environ | {"FORCE_COLOR": "1"}
        done = subprocess.run([*PROGRAM, "score", dump, tmp_path / "o.zarr", *flags], stderr=err, env=env, check=True)

    assert done.returncode == 0
    assert (tmp_path / "err").read_bytes() == b""
