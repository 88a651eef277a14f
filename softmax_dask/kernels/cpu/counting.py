"""Counts rows by what was decided of them: one sweep over columns of one value a row.

Of a block of rows first what vectors can do: sums, and the bin of each row. Then row by row, for what a row adds to
lies all over the histograms, and waits for the row before where that is the same.
"""

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

_BLOCK = 512
"""Rows whose bins stay in the first-level cache."""
_UNITS = 1.5 * 2.0**52
"""A float64 near it is a whole number."""
_UNITS_BITS = int(np.float64(_UNITS).view(np.int64))


@kernel
def count_decided(label: Array, confidence: Array, entropy: Array, into: Counts) -> None:
    """Add what is known of rows, none of which has a target."""
    fine = np.empty(_BLOCK, np.int32)
    for start in range(0, label.size, _BLOCK):
        stop = min(start + _BLOCK, label.size)
        # Slices: where each index has an offset, LLVM makes no vectors.
        _add_up(label[start:stop], confidence[start:stop], entropy[start:stop], fine, into)
        _count_unlabelled(label[start:stop], fine, into)


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
    fine, coarse, count = np.empty(_BLOCK, np.int32), np.empty(_BLOCK, np.int32), 0
    for start in range(0, label.size, _BLOCK):
        stop = min(start + _BLOCK, label.size)
        sure, decided, truth = confidence[start:stop], label[start:stop], targets[start:stop]
        _add_up(decided, sure, entropy[start:stop], fine, into)
        _add_up_labelled(decided, nll[start:stop], brier[start:stop], truth, into)
        _find_coarse(decided, sure, coarse)
        count += _count(decided, sure, rank[start:stop], truth, fine, coarse, classes, into, wrong[count:])
    return count


@step
def _add_up(label: Array, confidence: Array, entropy: Array, fine: Array, into: Counts) -> None:
    """Sums over a block, and the bin of each of its rows: no row hangs on another one, so LLVM makes vectors of it."""
    undecidable = confidences = entropies = np.int64(0)
    for i in range(label.size):
        is_known = label[i] >= 0
        sure = confidence[i] if is_known else 0.0
        undecidable += not is_known
        confidences += _fixed(sure)
        entropies += _fixed(entropy[i] if is_known else 0.0)
        fine[i] = _fine_bin(sure)
    into.rows[0] += label.size
    into.rows[1] += undecidable
    into.sums[0] += confidences
    into.sums[1] += entropies


@step
def _add_up_labelled(label: Array, nll: Array, brier: Array, targets: Array, into: Counts) -> None:
    """The same sums of what rows with a target have besides."""
    labelled = undecidable = infinite = large = nlls = briers = np.int64(0)
    for i in range(label.size):
        is_known, has_target = label[i] >= 0, targets[i] >= 0
        is_counted, is_small = is_known & has_target, nll[i] <= LARGE_NLL
        labelled += is_counted
        undecidable += has_target & (not is_known)
        infinite += is_counted & (not nll[i] < np.inf)
        large += is_counted & (not is_small) & (nll[i] < np.inf)
        nlls += _fixed(nll[i] if is_counted & is_small else 0.0)
        briers += _fixed(brier[i] if is_counted else 0.0)
    into.rows[2] += labelled
    into.rows[3] += undecidable
    into.rows[4] += infinite
    into.rows[5] += large
    into.sums[2] += nlls
    into.sums[3] += briers


@step
def _find_coarse(label: Array, confidence: Array, coarse: Array) -> None:
    """Of float32 no product is rounded, for it has 28 bits: looking at the edges takes most of the time."""
    if confidence.itemsize == 4:
        for i in range(label.size):
            coarse[i] = _bin(confidence[i] if label[i] >= 0 else 0.0, BINS)
    else:
        for i in range(label.size):
            coarse[i] = _bin_between(confidence[i] if label[i] >= 0 else 0.0)


@step
def _count_unlabelled(label: Array, fine: Array, into: Counts) -> None:
    for i in range(label.size):
        if label[i] >= 0:
            into.unlabelled[label[i]] += 1
            into.unlabelled_histogram[fine[i]] += 1


@step
def _count(
    label: Array,
    confidence: Array,
    rank: Array,
    targets: Array,
    fine: Array,
    coarse: Array,
    classes: int,
    into: Counts,
    wrong: Array,
) -> Any:
    count = 0
    for i in range(label.size):
        target = targets[i]
        if label[i] < 0:
            continue
        if target < 0:
            into.unlabelled[label[i]] += 1
            into.unlabelled_histogram[fine[i]] += 1
            continue
        is_right: Any = np.int64(label[i] == target)
        into.ranks[min(rank[i], RANKS)] += 1
        into.labelled_histogram[fine[i], is_right] += 1
        into.bins[is_right, coarse[i]] += 1
        into.bins[2, coarse[i]] += _fixed(confidence[i])
        if into.pairs.size:
            into.pairs[target * classes + label[i]] += 1
            continue
        into.predicted[label[i]] += 1
        into.support[target] += 1
        into.hits[target] += is_right
        wrong[count] = target * classes + label[i]
        count += 1 - is_right
    return count


@step
def _fixed(x: float) -> Any:
    """To units of 2^-32, half to even: the last digits of a sum whose unit that is. |x| < 2^18."""
    return np.float64(np.float64(x) * ONE + _UNITS).view(np.int64) - _UNITS_BITS


@step
def _fine_bin(confidence: float) -> Any:
    """As if all bins were split, and the parts of all but the last one put together again."""
    part = _bin(confidence, EVEN_BINS * SPLIT)
    return part // np.int32(SPLIT) + max(np.int32(0), part - np.int32((EVEN_BINS - 1) * SPLIT))


@step
def _bin(confidence: float, bins: int) -> Any:
    """Of so many of equal width; where the product is not rounded."""
    place = np.int32(np.ceil(np.float64(confidence) * bins)) - np.int32(1)
    return max(np.int32(0), min(np.int32(bins - 1), place))


@step
def _bin_between(confidence: float) -> Any:
    """Between the edges: a product may have been rounded across one."""
    i = _bin(confidence, BINS)
    # Sums of what is true, not branches: which bin comes next, nobody can guess.
    return max(0, min(BINS - 1, i + (confidence > EDGES[i + 1]) - (confidence <= EDGES[i])))
