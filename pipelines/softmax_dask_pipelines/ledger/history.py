"""What OUTPUT.job knows of an output: its commits, and the plan that is open, if a run did not end."""

import re
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from typing import Any

from softmax_dask_pipelines import storage
from softmax_dask_pipelines.ledger.records import read_record, record
from softmax_dask_pipelines.object_path import AnyPath, ObjectPath
from softmax_dask_pipelines.sinks import StoredObject, job_folder
from softmax_dask_pipelines.sinks.places import Copied, Increment, Place, Whole, holds_anything

_COMMIT = re.compile(r"commit-(\d{6,})\.json")
_PLAN = re.compile(r"plan-([0-9a-f]{16})\.json")
_DOCUMENT = r"((commit-\d{6,}|(plan|metrics)-[0-9a-f]{16}|\d{8}T\d{6}Z-[0-9a-f]{8})\.json|metrics-[0-9a-f]{16}\.bin)"
_LEFTOVER = re.compile(_DOCUMENT + r"\.[0-9a-f]{8}\.tmp")


_FILES = {
    "plan": ("plan", ".json"),
    "refused": ("refused", ".json"),
    "journal": ("journal", ".jsonl"),
    "metrics": ("metrics", ".bin"),
    "metrics of before": ("metrics", ".json"),
}
"""Kind -> name and ending; other kinds are folders."""


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """All that a later run must know to go on: written before anything else."""

    id: str
    """Hash of the plan as it was made."""
    commit: int
    """Number of the commit that it becomes."""
    first: int
    """Number of the first commit of the output that it is part of: its own where it writes the whole output."""
    replaces: bool
    """Whether it takes the place of what is at the output's path."""
    settings: dict[str, Any]
    """What determines the bytes of the output: dotted key -> value."""
    input: dict[str, Any]
    """How the input looked, all that is scored when this plan is committed; JSON of its stamps."""
    rows: int
    """Rows of the output when it is committed: first those of earlier commits, then those that are new."""
    visible_rows: int
    """Rows that earlier commits have written."""
    partition_rows: int
    chunk_rows: int
    attributes: dict[str, Any]
    """What the output says of itself."""

    @classmethod
    def made(cls, **fields: Any) -> "PlanRecord":
        """The plan of these fields, with its id."""
        plan = cls(id="", **fields)
        return replace(plan, id=blake2b(record("plan", fields_of(plan)), digest_size=8).hexdigest())

    @property
    def partitions(self) -> int:
        """How many it has."""
        first = self.visible_rows // self.partition_rows if self.settings.get("output.format") == "zarr" else 0
        rows = self.rows if self.settings.get("output.format") == "zarr" else self.rows - self.visible_rows
        return max(1, -(-rows // self.partition_rows)) - first

    @property
    def is_whole(self) -> bool:
        """Whether it writes the whole output, and does not add to one."""
        return self.first == self.commit


@dataclass(frozen=True, slots=True)
class Commit:
    """What has happened: the plan whose partitions are all there. Its document, put where none was, decides."""

    plan: PlanRecord
    made: int | None
    """What `Place.publish` must know."""
    config: dict[str, Any]
    """What the run was told, as it was resolved."""
    documents: tuple[StoredObject, ...]
    """What was stored beside the partitions."""
    result: dict[str, Any]
    """Figures of the partitions."""
    at: str
    """When, in UTC."""


@dataclass(frozen=True, slots=True)
class History:
    """The state of one output."""

    output: AnyPath
    latest: Commit | None
    """The last commit; None where there is none, or where what it wrote is gone."""
    number: int
    """Of the last commit, 0 where there is none."""
    open: PlanRecord | None

    @property
    def folder(self) -> AnyPath:
        """Where all of it is kept."""
        return job_folder(self.output)

    @classmethod
    def of(cls, output: AnyPath) -> "History":
        """What is known now.

        Raises
        ------
        OutputExistsError
            Something with our names is not ours, or of another version.
        """
        folder = job_folder(output)
        number = max(commit_numbers(folder), default=0)
        latest = read_commit(folder, number) if number else None
        # After a commit its plan is there until it is published; one of before is of no use to anybody.
        plans = [plan for plan in _plans(folder) if plan.commit > number]
        # Who removes an output, and not what is beside it, means to start over.
        is_there = holds_anything(output) or (latest is not None and (folder / f"stage-{latest.plan.id}").exists())
        known = latest if is_there else None
        usable = [plan for plan in plans if plan.is_whole or (known is not None and plan.first == known.plan.first)]
        return cls(output, known, number, usable[0] if usable else None)

    def path(self, kind: str, plan: PlanRecord) -> AnyPath:
        """A file or folder of a plan: `plan`, `refused`, `journal`, `metrics`, `stage`, `scratch` or `counts`."""
        return path_of_plan(self.folder, kind, plan)

    def was_refused(self, plan: PlanRecord) -> bool:
        """Whether what the plan came to was not as expected: then nobody has seen it, and nobody will."""
        return self.path("refused", plan).exists()

    def place(self, plan: PlanRecord, *, durable: bool = True) -> Place:
        """Where a plan is carried out."""
        output = self.output
        if isinstance(output, ObjectPath):
            return Copied(output, job_folder(output) / f"stage-{plan.id}")
        stage, scratch = (job_folder(output) / f"{kind}-{plan.id}" for kind in ("stage", "scratch"))
        if plan.is_whole:
            return Whole(output, stage, scratch, replaces=plan.replaces, durable=durable)
        return Increment(output, stage, scratch, durable=durable)


def path_of_plan(folder: AnyPath, kind: str, plan: PlanRecord) -> AnyPath:
    """As `History.path`; `metrics of before` are those that older versions of this program have written."""
    name, ending = _FILES.get(kind, (kind, ""))
    return folder / f"{name}-{plan.id}{ending}"


def commit_numbers(folder: AnyPath) -> list[int]:
    """Of all commits, rising."""
    return sorted(int(found[1]) for found in map(_COMMIT.fullmatch, _names(folder)) if found)


def commit_path(folder: AnyPath, number: int) -> AnyPath:
    """Where a commit's document is."""
    return folder / f"commit-{number:06d}.json"


def read_commit(folder: AnyPath, number: int) -> Commit:
    """The commit of that number."""
    found = read_record(commit_path(folder, number), "commit")
    documents = tuple(StoredObject(**stored) for stored in found["documents"])
    return Commit(_plan_of(found["plan"]), found["made"], found["config"], documents, found["result"], found["at"])


def put_commit(folder: AnyPath, commit: Commit) -> bool:
    """Write the document that decides; False where another run has done so meanwhile."""
    found = fields_of(commit) | {
        "plan": fields_of(commit.plan),
        "documents": [fields_of(stored) for stored in commit.documents],
    }
    return storage.put_new(commit_path(folder, commit.plan.commit), [record("commit", found)])


def fields_of(record: PlanRecord | Commit | StoredObject) -> dict[str, Any]:
    """Of a dataclass, as they are: `asdict` copies all that is in them."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


def stale_plans(history: History) -> list[PlanRecord]:
    """Plans that no run goes on with: those that are committed, and all but the open one."""
    return [plan for plan in _plans(history.folder) if plan != history.open]


def leftovers(folder: AnyPath) -> list[AnyPath]:
    """Documents that a crash has left half written, or without their name."""
    places = (folder, folder / "runs")
    return [place / name for place in places for name in _names(place) if _LEFTOVER.fullmatch(name)]


def _plans(folder: AnyPath) -> list[PlanRecord]:
    paths = [folder / name for name in sorted(_names(folder)) if _PLAN.fullmatch(name)]
    return [_plan_of(read_record(path, "plan")) for path in paths]


def _plan_of(found: dict[str, Any]) -> PlanRecord:
    return PlanRecord(**{name: found[name] for name in PlanRecord.__dataclass_fields__})


def _names(folder: AnyPath) -> list[str]:
    with storage.plain_errors(folder):
        return [path.name for path in folder.iterdir()] if folder.is_dir() else []
