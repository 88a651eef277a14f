"""Which rows of a dump a threshold or a level may be found on: not those that its temperature was fitted to."""

import warnings

import numpy as np
from numpy.typing import NDArray

from softmax_dask_pipelines.config import ConformalConfig, ThresholdConfig
from softmax_dask_pipelines.notices import NoteWarning
from softmax_dask_pipelines.row_keys import Keys
from softmax_dask_pipelines.rules import read_calibration
from softmax_dask_pipelines.sources import SourceFacts

_HALVES = np.uint64(63)


def is_half_held_out(config: ThresholdConfig | ConformalConfig, facts: SourceFacts) -> bool:
    """Whether the temperature was fitted to half of the rows of this very dump."""
    if config.calibration is None:
        return False
    report = read_calibration(config.calibration).report
    if report.get("source") != facts.path:
        return False
    if report.get("fit", {}).get("on") == "half":
        return True
    warnings.warn(
        f"{config.calibration}: was fitted to all rows of {facts.path}, which it is tried on now: what is found may "
        "be a little too good. Calibrate without --fit-on all, or take other rows.",
        NoteWarning,
        stacklevel=2,
    )
    return False


def held_out(keys: Keys) -> NDArray[np.bool_]:
    """The rows of the half that `calibrate` reports on."""
    half: NDArray[np.bool_] = keys >> _HALVES != 0
    return half
