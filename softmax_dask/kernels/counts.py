"""What rows are counted into: integers, which kernels add to, so that no order of rows changes a bit.

A figure of a row, such as its confidence, is rounded to a multiple of 2^-32 before it is added up. So a mean over any
number of rows is exact to 1.2e-10, and the same whichever way the rows were cut and merged.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FRACTION_BITS = 32
"""A sum of figures is a number of units of 2^-32."""
ONE = 1 << FRACTION_BITS

BINS = 15
"""Of confidence, for the calibration error: of equal width, each closed on the right; 0 is in the first."""
EDGES: NDArray[np.float64] = np.arange(BINS + 1) / BINS

EVEN_BINS = 1 << 16
SPLIT = 1 << 8
FINE_BINS = EVEN_BINS - 1 + SPLIT
"""Of confidence, for whatever is found by its order; closed on the right too: 65,536 of equal width, of which the last
is split once more. Models that are too sure of themselves have many rows there, and with 256 parts each float32 near 1
has a bin of its own."""

RANKS = 100
"""Ranks of targets that are counted one by one; worse ones are counted together."""

SLAB_ROWS = 1 << 16
"""Most rows that may be added before the sums are taken out."""
LARGE_NLL = float(1 << 14)
"""Rows above it are left to who calls: so many of them would leave 64 bits."""


def fine_edges() -> NDArray[np.float64]:
    """(FINE_BINS + 1,): bin i holds confidences above edge i, up to edge i + 1."""
    even = np.arange(EVEN_BINS) / EVEN_BINS
    last = 1 - np.arange(SPLIT - 1, -1, -1) / (EVEN_BINS * SPLIT)
    return np.concatenate([even, last])


MOST_PAIRS = 1 << 16
"""Of target and label: up to so many have a counter each; of more classes, confused rows are left to who calls."""


WRONG, RIGHT = range(2)
"""What a decidable row with a target is. Each row is counted once."""


class Counts(NamedTuple):
    """Arrays of int64."""

    rows: NDArray[np.int64]
    """(6,): all, undecidable, labelled and decidable, labelled and not, with an infinite NLL, with a large one."""
    sums: NDArray[np.int64]
    """(4,): of confidence and entropy over decidable rows, of NLL and Brier score over labelled; units of 2^-32."""
    unlabelled: NDArray[np.int64]
    """(classes,): decidable rows without a target, by label."""
    pairs: NDArray[np.int64]
    """(classes * classes,): those with one, by target and label; of many classes (0,), and then"""
    predicted: NDArray[np.int64]
    """(classes,): by label,"""
    support: NDArray[np.int64]
    """by target,"""
    hits: NDArray[np.int64]
    """and those of them whose label is the target; of few classes these three are left alone."""
    ranks: NDArray[np.int64]
    """(RANKS + 1,): by the rank of the target."""
    bins: NDArray[np.int64]
    """(3, BINS): labelled rows that are wrong, that are right, sum of the confidence of both in units of 2^-32."""
    unlabelled_histogram: NDArray[np.int64]
    """(FINE_BINS,): decidable rows without a target,"""
    labelled_histogram: NDArray[np.int64]
    """(FINE_BINS, 2): and those with one, wrong and right: a row touches one of these, and they are many; (0, 2) until
    there are targets."""


def no_counts(classes: int, *, with_targets: bool = True) -> Counts:
    """Of no rows."""

    def none(*shape: int) -> Any:
        return np.zeros(shape, np.int64)

    return Counts(
        rows=none(6),
        sums=none(4),
        unlabelled=none(classes),
        pairs=none(classes**2 if classes**2 <= MOST_PAIRS else 0),
        predicted=none(classes),
        support=none(classes),
        hits=none(classes),
        ranks=none(RANKS + 1),
        bins=none(3, BINS),
        unlabelled_histogram=none(FINE_BINS),
        labelled_histogram=none(FINE_BINS if with_targets else 0, 2),
    )
