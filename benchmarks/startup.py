"""How long a user waits before anything happens: `softmax-dask --help` beside `python -c "import dask.array"`.

Each is a process of its own, as from a shell; the two take turns, so that a busy machine hits both, and the figures are
medians of wall-clock time. Run it: `python benchmarks/startup.py`.
"""

import subprocess
import sys
from statistics import median
from time import perf_counter

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
            begin = perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            taken.append(perf_counter() - begin)
    return [median(taken) for taken in seconds]


def main() -> None:
    commands = {
        "python -c pass": PYTHON,
        "import softmax_dask_pipelines": IMPORT_PIPELINES,
        "softmax-dask --help": HELP,
        "softmax-dask score --help": SCORE_HELP,
        "import dask.array": IMPORT_DASK,
    }
    for name, seconds in zip(commands, medians_s(*commands.values()), strict=True):
        print(f"{name:<30} {seconds * 1000:5.0f} ms")


if __name__ == "__main__":
    main()
