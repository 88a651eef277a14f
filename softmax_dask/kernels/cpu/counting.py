"""Counts rows by what was decided of them: one sweep over columns of one value a row.

Scalar code: a row costs a few nanoseconds, and what it adds to lies all over the histograms.
"""

import math
from typing import Any

import numpy as np

from softmax_dask.kernels.counts import (
    BINS,
    EDGES,
    EVEN_BINS,
    LARGE_NLL,
    ONE,
    RANKS,
    SPLIT,
    Counts,
)
from softmax_dask.kernels.cpu.compile import kernel, step

Array = Any
"""A one-dimensional array inside compiled code."""


@kernel
def count_decided(label: Array, confidence: Array, entropy: Array, into: Counts) -> None:
    """Add what is known of rows, none of which has a target."""
    undecidable = confidences = entropies = 0
    for i in range(label.size):
        if label[i] < 0:
            undecidable += 1
            continue
        confidences += _fixed(confidence[i])
        entropies += _fixed(entropy[i])
        into.unlabelled[label[i]] += 1
        into.unlabelled_histogram[_fine_bin(confidence[i])] += 1
    into.rows[0] += label.size
    into.rows[1] += undecidable
    into.sums[0] += confidences
    into.sums[1] += entropies


@kernel
def count_labelled(
    label: Array,
    confidence: Array,
    entropy: Array,
    nll: Array,
    brier: Array,
    rank: Array,
    targets: Array,
    classes: int,
    into: Counts,
    wrong: Array,
) -> int:
    """Add what is known of rows, some of which have a target.

    Where there are no counters for pairs, `wrong` gets target * classes + label of rows that are; says how many.
    """
    # Sums in registers: one in memory waits for itself at each row.
    undecidable = confidences = entropies = labelled = nlls = briers = count = 0
    for i in range(label.size):
        target = targets[i]
        if label[i] < 0:
            undecidable += 1
            into.rows[3] += target >= 0
            continue
        sure, fine = _fixed(confidence[i]), _fine_bin(confidence[i])
        confidences += sure
        entropies += _fixed(entropy[i])
        if target < 0:
            into.unlabelled[label[i]] += 1
            into.unlabelled_histogram[fine] += 1
            continue
        labelled += 1
        nlls += _small_nll(nll[i], into)
        briers += _fixed(brier[i])
        is_right: Any = np.int64(label[i] == target)
        coarse = _bin_between(confidence[i])
        into.ranks[min(rank[i], RANKS)] += 1
        into.labelled_histogram[fine, is_right] += 1
        into.bins[is_right, coarse] += 1
        into.bins[2, coarse] += sure
        if into.pairs.size:
            into.pairs[target * classes + label[i]] += 1
            continue
        into.predicted[label[i]] += 1
        into.support[target] += 1
        into.hits[target] += is_right
        wrong[count] = target * classes + label[i]
        count += 1 - is_right
    into.rows[0] += label.size
    into.rows[1] += undecidable
    into.rows[2] += labelled
    into.sums[0] += confidences
    into.sums[1] += entropies
    into.sums[2] += nlls
    into.sums[3] += briers
    return count


@step
def _small_nll(nll: float, into: Counts) -> Any:
    """In units of 2^-32; what is too large for a sum of 64 bits is counted, and 0 here."""
    if nll <= LARGE_NLL:
        return _fixed(nll)
    into.rows[5 if nll < np.inf else 4] += 1
    return np.int64(0)


@step
def _fixed(x: float) -> Any:
    """To units of 2^-32, half to even."""
    return np.int64(np.rint(np.float64(x) * ONE))


@step
def _fine_bin(confidence: float) -> Any:
    """As if all bins were split, and the parts of all but the last one put together again."""
    part = _bin(confidence, EVEN_BINS * SPLIT)
    return part // SPLIT + max(0, part - (EVEN_BINS - 1) * SPLIT)


@step
def _bin(confidence: float, bins: int) -> Any:
    """Of a power of two of them: no product is rounded."""
    return max(0, min(bins - 1, math.ceil(np.float64(confidence) * bins) - 1))


@step
def _bin_between(confidence: float) -> Any:
    """Between the edges: a product may have been rounded across one."""
    i = _bin(confidence, BINS)
    # Sums of what is true, not branches: which bin comes next, nobody can guess.
    return max(0, min(BINS - 1, i + (confidence > EDGES[i + 1]) - (confidence <= EDGES[i])))
