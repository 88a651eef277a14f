"""What a scoring run came to: counts, seconds and bytes, for people, for machines and for the records."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from softmax_dask_pipelines.expectations import Shift
from softmax_dask_pipelines.job import Job
from softmax_dask_pipelines.tally import Tally


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run came to."""

    job: Job
    """As the last plan had it."""
    partitions: int
    bytes_in: int
    """Logits that this run has read, decoded."""
    tally: Tally
    """Of all rows, also of those that an earlier run of the same plan has scored."""
    seconds: float
    """Wall time of this run, from the first write to the publication."""
    compile_s: float
    """Of it, what compiling the kernels took, or loading them from the disk cache; on a cluster, until the workers that
    were there then had done so."""
    bytes_written: int
    read_s: float
    """Of this run, all threads together, as `kernel_s` and `write_s`."""
    kernel_s: float
    write_s: float
    new_rows: int = 0
    """Of these rows those that the output did not have: the last partition of Zarr is scored again, whole."""
    is_up_to_date: bool = False
    """Whether there was nothing to do."""
    shift: Shift | None = None
    """From the previous run, where the config expects something of it."""

    def facts(self) -> dict[str, Any]:
        """The figures of a run, for machines: JSON types only, seconds and bytes."""
        tally, plan = self.tally, self.job.plan
        decided = tally.rows - tally.undecidable
        return {
            "output": self.job.spec.path,
            "up_to_date": self.is_up_to_date,
            "rows": tally.rows,
            "new_rows": self.new_rows,
            "classes": self.job.facts.classes,
            "undecidable_rows": tally.undecidable,
            "mean_confidence": _mean(tally.confidence_sum, decided),
            "mean_entropy": _mean(tally.entropy_sum, decided),
            "labelled_rows": tally.labelled,
            "accuracy": _mean(tally.correct, tally.labelled),
            "mean_nll": _mean(tally.nll_sum, tally.labelled),
            "mean_tail_mass": self._mean_of_tails("tail_mass", decided),
            "mean_tail_divergence": self._mean_of_tails("tail_divergence", decided),
            "top_labels": [
                {
                    "label": label,
                    "name": self._name_of(label),
                    "rows": count,
                    "is_exact": label not in tally.lower_bounds,
                }
                for label, count in sorted(tally.labels.items(), key=lambda item: (-item[1], item[0]))[:5]
            ],
            "label_share_shift": None if self.shift is None else self.shift.distance,
            "partitions": self.partitions,
            "threads": plan.threads,
            "seconds": self.seconds,
            "compile_s": self.compile_s,
            "bytes_in": self.bytes_in,
            "bytes_written": self.bytes_written,
            "read_s": self.read_s,
            "kernel_s": self.kernel_s,
            "write_s": self.write_s,
            **self._pace(),
        }

    def record(self) -> dict[str, Any]:
        """What stands in the manifest: also the counts that the next run compares its own with."""
        return {**self.facts(), "label_groups": list(self.tally.label_groups)}

    def _mean_of_tails(self, column: str, decided: int) -> float | None:
        """None where the output does not have the column."""
        return _mean(getattr(self.tally, f"{column}_sum"), decided) if column in self.job.spec.columns else None

    def _pace(self) -> dict[str, float | None]:
        """How fast it went once kernels were loaded, and the shares of the threads' time; None of a run of nothing."""
        scoring_s, threads_s = self.seconds - self.compile_s, self.read_s + self.kernel_s + self.write_s
        row_bytes = self.job.facts.classes * self.job.facts.dtype.itemsize
        return {
            "rows_per_s": _mean(self.bytes_in / row_bytes, scoring_s),
            "gb_per_s": _mean(self.bytes_in / 1e9, scoring_s),
            "read_share": _mean(self.read_s, threads_s),
            "kernel_share": _mean(self.kernel_s, threads_s),
            "write_share": _mean(self.write_s, threads_s),
        }

    def _name_of(self, label: int) -> str | None:
        names = self.job.facts.class_names
        return None if names is None else names[label]


def together(job: Job, results: Sequence[RunResult]) -> RunResult:
    """What the plans of one command came to; of none, that all is up to date."""
    return RunResult(
        job=results[-1].job if results else job,
        partitions=sum(result.partitions for result in results),
        bytes_in=sum(result.bytes_in for result in results),
        tally=Tally.merged(result.tally for result in results),
        seconds=sum(result.seconds for result in results),
        compile_s=sum(result.compile_s for result in results),
        bytes_written=sum(result.bytes_written for result in results),
        read_s=sum(result.read_s for result in results),
        kernel_s=sum(result.kernel_s for result in results),
        write_s=sum(result.write_s for result in results),
        shift=results[-1].shift if results else None,
        new_rows=sum(result.new_rows for result in results),
        is_up_to_date=not results,
    )


def _mean(total: float, count: float) -> float | None:
    return total / count if count else None
