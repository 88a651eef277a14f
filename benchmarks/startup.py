"""How long a user waits before anything happens: `softmax-dask --help` beside `python -c "import dask.array"`.

Each is a process of its own, as from a shell; the two take turns, so that a busy machine hits both, and the figures are
medians of wall-clock time.

    python -m benchmarks.startup
"""

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from statistics import median

from benchmarks import script
from benchmarks.figures import Figure
from benchmarks.measure import Effort, Spread, in_turns, ratio, seconds_of

HELP = (sys.executable, "-c", "from softmax_dask_pipelines.cli import main; main(['--help'])")
"""What the console script does, without the shell's search for it."""
SCORE_HELP = (*HELP[:2], "from softmax_dask_pipelines.cli import main; main(['score', '--help'])")
IMPORT_DASK = (sys.executable, "-c", "import dask.array")
IMPORT_PIPELINES = (sys.executable, "-c", "import softmax_dask_pipelines")
PYTHON = (sys.executable, "-c", "pass")


def medians_s(*commands: tuple[str, ...], turns: int = 7) -> list[float]:
    """Seconds of each command, in turns: A B A B."""
    seconds: list[list[float]] = [[] for _ in commands]
    for _ in range(turns):
        for command, taken in zip(commands, seconds, strict=True):
            taken.append(seconds_of(partial(_run, command)))
    return [median(taken) for taken in seconds]


def figures(effort: Effort) -> Iterator[Figure]:
    """Each command beside the import of Dask's arrays, and in milliseconds."""
    commands = {
        "python -c pass": PYTHON,
        "import softmax_dask_pipelines": IMPORT_PIPELINES,
        "softmax-dask --help": HELP,
        "softmax-dask score --help": SCORE_HELP,
        "import dask.array": IMPORT_DASK,
    }
    seconds = in_turns({name: partial(_run, command) for name, command in commands.items()}, effort)
    for name in commands:
        if name in ("import softmax_dask_pipelines", "softmax-dask --help", "softmax-dask score --help"):
            share = ratio(seconds, name, "import dask.array")
            yield Figure("start-up", name, "of the time of import dask.array", share, "less")
        yield Figure("start-up", name, "milliseconds", Spread.of([1000 * s for s in seconds[name]]), "shown", "")


def _run(command: tuple[str, ...]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    script.main(__doc__, figures)
