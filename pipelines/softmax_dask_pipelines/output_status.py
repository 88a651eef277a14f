"""What is known of an output, from what its runs have left beside it. Reads documents alone, and changes nothing."""

import os
from collections.abc import Mapping
from typing import Any

from softmax_dask_pipelines.errors import SourceNotFoundError
from softmax_dask_pipelines.ledger.history import History, PlanRecord, commit_numbers, read_commit
from softmax_dask_pipelines.ledger.journal import read_journal
from softmax_dask_pipelines.ledger.lock import holder
from softmax_dask_pipelines.outputs_at import output_at


def status(output: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Commits, rows, the plan that is open and how far it is, and who is writing: JSON types only.

    Parameters
    ----------
    storage_options : profile, endpoint_url, region, anon, requester_pays of what is on s3://; by the environment

    Raises
    ------
    SourceNotFoundError
        No run has left anything beside this path.
    OutputExistsError
        What is there is not ours, or of another version.
    """
    path = output_at(output, storage_options)
    history = History.of(path)
    running = holder(path)
    if not history.number and history.open is None and running is None:
        raise SourceNotFoundError(
            f"{path}: no run is known that has written it; expected {history.folder} with what its runs left there. "
            "Check the path."
        )
    latest = history.latest
    return {
        "output": str(path),
        "rows": 0 if latest is None else latest.plan.rows,
        "commits": [] if latest is None else [_commit_facts(history, n) for n in _numbers(history, latest.plan)],
        "open": None if history.open is None else _open_facts(history, history.open),
        "running": running,
    }


def _numbers(history: History, plan: PlanRecord) -> list[int]:
    return [number for number in commit_numbers(history.folder) if number >= plan.first]


def _commit_facts(history: History, number: int) -> dict[str, Any]:
    commit = read_commit(history.folder, number)
    return {"number": number, "at": commit.at, "rows": commit.plan.rows, "new_rows": _new_rows(commit.plan)}


def _open_facts(history: History, plan: PlanRecord) -> dict[str, Any]:
    done = {receipt.partition for receipt in read_journal(history.path("journal", plan))}
    return {
        "kind": "replacement" if plan.replaces else "new output" if plan.is_whole else "increment",
        "new_rows": _new_rows(plan),
        "partitions": plan.partitions,
        "done": len(done),
    }


def _new_rows(plan: PlanRecord) -> int:
    return plan.rows - plan.visible_rows
