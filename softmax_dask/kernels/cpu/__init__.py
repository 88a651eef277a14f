"""Row kernels on the CPU, in Numba with explicit vectors.

Here is the door: which integers stand for 16-bit floats, how rows that lie apart are passed,
and which of the two structures runs. `tile` (a row a lane) and `row` (along the row) each
give the same bits for any number of rows; the choice hangs on the number of classes alone, so
the result does not depend on how rows are chunked.
"""

import ctypes
import math
from collections.abc import Collection, Mapping
from functools import cache, lru_cache
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from softmax_dask.kernels.counts import Counts
from softmax_dask.kernels.cpu.band import in_band, softmax_band
from softmax_dask.kernels.cpu.counting import count_decided, count_labelled
from softmax_dask.kernels.cpu.exp2 import Inverse, Scale, inverse_of, scale_of
from softmax_dask.kernels.cpu.finish import Outputs
from softmax_dask.kernels.cpu.jacobian import Part, jacobian_lines, jacobian_row, jacobian_tile
from softmax_dask.kernels.cpu.products import jvp_row, log_jvp_row, log_vjp_row
from softmax_dask.kernels.cpu.row import decision_row, softmax_row
from softmax_dask.kernels.cpu.simd import FLOAT32_LANES
from softmax_dask.kernels.cpu.tail import RankOutputs, tail_row
from softmax_dask.kernels.cpu.tile import Shape, Strides, decision_tile, softmax_tile, softmax_tile_past_caches
from softmax_dask.kernels.cpu.topk import top_k_row
from softmax_dask.kernels.masking import without

ARITHMETIC = 5
"""Version of the arithmetic: raised by hand with any change that may change a bit of a result."""

NAME = f"cpu-{FLOAT32_LANES}-lanes-v{ARITHMETIC}"
"""Kernels of one name give the same bits, with one C library (log1p is its). Sums along a row have a part a lane."""

_SOFTMAX_TILE_CLASSES = 160
_DECISION_TILE_CLASSES = 256
_ONE_SWEEP_CLASSES = 4096
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
_INTEGERS = {"label", "target_rank"}
_WIDE = ("probabilities", "log_probabilities")
_NO_TARGETS = np.empty(0, np.int64)
_NOWHERE = Strides(0, 0, 1)

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
    scale = _scales(temperature, out.dtype)[0]
    flat, source = _flat(logits)
    classes, past_caches = logits.shape[-1], _past_caches(out)
    if classes > _SOFTMAX_TILE_CLASSES:
        softmax_row(flat, source.row, *logits.shape, scale, out.reshape(-1), past_caches)
    elif _is_rows(logits, source) and out.flags.c_contiguous and in_band.py_func(classes, _lanes(out.dtype)):
        softmax_band(flat, source.row, *logits.shape, scale, out.reshape(-1), past_caches)
    elif _is_rows(logits, source) and past_caches:
        softmax_tile_past_caches(flat, source.row, *logits.shape, scale, out.reshape(-1))
    else:
        written, target = _flat(out)
        softmax_tile(flat, source, _shape(logits), scale, written, target)


def _is_rows(logits: _Rows, source: Strides) -> bool:
    """Whether classes lie next to each other, and all rows as far apart."""
    return logits.ndim == 2 and source.class_ == 1


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
    flat, source = _flat(logits)
    floats = _FLOAT64 if logits.dtype == _FLOAT64 else _FLOAT32
    scale, inverse, inverse64 = _scales(temperature, floats)
    truth = _NO_TARGETS if targets is None else targets
    if _ranks_in_one_sweep(logits.shape, out):
        _decide_ranks(flat, source.row, logits.shape, (scale, inverse, inverse64), truth, out, floats)
        return
    narrow = _with_confidence(out, logits.shape[0], floats)
    outputs, wide = _outputs(narrow, floats)
    if logits.shape[-1] <= _DECISION_TILE_CLASSES:
        decision_tile(flat, source, _shape(logits), scale, inverse, truth, outputs, wide)
    else:
        decision_row(flat, source.row, *logits.shape, scale, inverse, inverse64, truth, outputs)
    if not _TOP_K.isdisjoint(out):
        _top_k(flat, source.row, logits.shape[1], scale, narrow["confidence"], out)


def _ranks_in_one_sweep(shape: tuple[int, ...], out: Mapping[str, NDArray[Any]]) -> bool:
    """Whether the k largest logits are found in the sweep of the sums: always where columns of the tail are wanted."""
    k = next((array.shape[1] for name, array in out.items() if name in _TOP_K), 0)
    return not _TAILS.isdisjoint(out) or (k > 0 and shape[-1] >= _ONE_SWEEP_CLASSES and fills_tails(shape[-1], k))


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
    run = _jacobian_kernel(classes)
    flat, source = _flat(logits)
    part = Part(first, out.shape[1], second, out.shape[2])
    scale = _scales(temperature, out.dtype)[0]
    root = _root(temperature, out.dtype)
    run(flat, source.row, rows, classes, scale, root, part, out.reshape(-1), _past_caches(out))


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
    scale, root = _scales(temperature, out.dtype)[0], _root(temperature, out.dtype)
    (flat, source), (flat_vectors, beside) = _flat(logits), _flat(vectors)
    run(flat, source.row, flat_vectors, beside.row, rows, classes, scale, root, out.reshape(-1))


