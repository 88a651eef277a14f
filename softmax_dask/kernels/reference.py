"""Row kernels in NumPy: the definition that the others are tested against.

Arithmetic is float64, of float64 logits the longest float of the machine. Slow on purpose
where a shorter way would be less plain.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_dask.columns import COLUMNS
from softmax_dask.kernels.counts import (
    BINS,
    EDGES,
    FINE_BINS,
    LARGE_NLL,
    ONE,
    RANKS,
    RIGHT,
    WRONG,
    Counts,
    fine_edges,
)
from softmax_dask.kernels.masking import without

_Rows = NDArray[Any]


def takes_planes(columns: Collection[str], classes: int) -> bool:
    """Never: rows are read from (rows, classes)."""
    return False


def writes_wide(dtype: np.dtype[Any], floats: np.dtype[Any]) -> bool:
    """Whether wide columns may be of `dtype` where the arithmetic is that of `floats`."""
    return dtype == floats


def softmax_rows(logits: _Rows, out: _Rows, temperature: float) -> None:
    """Fill `out`, (rows, classes), with exp(x / T) / sum of exp(x / T) of each row."""
    decision_rows(logits, None, {"probabilities": out}, temperature)


def decision_rows(
    logits: _Rows, targets: NDArray[np.int64] | None, out: Mapping[str, NDArray[Any]], temperature: float
) -> None:
    """Fill each array of `out` by its column's name; `targets` is (rows,), -1 where unlabelled."""
    if logits.shape[0] == 0:
        return
    with np.errstate(all="ignore"):  # infinities and NaN of undecidable rows are overwritten below
        columns = _columns_of_rows(logits, temperature)
        columns |= _columns_of_ranks(logits, out, columns["probabilities"])
        if targets is not None:
            columns |= _columns_of_targets(logits, targets, columns)
    undecidable = ~_decidable(logits)
    for name, array in out.items():
        with np.errstate(over="ignore"):  # a logarithm beyond the range of float32 is infinite there
            array[...] = columns[name]
        array[undecidable] = -1 if array.dtype.kind == "i" else np.nan


def fills_tails(classes: int, k: int) -> bool:
    """Never: `tail_rows` is a run of its own."""
    return False


def tail_rows(logits: _Rows, labels: NDArray[np.int32], out: Mapping[str, NDArray[Any]], temperature: float) -> None:
    """As `decision_rows`, of the rows without the classes of `labels`, (rows, k)."""
    decision_rows(without(np, logits, labels), None, out, temperature)


def jacobian_rows(logits: _Rows, out: _Rows, temperature: float, first: int = 0, second: int = 0) -> None:
    """Fill `out`, (rows, height, breadth), with entries first.., second.. of (diag(s) - s s^T) / T of each row."""
    s, complement = _probabilities_and_complements(logits, temperature)
    lines, columns = (slice(start, start + size) for start, size in zip((first, second), out.shape[1:], strict=True))
    off_diagonal = 0 - np.einsum("ij,ik->ijk", s[:, lines], s[:, columns])
    diagonal = (s * complement)[:, lines, None]
    wanted = np.arange(logits.shape[1])
    out[...] = np.where(wanted[lines, None] == wanted[columns], diagonal, off_diagonal) / s.dtype.type(temperature)


def jvp_rows(logits: _Rows, vectors: _Rows, out: _Rows, temperature: float) -> None:
    """Fill `out`, (rows, classes), with s * (v - <s, v>) / T of each row."""
    s, _ = _probabilities_and_complements(logits, temperature)
    out[...] = s * _centred(logits, vectors, s) / s.dtype.type(temperature)


def log_jvp_rows(logits: _Rows, vectors: _Rows, out: _Rows, temperature: float) -> None:
    """Fill `out`, (rows, classes), with (v - <s, v>) / T of each row."""
    s, _ = _probabilities_and_complements(logits, temperature)
    out[...] = _centred(logits, vectors, s) / s.dtype.type(temperature)


def log_vjp_rows(logits: _Rows, vectors: _Rows, out: _Rows, temperature: float) -> None:
    """Fill `out`, (rows, classes), with (g - s * sum(g)) / T of each row."""
    s, complement = _probabilities_and_complements(logits, temperature)
    g = _finite_rows(vectors, s.dtype)
    others = np.stack([np.delete(g, k, axis=1).sum(axis=1) for k in range(g.shape[1])], axis=1)
    out[...] = (complement * g - s * others) / s.dtype.type(temperature)


