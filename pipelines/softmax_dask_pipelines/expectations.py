"""What a run must come to before it is published, and what it came to."""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from softmax_dask_pipelines.config_models import ScoreConfig
from softmax_dask_pipelines.config_schedule import Expectations
from softmax_dask_pipelines.errors import ExpectationError
from softmax_dask_pipelines.ledger.manifest import published_manifests
from softmax_dask_pipelines.tally import Tally


@dataclass(frozen=True, slots=True)
class Shift:
    """How far the shares of the labels are from those of the previous run."""

    distance: float | None
    """Total variation distance: half the sum of what the shares differ by. None: see `problem`."""
    previous: str | None
    """The run that was compared with; None: there is none."""
    problem: str | None = None
    """Why there is no distance."""


def shift_of(config: ScoreConfig, output: str, tally: Tally, classes: int) -> Shift | None:
    """The shift from the previous run, where the config expects something of it.

    That is the last one of an earlier day where paths have dates, else the last one.
    """
    asked = None if config.expect is None else config.expect.label_share_shift
    if asked is None:
        return None
    outputs = asked.previous or glob.escape(output)
    previous = _previous(outputs, config.date)
    if previous is None:
        return Shift(None, None, f"no earlier run of {outputs}")
    name = f"run {previous['run']}" + (f" of {previous['date']}" if previous.get("date") else "")
    found = previous["result"]
    if found.get("classes") != classes:
        return Shift(None, name, f"it has {found.get('classes')} classes, and this run {classes}")
    if not any(tally.label_groups):
        return Shift(None, name, "no row of this run is decidable")
    return Shift(_distance(tally.label_groups, found["label_groups"]), name)


def require_expected(expect: Expectations | None, tally: Tally, shift: Shift | None) -> None:
    """Refuse to publish what is not as expected.

    Raises
    ------
    ExpectationError
        Each expectation that is not met, its figure and its bound.
    """
    faults = [] if expect is None else list(_faults(expect, tally, shift))
    if faults:
        raise ExpectationError(
            f"{' '.join(faults)} Nothing is published, and what is scored is kept. Look at the input, or change what "
            "is expected and run the command again."
        )


def _faults(expect: Expectations, tally: Tally, shift: Shift | None) -> Iterator[str]:
    decided = tally.rows - tally.undecidable
    if expect.rows is not None:
        yield from _outside("rows", tally.rows, expect.rows.min, expect.rows.max)
    if expect.nonfinite_fraction is not None and tally.rows:
        fraction = tally.undecidable / tally.rows
        yield from _outside("nonfinite_fraction", fraction, None, expect.nonfinite_fraction.max)
    if expect.mean_confidence is not None:
        mean = tally.confidence_sum / decided if decided else None
        yield from _outside("mean_confidence", mean, expect.mean_confidence.min, expect.mean_confidence.max)
    if expect.label_share_shift is not None and shift is not None and shift.previous is not None:
        yield from _too_far(shift, expect.label_share_shift.max)


def _too_far(shift: Shift, most: float) -> Iterator[str]:
    if shift.distance is None:
        yield f"expect.label_share_shift: cannot be known from {shift.previous}: {shift.problem}."
    elif shift.distance > most:
        yield (f"expect.label_share_shift: is {shift.distance:.6g} from {shift.previous}; expected at most {most:,}.")


def _outside(name: str, figure: float | None, least: float | None, most: float | None) -> Iterator[str]:
    bounds = [f"at {word} {bound:,}" for word, bound in (("least", least), ("most", most)) if bound is not None]
    if figure is None:
        yield f"expect.{name}: is nothing, there being no decidable row; expected {' and '.join(bounds)}."
    elif (least is not None and figure < least) or (most is not None and figure > most):
        shown = f"{figure:,}" if isinstance(figure, int) else f"{figure:.6g}"
        yield f"expect.{name}: is {shown}; expected {' and '.join(bounds)}."


def _previous(outputs: str, day: str | None) -> dict[str, Any] | None:
    """The record of the run to compare with, one that has counted labels."""
    found = (record for record in published_manifests(outputs) if _has_counted(record))
    if day is None:
        return next(found, None)
    earlier = [record for record in found if (record.get("date") or "") < day]
    return max(earlier, key=lambda record: record.get("date") or "", default=None)  # of equal ones the first


def _has_counted(record: dict[str, Any]) -> bool:
    result = record.get("result")
    counts = result.get("label_groups") if isinstance(result, dict) else None
    return isinstance(counts, list) and all(isinstance(count, int) for count in counts) and any(counts)


def _distance(counts: Sequence[int], others: Sequence[int]) -> float:
    total, of_others = sum(counts), sum(others)
    pairs = zip_longest(counts, others, fillvalue=0)
    return sum(abs(count / total - other / of_others) for count, other in pairs) / 2
