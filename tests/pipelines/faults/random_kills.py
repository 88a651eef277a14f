"""kill -9 of the real command at random moments of its work: `python -m tests.pipelines.faults.random_kills N`.

A moment is chosen by progress: so many partitions more are begun, or all are, and a little later. So kills are spread
over the work, not over the second in which Python starts; where each one landed is counted.
"""

import json
import random
import sys
import time
from typing import Any

from tests.pipelines.faults.command import (
    Site,
    Whole,
    has_committed,
    never_stopped,
    partitions_done,
    site,
    wait_for_partitions,
)
from tests.pipelines.faults.histories import tree_of

_ROWS, _PARTITION_BYTES = 60_000, 1 << 20
_MOMENT_S = 0.03
"""At most so long after a partition was begun: longer than one takes."""

LANDINGS = (
    "no partition is done",
    "in the first third of the partitions",
    "in the second third",
    "in the last third",
    "all are done, nothing is decided",
    "after the decision",
)


def random_kills(*, kills: int) -> dict[str, Any]:
    """So many, over as many histories as it takes, Zarr and Parquet in turns."""
    found: dict[str, Any] = {"tried": 0, "violations": [], "histories": 0, "partitions": 0, "begun": 0, "landed": {}}
    suffixes = ("zarr", "parquet")
    with site(suffixes[0], rows=_ROWS, partition_bytes=_PARTITION_BYTES) as first:
        sites = [Site(first.root, suffix, _PARTITION_BYTES) for suffix in suffixes]
        expected = [never_stopped(at) for at in sites]
        while found["tried"] < kills:
            turn = found["histories"] % len(sites)
            _history(sites[turn], expected[turn], found, most=kills - found["tried"])
    again = found["begun"] - found["partitions"]
    return found | {
        "recomputed share": again / max(1, found["partitions"]),
        "recomputed partitions a kill": again / kills,
    }


def _history(at: Site, whole: Whole, found: dict[str, Any], *, most: int) -> None:
    """Killed again and again, then left alone."""
    killed = 0
    while killed < min(most, 5 + found["histories"] % 7) and _is_killed(at, whole.partitions, found["landed"]):
        killed += 1
        if at.output.exists() and tree_of(at.output) != whole.files:
            found["violations"].append(f"{at.suffix}: a half after kill {found['tried'] + killed}")
    ended = at.start().wait()
    if ended or tree_of(at.output) != whole.files:
        found["violations"].append(f"{at.suffix}: exit {ended} or other bytes after kill {found['tried'] + killed}")
    found["tried"] += killed
    found["histories"] += 1
    found["begun"] += at.partitions_begun()
    found["partitions"] += whole.partitions
    at.clear()


def _is_killed(at: Site, partitions: int, landed: dict[str, int]) -> bool:
    """Start the command, and kill it; False where it ended before."""
    process = at.start()
    left = partitions - partitions_done(at)
    wait_for_partitions(process, at, at.partitions_begun() + random.randint(1, max(1, left)))
    time.sleep(random.uniform(0, _MOMENT_S))
    process.kill()
    if process.wait() == 0:
        return False
    where = _where(at, partitions)
    landed[where] = landed.get(where, 0) + 1
    return True


def _where(at: Site, partitions: int) -> str:
    """What the killed run was doing, by what it left."""
    if has_committed(at):
        return LANDINGS[-1]
    done = partitions_done(at)
    return LANDINGS[4] if done == partitions else LANDINGS[0 if done == 0 else 1 + 3 * done // partitions]


def main() -> None:
    sys.stdout.write(json.dumps(random_kills(kills=int(sys.argv[1])), indent=2) + "\n")


if __name__ == "__main__":
    main()
