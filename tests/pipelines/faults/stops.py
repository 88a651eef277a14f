"""SIGTERM and SIGINT to the real command at work, and how long it takes: `python -m tests.pipelines.faults.stops N`.

Partitions are as large as the program likes them. Every third time a second signal follows at once.
"""

import json
import random
import signal
import sys
import time
from typing import Any

import numpy as np

from softmax_dask_pipelines.errors import TemporaryError
from tests.pipelines.faults.command import Site, Whole, never_stopped, partitions_done, site, wait_for_partitions
from tests.pipelines.faults.histories import tree_of

_ROWS = 1_000_000
_MOMENT_S = 0.3
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_AGAIN = TemporaryError.exit_code


def stops(*, times: int) -> dict[str, Any]:
    """So many signals, then the same command again, until one is left alone."""
    found: dict[str, Any] = {"tried": 0, "violations": [], "seconds": [], "rows": _ROWS}
    with site("zarr", rows=_ROWS, partition_bytes=0) as at:
        whole = never_stopped(at)
        while found["tried"] < times:
            _history(at, whole, found, most=times - found["tried"])
    seconds = found.pop("seconds")
    return found | {
        "partitions": whole.partitions,
        "median_s": float(np.median(seconds)),
        "p99_s": float(np.quantile(seconds, 0.99)),
        "longest_s": max(seconds),
    }


def _history(at: Site, whole: Whole, found: dict[str, Any], *, most: int) -> None:
    stopped = 0
    while stopped < min(most, 4) and (seconds := _stopped(at, whole, found)) is not None:
        found["seconds"].append(seconds)
        stopped += 1
    ended = at.start().wait()
    if ended or tree_of(at.output) != whole.files:
        found["violations"].append(f"exit {ended} or other bytes after stop {found['tried'] + stopped}")
    found["tried"] += stopped
    at.clear()


def _stopped(at: Site, whole: Whole, found: dict[str, Any]) -> float | None:
    """Seconds from the signal to the end; None where the command ended before."""
    process = at.start()
    left = whole.partitions - partitions_done(at)
    wait_for_partitions(process, at, at.partitions_begun() + random.randint(1, max(1, left)))
    time.sleep(random.uniform(0, _MOMENT_S))
    turn = found["tried"] + len(found["seconds"])
    begin = time.monotonic()
    for _ in range(1 + (turn % 3 == 2)):
        process.send_signal(_SIGNALS[turn % len(_SIGNALS)])
    ended = process.wait()
    if ended == 0:  # too late to stop
        return None
    if ended != _AGAIN:
        found["violations"].append(f"exit {ended} after {_SIGNALS[turn % len(_SIGNALS)].name}")
    return time.monotonic() - begin


def main() -> None:
    sys.stdout.write(json.dumps(stops(times=int(sys.argv[1])), indent=2) + "\n")


if __name__ == "__main__":
    main()
