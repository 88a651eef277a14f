"""Row kernels on the CPU, in Numba with explicit vectors.

Here is the door: which integers stand for 16-bit floats, how rows that lie apart are passed,
and which of the structures runs. `tile` (a row a lane), `band` (many rows, along each) and `row`
(along the row) each give the same bits for any number of rows; the choice hangs on the number of
classes alone, so the result does not depend on how rows are chunked.
"""

import ctypes
import math
from collections.abc import Collection, Mapping
from functools import cache, lru_cache
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from softmax_dask.kernels.counts import Counts
from softmax_dask.kernels.cpu.band import in_band, softmax_band
from softmax_dask.kernels.cpu.counting import count_decided, count_labelled
from softmax_dask.kernels.cpu.exp2 import constants_of
from softmax_dask.kernels.cpu.finish import Outputs
from softmax_dask.kernels.cpu.jacobian import Part, jacobian_lines, jacobian_row, jacobian_tile
from softmax_dask.kernels.cpu.products import jvp_row, log_jvp_row, log_vjp_row
from softmax_dask.kernels.cpu.row import decision_row, softmax_row
from softmax_dask.kernels.cpu.simd import FLOAT32_LANES
from softmax_dask.kernels.cpu.tail import RankOutputs, tail_row
from softmax_dask.kernels.cpu.tile import Items, decision_tile, softmax_tile, softmax_tile_past_caches
from softmax_dask.kernels.cpu.topk import top_k_row
from softmax_dask.kernels.masking import without

ARITHMETIC = 8
"""Version of the arithmetic: raised by hand with any change that may change a bit of a result."""

NAME = f"cpu-{FLOAT32_LANES}-lanes-v{ARITHMETIC}"
"""Kernels of one name give the same bits, with one C library (log1p is its). Sums along a row have a part a lane."""

_SOFTMAX_TILE_CLASSES = 160
_DECISION_TILE_CLASSES = 256
_JACOBIAN_TILE_CLASSES = 7
_JACOBIAN_LINES_CLASSES = 48

# Results of so many bytes are not kept in the caches: whoever reads them next finds but the last of them there.
# Blocks of the pipelines (4 to 16 MiB) go on to an encoder, and are.
_PAST_CACHES_BYTES = 32 << 20

# Numba knows neither 16-bit float on the CPU; `simd` decodes these integers.
_BITS: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(np.float16): np.dtype(np.uint16),
    np.dtype(ml_dtypes.bfloat16): np.dtype(np.int16),
}

_TOP_K = {"top_k_labels", "top_k_probabilities"}
_TAILS = {"top_k_log_probabilities", "tail_mass", "tail_divergence"}
_RANKED = _TOP_K | _TAILS
_INTEGERS = {"label", "target_rank"}
_OUTPUTS = {name: i for i, name in enumerate(Outputs._fields)}
_WIDE = ("probabilities", "log_probabilities")
_NO_TARGETS = np.empty(0, np.int64)
_NOWHERE: Items = (0, 0, 1, 0, 0, 1)

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_Rows = NDArray[Any]


def takes_planes(columns: Collection[str], classes: int) -> bool:
    """Whether logits and wide columns may be (groups, rows, classes), with rows next to each other and not classes."""
    few = _SOFTMAX_TILE_CLASSES if set(columns) == {"probabilities"} else _DECISION_TILE_CLASSES
    return classes <= few and _TOP_K.isdisjoint(columns)


def writes_wide(dtype: np.dtype[Any], floats: np.dtype[Any]) -> bool:
    """Whether wide columns may be of `dtype` where the arithmetic is that of `floats`."""
    return dtype == floats


def softmax_rows(logits: _Rows, out: _Rows, temperature: float) -> None:
    """Fill `out`, of the shape of the logits, float32 or for float64 logits float64, with probabilities."""
    if logits.size == 0:
        return
    past_caches = _past_caches(out)
    run, before, after = _softmax_kernel(
        logits.shape, logits.itemsize, logits.strides, out.strides, temperature, out.dtype, past_caches
    )
    run(_memory(logits), *before, _memory(out), *after)


