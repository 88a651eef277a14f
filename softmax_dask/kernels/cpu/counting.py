"""Counts rows by what was decided of them: one sweep over columns of one value a row.

Scalar code: a row costs a few nanoseconds, and what it adds to lies all over the histograms.
"""

import math
from typing import Any

import numpy as np

from softmax_dask.kernels.counts import BINS, EDGES, EVEN_BINS, LARGE_NLL, ONE, RANKS, SPLIT, Counts
from softmax_dask.kernels.cpu.compile import kernel, plain_step, step

Array = Any
"""A one-dimensional array inside compiled code."""


@kernel
def count_decided(label: Array, confidence: Array, entropy: Array, into: Counts) -> None:
    """Add what is known of rows without a target."""
    for i in range(label.size):
        if label[i] < 0:
            into.rows[1] += 1
            continue
        into.sums[0] += _fixed(confidence[i])
        into.sums[1] += _fixed(entropy[i])
        into.labels[label[i]] += 1
        into.histogram[0, _fine_bin(confidence[i])] += 1
    into.rows[0] += label.size


@kernel
def count_labelled(
    label: Array,
    confidence: Array,
    nll: Array,
    brier: Array,
    rank: Array,
    targets: Array,
    classes: int,
    into: Counts,
    wrong: Array,
) -> int:
    """Add what is known of the labelled ones among them.

    Where there are no counters for pairs, `wrong` gets target * classes + label of rows that are; says how many.
    """
    count = 0
    for i in range(label.size):
        target = targets[i]
        if target < 0:
            continue
        if label[i] < 0:
            into.rows[3] += 1
            continue
        into.rows[2] += 1
        _add_nll(nll[i], into)
        into.sums[3] += _fixed(brier[i])
        into.predicted[label[i]] += 1
        into.support[target] += 1
        into.ranks[min(rank[i], RANKS)] += 1
        coarse, fine = _bin_between(confidence[i]), _fine_bin(confidence[i])
        into.bins[0, coarse] += 1
        into.bins[2, coarse] += _fixed(confidence[i])
        into.histogram[1, fine] += 1
        if label[i] == target:
            into.hits[target] += 1
            into.bins[1, coarse] += 1
            into.histogram[2, fine] += 1
        elif into.pairs.size:
            into.pairs[target * classes + label[i]] += 1
        else:
            wrong[count] = target * classes + label[i]
            count += 1
    return count


@plain_step
def _add_nll(nll: float, into: Counts) -> None:
    if nll <= LARGE_NLL:
        into.sums[2] += _fixed(nll)
    elif nll < np.inf:
        into.rows[5] += 1
    else:
        into.rows[4] += 1


@step
def _fixed(x: float) -> Any:
    """To units of 2^-32, half to even."""
    return np.int64(np.rint(np.float64(x) * ONE))


@step
def _fine_bin(confidence: float) -> Any:
    i = _bin(confidence, EVEN_BINS)
    if i < EVEN_BINS - 1:
        return i
    return _bin(confidence, EVEN_BINS * SPLIT) - (EVEN_BINS - 1) * (SPLIT - 1)


@step
def _bin(confidence: float, bins: int) -> Any:
    """Of a power of two of them: no product is rounded."""
    return max(0, min(bins - 1, math.ceil(np.float64(confidence) * bins) - 1))


@step
def _bin_between(confidence: float) -> Any:
    """Between the edges: a product may have been rounded across one."""
    i = _bin(confidence, BINS)
    if confidence <= EDGES[i] and i > 0:
        return i - 1
    if confidence > EDGES[i + 1] and i < BINS - 1:
        return i + 1
    return i
