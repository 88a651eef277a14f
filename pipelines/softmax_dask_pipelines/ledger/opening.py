"""What a command has to do to an output: go on with what is open, add what is new, write it, or nothing at all."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from softmax_dask_pipelines.checksums import crc32c_of
from softmax_dask_pipelines.errors import InputChangedError, OutputExistsError
from softmax_dask_pipelines.job import Cut, Job, recut
from softmax_dask_pipelines.ledger.fingerprint import (
    Change,
    Difference,
    amended,
    compare,
    joined,
    json_of,
    rows_from,
    stamps_of,
)
from softmax_dask_pipelines.ledger.history import Commit, History, PlanRecord
from softmax_dask_pipelines.ledger.journal import read_journal
from softmax_dask_pipelines.ledger.settings import differences, settings_of
from softmax_dask_pipelines.object_path import AnyPath
from softmax_dask_pipelines.retrying import attempted
from softmax_dask_pipelines.sinks.places import require_absent, require_output
from softmax_dask_pipelines.sources.stamps import Stamps


@dataclass(frozen=True, slots=True)
class Step:
    """One plan to carry out."""

    plan: PlanRecord
    job: Job
    """The run, of the rows of this plan and in its pieces."""
    is_last: bool
    """Whether it scores all that there is now."""


class Opening:
    """A command, beside what is known of its output."""

    def __init__(self, job: Job, *, replace: bool) -> None:
        self._job, self._replace = job, replace
        self._settings, self._stamps = settings_of(job), self._stamps_now()
        self._rescores = job.config.on_changed == "rescore"

    def step(self, history: History) -> Step | None:
        """What to do next; None where all is done.

        Raises
        ------
        OutputExistsError
            The output, or the plan that is open, has other settings, or is not known.
        InputChangedError
            What is scored already is not what it was.
        """
        step = None if history.open is None else self._open_step(history, history.open)
        if step is not None:
            return step
        if history.latest is None or self._replace:
            return self._whole(history, replaces=self._replace)
        self._require_settings(history.latest.plan, history.output, "was written")
        _require_as_committed(history.output, history.latest)
        found = self._difference(history.latest.plan)
        if found.changed and self._rescores:
            return self._whole(history, replaces=True)
        self._require_input(found.changed)
        return self._increment(history, history.latest.plan, found) if found.added_rows or found.added_files else None

    def require_unchanged(self, plan: PlanRecord) -> None:
        """Refuse to publish what was read while somebody changed it."""
        self._require_input(compare(stamps_of(plan.input), self._stamps_now(), self._content).changed)

    def _open_step(self, history: History, plan: PlanRecord) -> Step | None:
        """The open plan, gone on with; None where the command is to start over."""
        found = self._difference(plan)
        harmful = [change for change in found.changed if self._is_scored(history, plan, change)]
        is_other = bool(harmful or differences(plan.settings, self._settings))
        # What was refused has been seen by nobody: a dump that was written anew since then is the answer to that.
        may_drop = self._rescores or history.was_refused(plan)
        if (self._replace and (is_other or not plan.is_whole)) or (harmful and may_drop):
            return None
        self._require_settings(plan, history.output, "has a run that did not end, which was begun")
        self._require_input(harmful)
        if found.changed and not harmful:  # data that were bad, and are mended
            now = amended(stamps_of(plan.input), self._stamps, self._content)
            plan = replace(plan, input=json_of(now))
        return self._step(plan, is_last=not (found.added_rows or found.added_files))

    def _is_scored(self, history: History, plan: PlanRecord, change: Change) -> bool:
        """Whether some partition that is done, by this plan or an earlier commit, has rows that were changed."""
        if change.rows is None or change.rows.start < plan.visible_rows:
            return True
        first = plan.visible_rows if self._job.spec.format == "parquet" else 0
        numbers = (receipt.partition for receipt in read_journal(history.path("journal", plan)))
        starts = (first + number * plan.partition_rows for number in numbers)
        rows = change.rows
        return any(start < rows.stop and rows.start < start + plan.partition_rows for start in starts)

    def _whole(self, history: History, *, replaces: bool) -> Step:
        """All of the input, into an output of its own."""
        if replaces:
            require_output(history.output)
        else:
            require_absent(history.output)
        spec, number = self._job.spec, history.number + 1
        plan = PlanRecord.made(
            commit=number,
            first=number,
            replaces=replaces,
            settings=self._settings,
            input=json_of(self._stamps),
            rows=spec.rows,
            visible_rows=0,
            partition_rows=spec.partition_rows,
            chunk_rows=spec.chunk_rows,
            attributes=spec.attributes,
        )
        return self._step(plan, is_last=True)

    def _increment(self, history: History, before: PlanRecord, found: Difference) -> Step:
        """What is new, in pieces such as the output has."""
        plan = PlanRecord.made(
            commit=history.number + 1,
            first=before.first,
            replaces=False,
            settings=self._settings,
            input=json_of(joined(stamps_of(before.input), self._stamps, found.added_files)),
            rows=before.rows + found.added_rows,
            visible_rows=before.rows,
            partition_rows=before.partition_rows,
            chunk_rows=before.chunk_rows,
            attributes=self._job.spec.attributes,
        )
        return self._step(plan, is_last=True)

    def _step(self, plan: PlanRecord, *, is_last: bool) -> Step:
        return Step(plan, as_planned(self._job, plan, self._stamps), is_last)

    def _stamps_now(self) -> Stamps:
        job = self._job
        return attempted(job.source.stamps, retries=job.config.retries, what=job.facts.path)

    def _content(self, name: str, rows: range) -> str:
        job = self._job
        return attempted(lambda: job.source.content(name, rows), retries=job.config.retries, what=job.facts.path)

    def _difference(self, plan: PlanRecord) -> Difference:
        return compare(stamps_of(plan.input), self._stamps, self._content)

    def _require_settings(self, plan: PlanRecord, output: AnyPath, was: str) -> None:
        found = differences(plan.settings, self._settings)
        if found:
            raise OutputExistsError(
                f"{output}: {was} with other settings ({'; '.join(found)}); expected the same ones. "
                "Use them, choose another path, or start over with --replace."
            )

    def _require_input(self, changed: Sequence[Change]) -> None:
        if changed and self._job.config.on_changed != "ignore":
            more = f", and {len(changed) - 1:,} more" if len(changed) > 1 else ""
            raise InputChangedError(
                f"{self._job.facts.path}: {changed[0].words}{more} after it was scored; expected it to stay. Put it "
                "back, score everything again (on_changed: rescore, or --replace), or keep what is scored "
                "(on_changed: ignore)."
            )


def _require_as_committed(output: AnyPath, commit: Commit) -> None:
    """Refuse to add to something else that has come to the output's path: a look at its root, no more."""
    plan = commit.plan
    if plan.settings["output.format"] == "zarr":
        root = next(stored for stored in commit.documents if stored.key == "zarr.json")
        file = output / root.key
        fine = file.exists() and crc32c_of([file.read_bytes()]) == root.crc32c
    else:
        numbers = range(1, plan.commit - plan.first + 2)
        fine = all((output / f"commit={number:06d}").is_dir() for number in numbers)
    if not fine:
        raise OutputExistsError(
            f"{output}: is not what its last commit has written; expected it to be left alone. Put it back, choose "
            "another path, or start over with --replace."
        )


def as_planned(job: Job, plan: PlanRecord, now: Stamps) -> Job:
    """The run of the rows of a plan, in its pieces; `now` is how the input looks."""
    # A partition that is partly visible is written anew, whole; parts of Parquet are never touched again.
    is_zarr, visible = job.spec.format == "zarr", plan.visible_rows
    first = visible // plan.partition_rows * plan.partition_rows if is_zarr else visible
    cut = Cut(
        rows=rows_from(first, stamps_of(plan.input), now),
        first_row=first if is_zarr else 0,
        partition_rows=plan.partition_rows,
        chunk_rows=plan.chunk_rows,
        visible_rows=visible,
        commit=plan.commit - plan.first + 1,
        attributes=plan.attributes,
    )
    return recut(job, cut)
