"""Which rows of a dump a threshold or a level may be found on: not those that its temperature was fitted to."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_dask_pipelines.notices import NoteWarning
from softmax_dask_pipelines.row_keys import Keys
from softmax_dask_pipelines.rules import Rule

_HALVES = np.uint64(63)


def only_held_out(fitted_on: str | None, keys: Keys, *arrays: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """The arrays and the keys; where the temperature was fitted to half of these rows, those of the other half."""
    if fitted_on != "half":
        return (*arrays, keys)
    chosen = keys >> _HALVES != 0
    return (*(array[chosen] for array in arrays), keys[chosen])


def warn_of_all(rule: Rule, path: str | None) -> None:
    """Say so where no row is left that the temperature was not fitted to."""
    if rule.fitted_on == "all":
        warnings.warn(
            f"{path}: was fitted to all rows of the dump that it is tried on now, so what is found may be a little too "
            "good. Calibrate without --fit-on all, or take other rows.",
            NoteWarning,
            stacklevel=2,
        )