def count_rows(
    columns: Mapping[str, NDArray[Any]], targets: NDArray[np.int64] | None, classes: int, into: Counts
) -> NDArray[np.int64]:
    """Add rows, of which these columns are known; target * classes + label of wrong ones that have no counters."""
    decided = columns["label"] >= 0
    truth = np.full(len(decided), -1) if targets is None else targets
    alone, known = decided & (truth < 0), decided & (truth >= 0)
    confidence = columns["confidence"]
    into.rows[[0, 1, 3]] += np.array([len(decided), (~decided).sum(), ((truth >= 0) & ~decided).sum()])
    into.sums[:2] += _fixed_sum(confidence[decided]), _fixed_sum(columns["entropy"][decided])
    into.unlabelled[...] += _counted(columns["label"][alone], classes)
    into.unlabelled_histogram[:] += _counted(_fine_bin(confidence[alone]), FINE_BINS)
    if targets is None:
        return np.empty(0, np.int64)
    return _count_labelled({name: values[known] for name, values in columns.items()}, truth[known], classes, into)


def _count_labelled(
    known: Mapping[str, NDArray[Any]], truth: NDArray[np.int64], classes: int, into: Counts
) -> NDArray[np.int64]:
    label, confidence, nll = known["label"].astype(np.int64), known["confidence"], known["nll"]
    right = label == truth
    into.rows[[2, 4, 5]] += len(truth), np.isinf(nll).sum(), ((nll > LARGE_NLL) & (nll < np.inf)).sum()
    into.sums[2:] += _fixed_sum(nll[nll <= LARGE_NLL]), _fixed_sum(known["brier"])
    into.ranks[...] += _counted(np.minimum(known["target_rank"], RANKS), RANKS + 1)
    fine, coarse = _fine_bin(confidence), np.searchsorted(EDGES[1:-1], confidence.astype(np.float64), side="left")
    for kind, rows in ((WRONG, ~right), (RIGHT, right)):
        into.labelled_histogram[:, kind] += _counted(fine[rows], FINE_BINS)
        into.bins[kind] += _counted(coarse[rows], BINS)
    np.add.at(into.bins[2], coarse, _fixed(confidence))
    pairs: NDArray[np.int64] = truth * classes + label
    if into.pairs.size:
        into.pairs[...] += _counted(pairs, classes**2)
        return pairs[:0]
    into.predicted[...] += _counted(label, classes)
    into.support[...] += _counted(truth, classes)
    into.hits[...] += _counted(truth[right], classes)
    wrong: NDArray[np.int64] = pairs[~right]
    return wrong


def _fixed(values: _Rows) -> NDArray[np.int64]:
    return np.rint(values.astype(np.float64) * ONE).astype(np.int64)


def _fixed_sum(values: _Rows) -> int:
    return int(_fixed(values).sum())


def _fine_bin(confidence: _Rows) -> NDArray[np.int64]:
    """Bin i holds confidences above its edge, up to the next one."""
    return np.searchsorted(fine_edges()[1:-1], confidence.astype(np.float64), side="left").astype(np.int64)


def _counted(numbers: NDArray[Any], length: int) -> NDArray[np.int64]:
    return np.bincount(numbers, minlength=length).astype(np.int64)


def _probabilities_and_complements(logits: _Rows, temperature: float) -> tuple[_Rows, _Rows]:
    """s and 1 - s, NaN where the row is undecidable; the winner's 1 - s is the sum of the others."""
    wide = np.longdouble if logits.dtype == np.float64 else np.float64
    x = logits.astype(wide, order="C")
    with np.errstate(all="ignore"):  # undecidable rows are overwritten below
        terms = np.exp((x - x.max(axis=1, keepdims=True)) / wide(temperature))
        s = terms / terms.sum(axis=1, keepdims=True)
        complement = 1 - s
        winner = x.argmax(axis=1)[:, None]
        np.put_along_axis(terms, winner, 0, axis=1)
        np.put_along_axis(
            complement, winner, terms.sum(axis=1, keepdims=True) / (1 + terms.sum(axis=1, keepdims=True)), 1
        )
    s[~_decidable(logits)] = np.nan
    return s, complement