def _root(temperature: float, floats: np.dtype[Any]) -> Any:
    """The square root of 1 / temperature, in the kernel's arithmetic."""
    return floats.type(math.sqrt(1 / temperature))


def _with_confidence(out: Mapping[str, NDArray[Any]], rows: int, floats: np.dtype[Any]) -> Mapping[str, NDArray[Any]]:
    """The arrays of `out` but those of top_k, which needs the confidence."""
    if _TOP_K.isdisjoint(out):
        return out
    confidence = out["confidence"] if "confidence" in out else np.empty(rows, floats)
    return {name: array for name, array in out.items() if name not in _TOP_K} | {"confidence": confidence}


def _top_k(
    flat: _Rows, stride: int, classes: int, scale: Scale, confidence: NDArray[Any], out: Mapping[str, NDArray[Any]]
) -> None:
    rows, k = next(array.shape for name, array in out.items() if name in _TOP_K)
    labels, probabilities = (
        out[name] if name in out else np.empty((rows, k), dtype)
        for name, dtype in (("top_k_labels", np.dtype(np.int32)), ("top_k_probabilities", confidence.dtype))
    )
    top_k_row(flat, stride, rows, classes, k, scale, confidence, labels.reshape(-1), probabilities.reshape(-1))


def _decide_ranks(
    flat: _Rows,
    stride: int,
    shape: tuple[int, ...],
    scales: tuple[Scale, Inverse, Inverse],
    targets: NDArray[np.int64],
    out: Mapping[str, NDArray[Any]],
    floats: np.dtype[Any],
) -> None:
    ranks = {name: array.reshape(-1) for name, array in out.items() if name in _TAILS | _TOP_K}
    nothing, k = np.empty(0, floats), next(array.shape[1] for name, array in out.items() if name in _TOP_K)
    ranks.setdefault("top_k_labels", np.empty(shape[0] * k, np.int32))
    given = RankOutputs(*(ranks.get(name, nothing) for name in RankOutputs._fields))
    others = {name: array for name, array in out.items() if name not in ranks}
    of_tail = _nothing_wanted(floats)._replace(entropy=np.empty(FLOAT32_LANES, floats))
    tail_row(flat, stride, *shape, k, *scales, targets, _outputs(others, floats)[0], given, of_tail)


@lru_cache(maxsize=64)
def _scales(temperature: float, floats: np.dtype[Any]) -> tuple[Scale, Inverse, Inverse]:
    return (
        scale_of(temperature, floats.type),
        inverse_of(temperature, floats.type),
        inverse_of(temperature, np.float64),
    )


def _outputs(out: Mapping[str, NDArray[Any]], floats: np.dtype[Any]) -> tuple[Outputs, tuple[Strides, Strides]]:
    """The arrays as kernels take them, and the strides of the wide ones."""
    outputs, wide = _nothing_wanted(floats), dict.fromkeys(_WIDE, _NOWHERE)
    narrow = {name: array.reshape(-1) for name, array in out.items() if name not in _WIDE}
    for name in wide.keys() & out.keys():
        narrow[name], wide[name] = _flat(out[name])
    return outputs._replace(**narrow), (wide[_WIDE[0]], wide[_WIDE[1]])


@cache
def _nothing_wanted(floats: np.dtype[Any]) -> Outputs:
    return Outputs(*(np.empty(0, np.int32 if name in _INTEGERS else floats) for name in Outputs._fields))


def _shape(logits: _Rows) -> Shape:
    return Shape(*logits.shape) if logits.ndim == 3 else Shape(1, *logits.shape)


def _flat(array: _Rows) -> tuple[_Rows, Strides]:
    """All memory from the first item to the last as one writable array, and how many items apart they lie.

    A view by address: read-only, sliced and broadcast rows all are one type to Numba, so
    there is one compiled kernel a dtype. Kernels never write to logits.
    """
    layout = _layout(array.dtype, array.shape, array.strides)
    flags = array.flags
    if flags.c_contiguous and flags.writeable:
        return array.reshape(-1).view(layout.dtype), layout.strides
    memory: Any = (ctypes.c_char * (layout.items * layout.dtype.itemsize)).from_address(array.ctypes.data)
    return np.frombuffer(memory, layout.dtype), layout.strides


class _Layout(NamedTuple):
    """What `_flat` finds out about an array."""

    dtype: np.dtype[Any]
    """As the kernels take it."""
    strides: Strides
    items: int
    """From the first to the last."""


@lru_cache(maxsize=256)
def _layout(dtype: np.dtype[Any], shape: tuple[int, ...], strides: tuple[int, ...]) -> _Layout:
    *others, row, class_ = (stride // dtype.itemsize for stride in strides)
    apart = Strides(others[0] if others else 0, row, 1 if shape[-1] == 1 else class_)
    sizes = shape if len(shape) == 3 else (1, *shape)
    items = 1 + sum((size - 1) * stride for size, stride in zip(sizes, apart, strict=True))
    return _Layout(_BITS.get(dtype, dtype), apart, items)