@lru_cache(maxsize=256)
def _softmax_kernel(
    shape: Items,
    item_bytes: int,
    strides: Items,
    out_strides: Items,
    temperature: float,
    floats: np.dtype[Any],
    past_caches: bool,
) -> tuple[Any, tuple[Any, ...], tuple[Any, ...]]:
    """Which one, and what it takes before and after `out`; kept, as to find it takes longer than a few rows do."""
    constants = _constants(temperature, floats)
    source, target = _item_strides(item_bytes, shape, strides), _item_strides(floats.itemsize, shape, out_strides)
    along = (source[1], *shape, constants)
    if shape[-1] > _SOFTMAX_TILE_CLASSES:
        return softmax_row, along, (past_caches,)
    are_rows = len(shape) == 2 and source[2] == 1
    is_in_order = target[2] == 1 and (shape[0] == 1 or target[1] == shape[1])
    if are_rows and is_in_order and in_band.py_func(shape[1], _lanes(floats)):
        return softmax_band, along, (past_caches,)
    if are_rows and past_caches:
        return softmax_tile_past_caches, along, ()
    return softmax_tile, (source, _shape(shape), constants), (target,)


def _lanes(floats: np.dtype[Any]) -> int:
    return FLOAT32_LANES * 4 // floats.itemsize


def _past_caches(out: _Rows) -> bool:
    return out.nbytes >= _PAST_CACHES_BYTES and out.flags.aligned and out.flags.c_contiguous


def decision_rows(
    logits: _Rows, targets: NDArray[np.int64] | None, out: Mapping[str, NDArray[Any]], temperature: float
) -> None:
    """Fill each array of `out` by its column's name; `targets` is (rows,), -1 where unlabelled."""
    if logits.size == 0:
        return
    floats = _FLOAT64 if logits.dtype == _FLOAT64 else _FLOAT32
    truth = _NO_TARGETS if targets is None else targets
    if _RANKED.isdisjoint(out):
        _decide(logits, truth, out, temperature, floats)
    elif _ranks_in_one_sweep(logits.shape, out):
        _decide_ranks(logits, truth, out, temperature, floats)
    else:
        narrow = _with_confidence(out, logits.shape[0], floats)
        _decide(logits, truth, narrow, temperature, floats)
        _top_k(logits, narrow["confidence"], out, temperature)


def _decide(
    logits: _Rows,
    targets: NDArray[np.int64],
    out: Mapping[str, NDArray[Any]],
    temperature: float,
    floats: np.dtype[Any],
) -> None:
    constants, source = _constants(temperature, floats), _strides(logits)
    flat, wide = _flat_wide(out)
    outputs = _outputs(flat, floats)
    if logits.shape[-1] <= _DECISION_TILE_CLASSES:
        decision_tile(_memory(logits), source, _shape(logits.shape), constants, targets, outputs, wide)
    else:
        exactly = _constants(temperature, _FLOAT64)
        decision_row(_memory(logits), source[1], *logits.shape, constants, exactly, targets, outputs)


def _ranks_in_one_sweep(shape: tuple[int, ...], out: Mapping[str, NDArray[Any]]) -> bool:
    """Whether the k largest logits are found in the sweep of the sums: always where columns of the tail are wanted."""
    k = next((array.shape[1] for name, array in out.items() if name in _TOP_K), 0)
    return not _TAILS.isdisjoint(out) or (k > 0 and fills_tails(shape[-1], k))


def fills_tails(classes: int, k: int) -> bool:
    """Whether `decision_rows` fills columns of the tail: in the same sweep."""
    return classes > _DECISION_TILE_CLASSES and k < classes


def tail_rows(logits: _Rows, labels: NDArray[np.int32], out: Mapping[str, NDArray[Any]], temperature: float) -> None:
    """As `decision_rows`, of the rows without the classes of `labels`, (rows, k); no wide columns."""
    decision_rows(without(np, logits, labels), None, out, temperature)


