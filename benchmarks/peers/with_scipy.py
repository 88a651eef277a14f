"""SciPy. It has no `out`, so its result is new memory each time."""

from typing import Any

import numpy as np
import scipy.special
from numpy.typing import NDArray

from benchmarks.peers import Contender


def softmax(x: NDArray[Any]) -> Contender:
    kept: dict[str, NDArray[Any]] = {}

    def run() -> None:
        kept["found"] = scipy.special.softmax(x, axis=1)

    return Contender(run, lambda: kept["found"])


def probabilities(x: NDArray[Any], temperature: float) -> NDArray[Any]:
    found: NDArray[Any] = scipy.special.softmax(x / np.float32(temperature), axis=1)
    return found
