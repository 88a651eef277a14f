"""Crash points of some histories, power cuts, full disks, races, readers: `python -m tests.pipelines.faults.campaign`.

Prints one JSON object: what was tried, and each violation in words. Histories run in a folder that is put back before
each fault; each run is a child, forked from this process, which has everything loaded.
"""

import argparse
import errno
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from softmax_dask_pipelines import storage
from tests.pipelines.faults import mutants, power
from tests.pipelines.faults.children import KILLED, end, forked, start
from tests.pipelines.faults.injection import ForgetfulInjector
from tests.pipelines.faults.stage import KINDS, At, Figures, Stage, crashed, die, plain, points, staged
from tests.pipelines.faults.watching import readers

_ERRNOS = (errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EACCES)


def kills(stage: Stage, *, stride: int) -> Figures:
    """SIGKILL at every operation, or every so many."""
    figures = Figures()
    for kind in KINDS:
        for at in stage.steps(kind):
            for point in points(at.operations, stride):
                at.restore()
                where = f"{at}, killed at {point} of {at.operations}"
                ended = crashed(at, point, die)
                figures.tried += 1
                figures.require(ended.code == KILLED, f"{where}: {ended}")
                if at.require_old_or_new(figures, where, by_all=True):
                    at.require_rerun(figures, where)
    return figures


def forgotten_names(stage: Stage, *, stride: int, mutate: mutants.Mutate | None = None) -> Figures:
    """The power goes, on a file system that forgets names whose folder was not synced; also right after exit 0."""
    figures = Figures()
    for kind in KINDS:
        for at in stage.steps(kind):
            for point in (*points(at.operations, stride), at.operations + 1):
                at.restore()
                where = f"{at}, names forgotten at {point} of {at.operations}"
                forked(lambda: _forgetting(stage, at, point, mutate))  # noqa: B023
                figures.tried += 1
                look = at.require_old_or_new if point <= at.operations else at.require_new
                if look(figures, where):
                    at.require_rerun(figures, where)
            if mutate is not None and figures.violations:
                return figures
    return figures


def power_cuts(stage: Stage, folder: Path, *, stride: int) -> Figures:
    """The power goes at every operation, or every so many; every second time a stranger has synced before."""
    figures = Figures()
    with power.LoopDisk(folder) as disk:
        for kind in KINDS:
            for at in stage.steps(kind, disk.folder):
                for point in points(at.operations, stride):
                    where = f"{at}, power cut at {point} of {at.operations}"
                    _cut_at(at, disk, point)
                    figures.tried += 1
                    if at.require_old_or_new(figures, where):
                        at.require_rerun(figures, where)
    return figures


def acknowledged(stage: Stage, folder: Path, *, times: int, mutate: mutants.Mutate | None = None) -> Figures:
    """The power goes right after exit 0."""
    figures = Figures()
    with power.LoopDisk(folder) as disk:
        for kind in KINDS:
            for at in stage.steps(kind, disk.folder):
                for _ in range(times):
                    at.restore()
                    os.sync()
                    ended = forked(lambda: plain(at.history, at.number, mutate))  # noqa: B023
                    disk.cut_after_a_stranger_synced() if figures.tried % 2 else disk.cut()
                    disk.come_back()
                    figures.tried += 1
                    figures.require(ended.code == 0, f"{at}: {ended}")
                    at.require_new(figures, f"{at}, power cut after exit 0")
    return figures


def broken_protocols(stage: Stage, folder: Path | None, *, stride: int) -> Figures:
    """Each mutant must be caught: by kills, or by power cuts where there is a disk for them."""
    figures = Figures(more={"caught": {}})
    for name, mutate in mutants.BY_KILL.items():
        figures.tried += 1
        figures.more["caught"][name] = figures.require(_caught_by_kill(stage, mutate, stride), f"{name}: not caught")
    figures.tried += 1
    found = forgotten_names(stage, stride=10_000, mutate=mutants.no_folder_fsync)
    figures.more["caught"]["no folder fsync"] = figures.require(bool(found.violations), "no folder fsync: not caught")
    if folder is not None:
        figures.tried += 1
        found = acknowledged(stage, folder, times=1, mutate=mutants.no_fsync)
        figures.more["caught"]["no fsync"] = figures.require(bool(found.violations), "no fsync: not caught")
    return figures


def failing_calls(stage: Stage, *, stride: int) -> Figures:
    """The system says no: once, or from then on; with a full disk, a failing one, too many files, no permission."""
    figures = Figures(more={"exit codes": {}})
    faults = [(code, persists) for code in _ERRNOS for persists in (False, True)]
    for kind in KINDS:
        for at in stage.steps(kind):
            for turn, point in enumerate(points(at.operations, stride)):
                code, persists = faults[turn % len(faults)]
                at.restore()
                where = f"{at}, {errno.errorcode[code]}{' from' if persists else ''} at {point} of {at.operations}"
                ended = crashed(at, point, _fail_with(code), persists=persists)
                figures.tried += 1
                codes = figures.more["exit codes"]
                codes[str(ended.code)] = codes.get(str(ended.code), 0) + 1
                fine = figures.require(ended.code in (0, 2, 75), f"{where}: {ended}")
                if fine and at.require_old_or_new(figures, where):
                    at.require_rerun(figures, where)
    return figures


