"""Is an output still what was written, and what its input gives? Everything is read again; nothing is changed."""

import os
import random
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from softmax_dask_pipelines import storage
from softmax_dask_pipelines.checksums import is_as_written
from softmax_dask_pipelines.config import ScoreConfig, key_of, make_config
from softmax_dask_pipelines.errors import ConfigError, InputChangedError, OutputDamagedError, OutputExistsError
from softmax_dask_pipelines.job import prepare
from softmax_dask_pipelines.ledger.fingerprint import compare, stamps_of
from softmax_dask_pipelines.ledger.history import Commit, History, commit_numbers, read_commit
from softmax_dask_pipelines.ledger.journal import read_journal
from softmax_dask_pipelines.ledger.opening import as_planned
from softmax_dask_pipelines.ledger.settings import differences, settings_of
from softmax_dask_pipelines.object_path import AnyPath
from softmax_dask_pipelines.outputs_at import output_at
from softmax_dask_pipelines.scoring import task_of
from softmax_dask_pipelines.sinks import StoredObject, job_folder, open_sink
from softmax_dask_pipelines.sinks.places import Whole

_SAMPLE = 8
"""Partitions that are computed again, of each commit."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What was looked at, and found to be right."""

    output: str
    commits: int
    rows: int
    objects: int
    bytes_read: int
    recomputed: int
    """Partitions that were computed again from the input."""

    def facts(self) -> dict[str, Any]:
        """For machines: JSON types only."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def verify(
    output: str | os.PathLike[str], *, against_input: bool = False, storage_options: Mapping[str, Any] | None = None
) -> Verified:
    """Read the whole output again, and compare every object with the size and checksum that it was written with.

    Parameters
    ----------
    against_input : also compute some partitions of each commit again, and compare them byte for byte
    storage_options : profile, endpoint_url, region, anon, requester_pays of what is on s3://; by the environment

    Raises
    ------
    OutputDamagedError
        An object is missing, or is not what was written; or there is one that no run has written.
    InputChangedError
        The input is not the one that was scored.
    ConfigError, OutputExistsError
        The output has no commit of `score`; or the program would not write the same bytes now.
    """
    path = output_at(output, storage_options)
    commits = _commits(History.of(path))
    expected = {stored.key: stored for commit in commits for stored in commit.documents}
    count, size = 0, 0
    for stored in _all_objects(path, commits, expected):
        _require_whole(path, stored)
        count, size = count + 1, size + stored.size_bytes
    _require_nothing_else(path, commits, count)
    recomputed = _recompute(path, commits) if against_input else 0
    return Verified(str(path), len(commits), commits[-1].plan.rows, count, size, recomputed)


def _commits(history: History) -> list[Commit]:
    """Those that the output is made of."""
    if history.latest is None:
        raise ConfigError(f"{history.output}: no commit is known; expected an output of `score`. Check the path.")
    if history.latest.plan.settings.get("verb") not in ("score", "compact"):
        raise ConfigError(f"{history.output}: holds no results of `score`; expected such. Name another output.")
    first = history.latest.plan.first
    return [read_commit(history.folder, number) for number in commit_numbers(history.folder) if number >= first]


def _all_objects(path: AnyPath, commits: list[Commit], documents: dict[str, StoredObject]) -> Iterator[StoredObject]:
    yield from documents.values()
    for commit, following in zip(commits, [*commits[1:], None], strict=True):
        for number, objects in _partitions(path, commit):
            # The last partition of Zarr, where it was not full, was written again by the next commit.
            if following is None or not _is_written_again(following, number):
                yield from objects


def _partitions(path: AnyPath, commit: Commit) -> Iterator[tuple[int, tuple[StoredObject, ...]]]:
    journal = job_folder(path) / f"journal-{commit.plan.id}.jsonl"
    seen: set[int] = set()
    for receipt in read_journal(journal):
        if receipt.partition not in seen:
            seen.add(receipt.partition)
            yield receipt.partition, receipt.objects
    if len(seen) != commit.plan.partitions:
        raise OutputDamagedError(
            f"{journal}: tells of {len(seen)} partitions; expected the {commit.plan.partitions} of its commit. "
            "What was written cannot be compared: start over with --replace."
        )


def _is_written_again(following: Commit, number: int) -> bool:
    plan = following.plan
    return plan.settings["output.format"] == "zarr" and number >= plan.visible_rows // plan.partition_rows


def _require_whole(path: AnyPath, stored: StoredObject) -> None:
    file = path / stored.key
    try:
        size = file.stat().st_size
        fault = f"has {size:,} bytes" if size != stored.size_bytes else None
        fault = fault or (None if is_as_written(storage.parts(file), stored.key, stored.crc32c) else "has other bytes")
    except FileNotFoundError:
        fault = "is not there"
    except OSError as error:
        fault = f"cannot be read ({error.strerror})"
    if fault:
        raise OutputDamagedError(
            f"{file}: {fault}; expected the {stored.size_bytes:,} bytes that were written. "
            "Take the output from a copy, or score it again with --replace."
        )


def _require_nothing_else(path: AnyPath, commits: list[Commit], count: int) -> None:
    there = sum(1 for _ in storage.files(path))
    open_plan = History.of(path).open
    if there != count and (open_plan is None or open_plan.is_whole):
        raise OutputDamagedError(
            f"{path}: holds {there:,} files; expected the {count:,} that were written. Move what is not of the output."
        )


def _recompute(path: AnyPath, commits: list[Commit]) -> int:
    """Compute some partitions again, and compare; how many."""
    job = prepare(make_config(ScoreConfig, commits[-1].config, key_of))
    stamps, last = job.source.stamps(), commits[-1].plan
    changed = compare(stamps_of(last.input), stamps, job.source.content).changed
    if changed:
        raise InputChangedError(f"{job.facts.path}: {changed[0].words}; expected the input that was scored.")
    # A dump that was moved is the same dump: how it looks was compared.
    other = differences({**last.settings, "source.path": job.facts.path}, settings_of(job))
    if other:
        raise OutputExistsError(
            f"{job.spec.path}: was written with other settings ({'; '.join(other)}); cannot compare."
        )
    return sum(_recompute_commit(path, commit, as_planned(job, commit.plan, stamps)) for commit in commits)


def _recompute_commit(path: AnyPath, commit: Commit, job: Any) -> int:
    written = dict(_partitions(path, commit))
    numbers = random.sample(sorted(written), min(_SAMPLE, len(written)))
    with tempfile.TemporaryDirectory() as folder:
        place = Whole(Path(folder, "out"), Path(folder, "stage"), Path(folder, "scratch"), durable=False)
        sink = open_sink(job.spec, place)
        sink.prepare()
        task = task_of(job, sink, Event())
        for number in numbers:
            if task(number).objects != written[number]:
                rows = job.plan.partition(number)
                raise OutputDamagedError(
                    f"{path}: rows {rows.start:,} to {rows.stop - 1:,} of commit {commit.plan.commit} are not "
                    "what the input gives; expected the same bytes. Score it again with --replace."
                )
    return len(numbers)