def _centred(logits: _Rows, vectors: _Rows, s: _Rows) -> _Rows:
    """v - <s, v>, relative to the winner's v."""
    v = _finite_rows(vectors, s.dtype)
    gaps = v - np.take_along_axis(v, logits.astype(np.float64).argmax(axis=1)[:, None], axis=1)
    centred: _Rows = gaps - (s * gaps).sum(axis=1, keepdims=True)
    return centred


def _finite_rows(vectors: _Rows, dtype: np.dtype[Any]) -> _Rows:
    """The vectors, NaN in rows that hold NaN or an infinity."""
    v = vectors.astype(dtype, order="C")
    v[~np.isfinite(v).all(axis=1)] = np.nan
    return v


def _decidable(logits: _Rows) -> Any:
    """Rows without NaN and +inf, and with at least one finite logit."""
    wide = logits.astype(np.float64)
    return (wide < np.inf).all(axis=1) & (wide > -np.inf).any(axis=1)


def _columns_of_rows(logits: _Rows, temperature: float) -> dict[str, Any]:
    wide = np.longdouble if logits.dtype == np.float64 else np.float64
    x = logits.astype(wide, order="C")  # broadcast rows too are added up along the row
    label = x.argmax(axis=1)
    gaps = (x - x.max(axis=1, keepdims=True)) / wide(temperature)
    terms = np.exp(gaps)
    probabilities = terms / terms.sum(axis=1, keepdims=True)
    np.put_along_axis(terms, label[:, None], 0, axis=1)  # the winner's own term, 1, is kept apart
    log_sum = np.log1p(terms.sum(axis=1))
    log_probabilities = gaps - log_sum[:, None]
    ordered = np.sort(probabilities, axis=1)
    surprise = np.where(probabilities > 0, probabilities * log_probabilities, 0)
    return {
        "label": label,
        "confidence": ordered[:, -1],
        "margin": ordered[:, -1] - (ordered[:, -2] if x.shape[1] > 1 else 0),
        "entropy": -surprise.sum(axis=1),
        "logsumexp": x.max(axis=1) / wide(temperature) + log_sum,
        "max_logit": x.max(axis=1),
        "probabilities": probabilities,
        "log_probabilities": log_probabilities,
    }


def _columns_of_ranks(logits: _Rows, out: Mapping[str, NDArray[Any]], probabilities: _Rows) -> dict[str, Any]:
    sizes = [array.shape[1] for name, array in out.items() if COLUMNS[name].per == "rank"]
    # Stable: of equal logits the lower class comes first.
    labels = np.argsort(-logits.astype(np.float64), axis=1, kind="stable")[:, : max(sizes, default=0)]
    return {"top_k_labels": labels, "top_k_probabilities": np.take_along_axis(probabilities, labels, axis=1)}


def _columns_of_targets(logits: _Rows, targets: NDArray[np.int64], columns: Mapping[str, Any]) -> dict[str, Any]:
    labelled = targets >= 0
    rows, truth = np.arange(len(targets)), np.where(labelled, targets, 0)
    x = logits.astype(np.float64)
    value = x[rows, truth][:, None]
    earlier = np.arange(x.shape[1]) < truth[:, None]
    rank = ((x > value) | ((x == value) & earlier)).sum(axis=1)
    label, probabilities = columns["label"], columns["probabilities"]
    hit = np.arange(x.shape[1]) == truth[:, None]
    # Of the winner, 1 - p is the sum of the others: for a confident row a difference would have no digits left.
    others = np.where(np.arange(x.shape[1]) == label[:, None], 0, probabilities).sum(axis=1)
    complement = np.where(label == truth, others, 1 - probabilities[rows, truth])
    return {
        "brier": np.where(labelled, (np.where(hit, 0, probabilities) ** 2).sum(axis=1) + complement**2, np.nan),
        "nll": np.where(labelled, -columns["log_probabilities"][rows, truth], np.nan),
        "target_probability": np.where(labelled, columns["probabilities"][rows, truth], np.nan),
        "target_rank": np.where(labelled, rank, -1),
    }