def races(stage: Stage, *, times: int, drivers: int = 4) -> Figures:
    """Several commands at once: one commit each time. And `put_new` alone, without a lock: one winner each time."""
    figures = Figures()
    for turn in range(times):
        history = stage.history(KINDS[turn % 2])
        history.grow(0)
        ended = [end(child) for child in [start(lambda: history.run(0)) for _ in range(drivers)]]  # noqa: B023
        figures.tried += 1
        codes = sorted(each.code for each in ended)
        figures.require(set(codes) <= {0, 75}, f"race {turn}: {ended}")
        scored = [each.value for each in ended if each.code == 0 and each.value]
        commits = len(list(history.job.glob("commit-*")))
        figures.require(len(scored) == commits == 1, f"race {turn}: {commits} commits, {codes}, rows {scored}")
        figures.require(stage.state(history, history.states(0)) == 0, f"race {turn}: no output")
        path = stage.root / f"decision-{turn}"
        moment = time.monotonic() + 0.02
        winners = [end(child).value for child in [start(lambda: _put_at(moment, path)) for _ in range(drivers)]]  # noqa: B023
        figures.require(sum(winners) == 1, f"put_new {turn}: {winners}")
    return figures


def _put_at(moment: float, path: Path) -> bool:
    while time.monotonic() < moment:
        pass
    return storage.put_new(path, [str(os.getpid()).encode()])


def _caught_by_kill(stage: Stage, mutate: mutants.Mutate, stride: int) -> bool:
    for at in stage.steps(("zarr", "zarr")):
        for point in points(at.operations, stride):
            figures = Figures()
            at.restore()
            crashed(at, point, die, mutate=mutate)
            if not at.require_old_or_new(figures, "") or not at.require_rerun(figures, "", mutate):
                return True
    return False


def _cut_at(at: At, disk: power.LoopDisk, point: int) -> None:
    at.restore()
    os.sync()
    cut = disk.cut_after_a_stranger_synced if point % 2 else disk.cut

    def act() -> None:
        cut()
        die()

    crashed(at, point, act)
    disk.come_back()


def _forgetting(stage: Stage, at: At, point: int, mutate: mutants.Mutate | None) -> None:
    injector = ForgetfulInjector(point, die, aside=stage.root)
    injector.install()
    if mutate is not None:
        mutate()
    at.history.run(at.number)
    injector.forget()


def _fail_with(code: int) -> Callable[[], None]:
    def act() -> None:
        raise OSError(code, os.strerror(code))

    return act


def campaign(
    *,
    stride: int,
    power_stride: int,
    mutant_stride: int,
    times: int,
    seconds: float,
    only: Collection[str] | None = None,
) -> dict[str, Any]:
    """All sections, or some."""
    found: dict[str, Any] = {}
    with staged() as stage, tempfile.TemporaryDirectory() as disks:
        reason = power.why_not(Path(disks, "probe"))
        sections: dict[str, Callable[[], Figures]] = {
            "kills": lambda: kills(stage, stride=stride),
            "forgotten names": lambda: forgotten_names(stage, stride=stride),
            "failing calls": lambda: failing_calls(stage, stride=stride),
            "races": lambda: races(stage, times=times),
            "readers": lambda: readers(stage, seconds=seconds),
            "mutants": lambda: broken_protocols(
                stage, None if reason else Path(disks, "mutants"), stride=mutant_stride
            ),
        }
        if reason is None:
            sections["power cuts"] = lambda: power_cuts(stage, Path(disks, "cuts"), stride=power_stride)
            sections["cuts after exit 0"] = lambda: acknowledged(stage, Path(disks, "acks"), times=max(1, times // 10))
        for name, section in sections.items():
            if only is not None and name not in only:
                continue
            begin = time.monotonic()
            figures = section()
            found[name] = vars(figures) | {"seconds": time.monotonic() - begin}
    return found | {"no power cuts": reason}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--stride", type=int, default=40)
    parser.add_argument("--power-stride", type=int, default=100)
    parser.add_argument("--mutant-stride", type=int, default=7)
    parser.add_argument("--times", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10, help="that readers look")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="SECTION")
    given = parser.parse_args()
    random.seed(given.seed)
    found = campaign(
        stride=given.stride,
        power_stride=given.power_stride,
        mutant_stride=given.mutant_stride,
        times=given.times,
        seconds=given.seconds,
        only=given.only,
    )
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
