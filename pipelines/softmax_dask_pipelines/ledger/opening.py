"""What a command has to do to an output: go on with what is open, add what is new, write it, or nothing at all."""

from dataclasses import dataclass
from pathlib import Path

from softmax_dask_pipelines.errors import InputChangedError, OutputExistsError
from softmax_dask_pipelines.job import Cut, Job, recut
from softmax_dask_pipelines.ledger.fingerprint import Difference, compare, joined, json_of, rows_from, stamps_of
from softmax_dask_pipelines.ledger.history import History, PlanRecord
from softmax_dask_pipelines.ledger.settings import differences, settings_of
from softmax_dask_pipelines.sinks.places import require_absent, require_output


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
        self._settings, self._stamps = settings_of(job), job.source.stamps()
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
        step = None if history.open is None else self._open_step(history.open, history.output)
        if step is not None:
            return step
        if history.latest is None or self._replace:
            return self._whole(history, replaces=self._replace)
        self._require_settings(history.latest.plan, history.output, "was written")
        found = self._difference(history.latest.plan)
        if found.changed and self._rescores:
            return self._whole(history, replaces=True)
        self._require_input(found)
        return self._increment(history, history.latest.plan, found) if found.added_rows or found.added_files else None

    def require_unchanged(self, plan: PlanRecord) -> None:
        """Refuse to publish what was read while somebody changed it."""
        now = self._job.source.stamps()
        self._require_input(compare(stamps_of(plan.input), now, self._job.source.content))

    def _open_step(self, plan: PlanRecord, output: Path) -> Step | None:
        """The open plan, gone on with; None where the command is to start over."""
        found = self._difference(plan)
        is_other = bool(found.changed or differences(plan.settings, self._settings))
        if (self._replace and (is_other or not plan.is_whole)) or (found.changed and self._rescores):
            return None
        self._require_settings(plan, output, "has a run that did not end, which was begun")
        self._require_input(found)
        return self._step(plan, is_last=not (found.added_rows or found.added_files))

    def _whole(self, history: History, *, replaces: bool) -> Step:
        """All of the input, into an output of its own."""
        if replaces:
            require_output(history.output)
        else:
            require_absent(history.output)
        spec, number = self._job.spec, history.number + 1
        plan = PlanRecord(
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
        plan = PlanRecord(
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
        # A partition that is partly visible is written anew, whole; parts of Parquet are never touched again.
        visible = plan.visible_rows
        first = visible // plan.partition_rows * plan.partition_rows if self._job.spec.format == "zarr" else visible
        cut = Cut(
            rows=rows_from(first, stamps_of(plan.input), self._stamps),
            first_row=first if self._job.spec.format == "zarr" else 0,
            partition_rows=plan.partition_rows,
            chunk_rows=plan.chunk_rows,
            visible_rows=plan.visible_rows,
            commit=plan.commit - plan.first + 1,
            attributes=plan.attributes,
        )
        return Step(plan, recut(self._job, cut), is_last)

    def _difference(self, plan: PlanRecord) -> Difference:
        return compare(stamps_of(plan.input), self._stamps, self._job.source.content)

    def _require_settings(self, plan: PlanRecord, output: Path, was: str) -> None:
        found = differences(plan.settings, self._settings)
        if found:
            raise OutputExistsError(
                f"{output}: {was} with other settings ({'; '.join(found)}); expected the same ones. "
                "Use them, choose another path, or start over with --replace."
            )

    def _require_input(self, found: Difference) -> None:
        if found.changed and self._job.config.on_changed != "ignore":
            more = f", and {len(found.changed) - 1:,} more" if len(found.changed) > 1 else ""
            raise InputChangedError(
                f"{self._job.facts.path}: {found.changed[0]}{more} after it was scored; expected it to stay. Put it "
                "back, score everything again (on_changed: rescore, or --replace), or keep what is scored "
                "(on_changed: ignore)."
            )
