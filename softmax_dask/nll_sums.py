"""The NLL of a block of rows at several temperatures, as sums that add up to the same bits in any order.

A row's NLL is rounded to 2^-32 nat and summed in integers, so how rows are cut into blocks changes no bit. Rows whose
target no temperature can make likely would hide all others: they are counted apart and are in no sum.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from softmax_dask.arrays import decisions
from softmax_dask.errors import CalibrationError
from softmax_dask.sizes import kernel_dtype

UNIT = 2.0**-32
"""nat, of a sum."""

_FURTHEST = 2.0**20
"""A target whose logit lies further below the largest one is taken for masked: float16 spans an eighth of it."""
_HIGH = 32


@dataclass(frozen=True, slots=True)
class NllSums:
    """Of rows that were taken."""

    totals: tuple[int, ...] = ()
    """Of the NLL, in units of 2^-32 nat, one for each value of 1/T."""
    rows: int = 0
    """That are in the sums."""
    infinite: int = 0
    """Rows whose target is masked, or as good as."""
    undecidable: int = 0
    """Rows with NaN, +inf or only -inf."""
    unlabelled: int = 0

    def __add__(self, other: Self) -> "NllSums":
        totals = self.totals and other.totals
        return NllSums(
            tuple(a + b for a, b in zip(self.totals, other.totals, strict=True))
            if totals
            else self.totals or other.totals,
            self.rows + other.rows,
            self.infinite + other.infinite,
            self.undecidable + other.undecidable,
            self.unlabelled + other.unlabelled,
        )

    def means(self) -> tuple[float, ...]:
        """The mean NLL in nats at each value of 1/T.

        Raises
        ------
        CalibrationError
            Of no rows.
        """
        if self.rows == 0:
            raise CalibrationError(
                f"no row can be used: {self.unlabelled:,} have no target, {self.undecidable:,} hold NaN, +inf or only "
                f"-inf, {self.infinite:,} have a masked target; expected rows with targets."
            )
        return tuple(total / self.rows * UNIT for total in self.totals)


def nll_sums(
    logits: NDArray[Any], targets: NDArray[np.int64], betas: Sequence[float], shift: NDArray[np.float64] | None
) -> NllSums:
    """Of a block, (rows, classes), at each value of 1/T; `shift` is added to the logits once divided."""
    labelled = targets >= 0
    rows, truth = only(labelled, logits), targets[labelled]
    if len(rows) == 0:
        return NllSums(tuple(0 for _ in betas), unlabelled=len(targets))
    floats = np.float64 if kernel_dtype(rows.dtype) == np.float64 else np.float32
    losses = np.empty((len(betas), len(rows)), floats)
    largest: NDArray[Any] = np.empty(len(rows), floats)
    for loss, beta in zip(losses, betas, strict=True):
        moved, out = shifted(rows, shift, 1 / beta), {"nll": loss, "max_logit": largest}
        decisions(moved, tuple(out), targets=truth, temperature=1 / beta, out=out)
    decided = ~np.isnan(largest)
    with np.errstate(invalid="ignore"):
        gap: NDArray[np.float64] = largest - moved[np.arange(len(rows)), truth].astype(np.float64)
    usable = decided & (gap <= _FURTHEST) & np.isfinite(losses).all(axis=0)
    return NllSums(
        totals=tuple(exact_sum(loss[usable]) for loss in losses),
        rows=int(np.count_nonzero(usable)),
        infinite=int(np.count_nonzero(decided & ~usable)),
        undecidable=int(np.count_nonzero(~decided)),
        unlabelled=len(targets) - len(rows),
    )


def shifted(logits: NDArray[Any], shift: NDArray[np.float64] | None, temperature: float) -> NDArray[Any]:
    """Logits that, divided by the temperature, are the given ones divided by it plus `shift`; a copy if there is one.

    The sum is rounded to float32, of float64 and 32-bit integer logits to float64.
    """
    if shift is None:
        return logits
    wide = np.float64 if kernel_dtype(logits.dtype) == np.float64 else np.float32
    moved: NDArray[Any] = logits.astype(wide)
    with np.errstate(invalid="ignore", over="ignore"):  # of rows that are undecidable
        moved += (shift * temperature).astype(wide)
    return moved


def only(chosen: NDArray[np.bool_], rows: NDArray[Any]) -> NDArray[Any]:
    """These rows; without a copy where they are all."""
    return rows if chosen.all() else np.take(rows, np.flatnonzero(chosen), axis=0)


def exact_sum(values: NDArray[Any]) -> int:
    """In units of 2^-32; each value is rounded to one, and is below 2^31."""
    units = np.rint(values.astype(np.float64) / UNIT).astype(np.int64)
    # In two parts, for many large ones together pass 2^63.
    high, low = int((units >> _HIGH).sum()), int((units & ((1 << _HIGH) - 1)).sum())
    return (high << _HIGH) + low
