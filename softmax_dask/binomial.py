"""The tail of the binomial distribution, exact but for rounding, without SciPy."""

import math

import numpy as np

_DEVIATIONS = 12.0
"""Terms further below the mean than so many standard deviations add nothing to float64."""


def tail(errors: int, rows: int, risk: float) -> float:
    """The probability of at most `errors` errors in `rows` rows that each are wrong with probability `risk`.

    At most delta, it is the p-value of "the risk is above `risk`": the upper Clopper-Pearson limit at delta is at most
    `risk` then.
    """
    mean = rows * risk
    width = math.ceil(_DEVIATIONS * math.sqrt(mean + 1)) + 50
    if errors >= min(rows, mean + width):
        return 1.0
    lowest = max(0, math.floor(min(errors, mean)) - width)
    fewer = np.arange(errors, lowest, -1, dtype=np.float64)
    # Of i errors to i - 1, each term is the one before times this.
    steps = np.log(fewer) + math.log1p(-risk) - np.log(rows - fewer + 1) - math.log(risk)
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    largest = float(logs.max())
    first = (
        math.lgamma(rows + 1)
        - math.lgamma(errors + 1)
        - math.lgamma(rows - errors + 1)
        + errors * math.log(risk)
        + (rows - errors) * math.log1p(-risk)
    )
    return float(min(1.0, math.exp(first + largest) * float(np.exp(logs - largest).sum())))