def jacobian_rows(logits: _Rows, out: _Rows, temperature: float, first: int = 0, second: int = 0) -> None:
    """Fill `out`, (rows, height, breadth), C order, with entries first.., second.. of each row's Jacobian."""
    rows, classes = logits.shape
    if out.size == 0:
        return
    run, constants, root = _jacobian_kernel(classes), _constants(temperature, out.dtype), _root(temperature, out.dtype)
    part = Part(first, out.shape[1], second, out.shape[2])
    stride = _strides(logits)[1]
    run(_memory(logits), stride, rows, classes, constants, root, part, out.reshape(-1), _past_caches(out))


def _jacobian_kernel(classes: int) -> Any:
    if classes <= _JACOBIAN_TILE_CLASSES:
        return jacobian_tile
    return jacobian_lines if classes <= _JACOBIAN_LINES_CLASSES else jacobian_row


def jvp_rows(logits: _Rows, vectors: _Rows, out: _Rows, temperature: float) -> None:
    """Fill `out`, (rows, classes), C order, with s * (v - <s, v>) / T of each row; `vectors` has the dtype of `out`."""
    _multiply(jvp_row, logits, vectors, out, temperature)


def log_jvp_rows(logits: _Rows, vectors: _Rows, out: _Rows, temperature: float) -> None:
    """As `jvp_rows`, with (v - <s, v>) / T."""
    _multiply(log_jvp_row, logits, vectors, out, temperature)


def log_vjp_rows(logits: _Rows, vectors: _Rows, out: _Rows, temperature: float) -> None:
    """As `jvp_rows`, with (g - s * sum(g)) / T."""
    _multiply(log_vjp_row, logits, vectors, out, temperature)


def count_rows(
    columns: Mapping[str, NDArray[Any]], targets: NDArray[np.int64] | None, classes: int, into: Counts
) -> NDArray[np.int64]:
    """Add rows, of which these columns are known; target * classes + label of wrong ones that have no counters."""
    decided = (columns[name] for name in ("label", "confidence", "entropy"))
    if targets is None:
        count_decided(*decided, into)
        return np.empty(0, np.int64)
    wrong = np.empty(0 if into.pairs.size else len(targets), np.int64)
    figures = (columns[name] for name in ("nll", "brier", "target_rank"))
    count = count_labelled(*decided, *figures, targets, classes, into, wrong)
    return wrong[:count]


def _multiply(run: Any, logits: _Rows, vectors: _Rows, out: _Rows, temperature: float) -> None:
    rows, classes = logits.shape
    if rows == 0:
        return
    constants, root = _constants(temperature, out.dtype), _root(temperature, out.dtype)
    stride, beside = _strides(logits)[1], _strides(vectors)[1]
    run(_memory(logits), stride, _memory(vectors), beside, rows, classes, constants, root, out.reshape(-1))


def _root(temperature: float, floats: np.dtype[Any]) -> Any:
    """The square root of 1 / temperature, in the kernel's arithmetic."""
    return floats.type(math.sqrt(1 / temperature))


def _with_confidence(out: Mapping[str, NDArray[Any]], rows: int, floats: np.dtype[Any]) -> Mapping[str, NDArray[Any]]:
    """The arrays of `out` but those of top_k, which needs the confidence."""
    confidence = out["confidence"] if "confidence" in out else np.empty(rows, floats)
    return {name: array for name, array in out.items() if name not in _TOP_K} | {"confidence": confidence}


def _top_k(logits: _Rows, confidence: NDArray[Any], out: Mapping[str, NDArray[Any]], temperature: float) -> None:
    rows, k = next(array.shape for name, array in out.items() if name in _TOP_K)
    labels, probabilities = (
        out[name] if name in out else np.empty((rows, k), dtype)
        for name, dtype in (("top_k_labels", np.dtype(np.int32)), ("top_k_probabilities", confidence.dtype))
    )
    flat, stride, constants = _memory(logits), _strides(logits)[1], _constants(temperature, confidence.dtype)
    ranks = labels.reshape(-1), probabilities.reshape(-1)
    top_k_row(flat, stride, rows, logits.shape[1], k, constants, confidence, *ranks)


