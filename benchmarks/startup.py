"""How long a user waits before anything happens, beside `python -c "import dask.array"`.

A verb that scores a hundred rows, and the first softmax, load kernels that an earlier process has compiled; the latter
is beside a function that Numba loads from its own cache. Each is a process of its own, as from a shell; all take turns,
so that a busy machine hits all, and the figures are of wall-clock time.

    python -m benchmarks.startup
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import zarr

from benchmarks import script
from benchmarks.figures import Figure
from benchmarks.measure import Effort, Spread, in_turns, ratio, seconds_of

OF_NUMBA = """
from numba import njit
@njit(cache=True)
def total(x):
    return x.sum()
"""
_MAIN = "import sys; from softmax_dask_pipelines.console import main; sys.argv[1:] ="


def _python(code: str) -> tuple[str, ...]:
    return sys.executable, "-c", code


# `main()` is what the console script does, without the shell's search for it.
HELP = _python(f"{_MAIN} ['--help']; main()")
IMPORT_DASK = _python("import dask.array")
_DASK, _NUMBA = "import dask.array", "a function from Numba's cache"
COMMANDS = {
    "python -c pass": _python("pass"),
    "import softmax_dask_pipelines": _python("import softmax_dask_pipelines"),
    "softmax-dask --help": HELP,
    "softmax-dask score --help": _python(f"{_MAIN} ['score', '--help']; main()"),
    "softmax-dask score of 100 rows": _python(
        f"import tempfile; {_MAIN} ['score', 'logits.zarr', tempfile.mkdtemp(dir='.') + '/out.zarr']; main()"
    ),
    "the first softmax": _python(
        "import numpy as np; from softmax_dask import softmax; softmax(np.zeros((8, 10), np.float32))"
    ),
    _NUMBA: _python("import numpy as np; from of_numba import total; total(np.zeros((8, 10)))"),
    _DASK: IMPORT_DASK,
}
BESIDE = {**dict.fromkeys(list(COMMANDS)[1:5], _DASK), "the first softmax": _NUMBA}


def medians_s(*commands: tuple[str, ...], turns: int = 7) -> list[float]:
    """Seconds of each command, in turns: A B A B."""
    seconds: list[list[float]] = [[] for _ in commands]
    for _ in range(turns):
        for command, taken in zip(commands, seconds, strict=True):
            taken.append(seconds_of(partial(_run, command)))
    return [median(taken) for taken in seconds]


def figures(effort: Effort) -> Iterator[Figure]:
    """Each command beside the import of Dask's arrays, or beside Numba's own start, and in milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        zarr.create_array(Path(folder, "logits.zarr"), data=np.ones((100, 10), np.float32))
        Path(folder, "of_numba.py").write_text(OF_NUMBA)
        run = partial(_run, folder=folder)
        seconds = in_turns({name: partial(run, command) for name, command in COMMANDS.items()}, effort)
    for name in COMMANDS:
        if name in BESIDE:
            share = ratio(seconds, name, BESIDE[name])
            yield Figure("start-up", name, f"of the time of {BESIDE[name]}", share, "less")
        yield Figure("start-up", name, "milliseconds", Spread.of([1000 * s for s in seconds[name]]), "shown", "")


def _run(command: tuple[str, ...], folder: str | None = None) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)


if __name__ == "__main__":
    script.main(__doc__, figures)
