"""The end of the process that the console script is, and its beginning."""

import signal
import subprocess
import sys

import pytest

from tests.pipelines.command import NOTICES_A_HANGUP, end, start

_STOPS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

# Python calls what was registered last first.
_SLOW_TO_END = (
    sys.executable,
    "-c",
    """
import atexit, time
from softmax_dask_pipelines import cli, console
def verbs(real=cli.main, **named):
    atexit.register(lambda: (print("ending", flush=True), time.sleep(60)))
    real(**named)
cli.main = verbs
console.main()
""",
)

_SLOW_TO_LOAD = (
    sys.executable,
    "-c",
    """
import sys, time
from softmax_dask_pipelines import console
class Slow:
    def find_spec(self, name, path, target=None):
        if name == "softmax_dask_pipelines.cli":
            print("loading", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Slow())
console.main()
""",
)

_LEFT = (
    sys.executable,
    "-c",
    """
import atexit, threading, time
from softmax_dask_pipelines import cli, console
class Freed:
    def __del__(self):
        print("freed")
def verbs(real=cli.main, **named):
    atexit.register(print, "called")
    threading.Thread(target=lambda: (time.sleep(0.2), print("waited for"))).start()
    real(**named)
cli.main, kept = verbs, Freed()
console.main()
""",
)


@pytest.mark.parametrize("stop", _STOPS)
@pytest.mark.parametrize(("words", "code"), [(["--version"], 0), (["inspect", "nowhere.zarr"], 2)], ids=["0", "2"])
def test_a_late_signal_ends_it_at_once_with_the_code_of_the_verb(words, code, stop):
    process = start(*words, program=_SLOW_TO_END, before=NOTICES_A_HANGUP)
    _wait_for("ending", process)

    process.send_signal(stop)

    assert end(process).code == code


def test_what_nohup_ignores_stays_ignored():
    process = start("--version", program=_SLOW_TO_END, before=("nohup",))
    _wait_for("ending", process)

    process.send_signal(signal.SIGHUP)

    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    process.send_signal(signal.SIGTERM)
    assert end(process).code == 0


@pytest.mark.parametrize("stop", _STOPS)
def test_a_signal_while_it_loads_ends_it_without_a_word(stop):
    process = start("--version", program=_SLOW_TO_LOAD, before=NOTICES_A_HANGUP)
    _wait_for("loading", process)

    process.send_signal(stop)

    outcome = end(process)
    assert (outcome.code, outcome.err) == (-stop, "")


def test_threads_and_what_is_to_be_called_at_the_end_are_and_nothing_is_freed():
    outcome = end(start("--version", program=_LEFT))

    assert outcome.code == 0
    assert outcome.out.splitlines()[1:] == ["waited for", "called"]


def test_python_runs_the_package_as_the_script_with_any_flags_of_its_own():
    outcome = end(start("--version", program=(sys.executable, "-OO", "-X", "dev", "-m", "softmax_dask_pipelines")))

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("softmax-dask, version ")


def _wait_for(word: str, process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    assert word in iter(lambda: process.stdout.readline().strip(), "")