def _decide_ranks(
    logits: _Rows,
    targets: NDArray[np.int64],
    out: Mapping[str, NDArray[Any]],
    temperature: float,
    floats: np.dtype[Any],
) -> None:
    ranks = {name: array.reshape(-1) for name, array in out.items() if name in _RANKED}
    nothing, k = np.empty(0, floats), next(array.shape[1] for name, array in out.items() if name in _TOP_K)
    ranks.setdefault("top_k_labels", np.empty(logits.shape[0] * k, np.int32))
    given = tuple(ranks.get(name, nothing) for name in RankOutputs._fields)
    others = _outputs(_flat_wide({name: array for name, array in out.items() if name not in ranks})[0], floats)
    of_tail = _outputs({"entropy": np.empty(FLOAT32_LANES, floats)}, floats)
    constants, exactly = _constants(temperature, floats), _constants(temperature, _FLOAT64)
    stride = _strides(logits)[1]
    tail_row(_memory(logits), stride, *logits.shape, k, constants, exactly, targets, others, given, of_tail)


@lru_cache(maxsize=64)
def _constants(temperature: float, floats: np.dtype[Any]) -> NDArray[Any]:
    return constants_of(temperature, floats.type)


def _outputs(out: Mapping[str, NDArray[Any]], floats: np.dtype[Any]) -> tuple[NDArray[Any], ...]:
    """The items of `Outputs`."""
    items = list(_nothing_wanted(floats))
    for name, array in out.items():
        items[_OUTPUTS[name]] = array
    return tuple(items)


@cache
def _nothing_wanted(floats: np.dtype[Any]) -> list[NDArray[Any]]:
    return [np.empty(0, np.int32 if name in _INTEGERS else floats) for name in Outputs._fields]


def _flat_wide(out: Mapping[str, NDArray[Any]]) -> tuple[Mapping[str, NDArray[Any]], Items]:
    """The arrays with wide ones flat, and the strides that these had, of probabilities first."""
    if out.keys().isdisjoint(_WIDE):
        return out, _NOWHERE
    wide = {name: out[name] for name in _WIDE if name in out}
    first, second = (_strides(wide[name]) if name in wide else _NOWHERE[:3] for name in _WIDE)
    return {**out, **{name: _memory(array) for name, array in wide.items()}}, first + second


def _shape(shape: Items) -> Items:
    return shape if len(shape) == 3 else (1, *shape)


def _memory(array: _Rows) -> _Rows:
    """All memory from the first item to the last as one writable array.

    Where it is not yet, a view by address: read-only, sliced and broadcast rows all are one type to Numba, so
    there is one compiled kernel a dtype. Kernels never write to logits.
    """
    dtype = array.dtype
    if array.flags.carray:  # in C order, aligned, writable
        flat = array.ravel()
        return flat if dtype.itemsize > 2 else flat.view(_BITS[dtype])
    bits = _BITS.get(dtype, dtype)
    sizes = array.shape if array.ndim == 3 else (1, *array.shape)
    items = 1 + sum((size - 1) * stride for size, stride in zip(sizes, _strides(array), strict=True))
    memory: Any = (ctypes.c_char * (items * bits.itemsize)).from_address(array.ctypes.data)
    return np.frombuffer(memory, bits)


def _strides(array: _Rows) -> Items:
    """How many items apart groups, rows and classes lie."""
    if array.ndim == 2 and array.flags.c_contiguous:
        return 0, array.shape[1], 1
    return _item_strides(array.itemsize, array.shape, array.strides)


@lru_cache(maxsize=256)
def _item_strides(item_bytes: int, shape: Items, strides: Items) -> Items:
    *others, row, class_ = (stride // item_bytes for stride in strides)
    return others[0] if others else 0, row, 1 if shape[-1] == 1 else class_
