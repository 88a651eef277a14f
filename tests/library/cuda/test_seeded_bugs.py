"""Does the emulator notice a broken kernel? Each bug changes one place of the CUDA text, and some check must fail."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from softmax_dask.kernels import reference
from softmax_dask.kernels.cuda import rows, text
from tests.library.cuda.emulator import COMPILER, SCHEDULES, Emulator
from tests.library.cuda.prepared import FLOAT32

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no g++, which compiles the CUDA kernels for the CPU")


class Bug(NamedTuple):
    """A place in the text, what stands there instead, and a number of classes whose rows show it."""

    place: str
    instead: str
    classes: int
    where: str = ""
    """The next place after this is meant."""


BUGS = {
    "no barrier before reading the board": Bug("if (WARPS > 1) meet();", "", 2500),
    "one slot for every reduction": Bug("put(board + slot * MOST_WARPS +", "put(board +", 2500),
    "every thread posts, not the first of its warp": Bug("WARPS > 1 && member() % 32 == 0", "WARPS > 1", 2500),
    "half of the warp is left out": Bug(
        "(THREADS < 32 ? THREADS : 32) / 2; bit", "(THREADS < 32 ? THREADS : 32) / 4; bit", 1000
    ),
    "a warp is left out": Bug(
        "for (int warp = 1; warp < WARPS; ++warp)", "for (int warp = 2; warp < WARPS; ++warp)", 2500
    ),
    "threads without a row leave before the shuffles": Bug(
        "      typename Place::Held v;",
        "      if (top + row_of_block<Place::MEMBERS>() >= rows) return;\n      typename Place::Held v;",
        100,
    ),
    "a barrier in a branch": Bug(
        "  found.winner = group", "  if (thread() < 40) meet();\n  found.winner = group", 2500
    ),
    "a shuffle in a branch": Bug(
        "  const Powers<T> powers(found.peak, t.scale);",
        "  if (thread() % 32 < 4) from_lane_xor(1, 1);\n  const Powers<T> powers(found.peak, t.scale);",
        1000,
        "DEVICE Found<A> look(",
    ),
    "one pack too far is read": Bug("k * 512 < end ?", "k * 512 < end + 4096 ?", 1000),
    "an address that is not aligned": Bug("<LAST>(window + k * 512)", "<LAST>(window + k * 512 + 4)", 1000),
    "the rest of a pack comes from the wrong neighbour": Bug("(lane + 1) % 32), skip", "(lane + 2) % 32), skip", 1001),
    "the last thread has no neighbour": Bug("more = skip && lane == 0", "more = false && lane == 0", 2501),
    "what the last thread hands on is lost": Bug("if (spill && lane == 31) {", "if (false) {", 2501),
    "ties go to the highest class": Bug(
        "return a < b ? a : b; }", "return a == NONE ? b : b == NONE ? a : a < b ? b : a; }", 257
    ),
    "the second of two equal logits is lost": Bug(
        "if (held) replace(v, tops, place, minus_infinity<A>());",
        "for (int i = 0; i < Place::N; ++i) v.set(i, minus_infinity<A>(), same(v.at(i), found.peak));"
        "tops = Tops<typename Place::Held, A>(v);",
        257,
    ),
    "the peak is not subtracted": Bug("magic = Constants<A>::magic() - k;", "magic = Constants<A>::magic();", 257),
    "the low part of the scale is lost": Bug(
        "fused(t, scale.lo, fused(t, scale.hi, magic - rounded))", "fused(t, scale.hi, magic - rounded)", 257
    ),
    "a tile is read before it is there": Bug("meet();  // the tile is there", "", 257),
    "a tile is filled before it has been read": Bug(
        "    meet();  // the tile before this one has been read\n", "", 257
    ),
    "the next row is not the next": Bug("top + Place::ROWS :", "top + 2 * Place::ROWS :", 2500),
    "rows are asked for before those on their way are taken": Bug(
        "      place.settle(",
        "      place.fetch(logits, stride, next, rows, classes, fetched);\n      place.settle(",
        100,
    ),
    "the best chunk is not held apart": Bug(
        "s.total.add(better ? s.best_total : total);", "s.total.add(total);", 20000
    ),
    "sums are not moved to a new peak": Bug("    move_sums<T, WORK>(s.peak, powers, next, s);\n", "", 20000),
    "NaN is taken for a small logit": Bug(
        "t = at_least(x - shift, low);", "t = x - shift > low ? x - shift : low;", 257
    ),
    "the target does not count equal logits before it": Bug("same(v.at(i), x) && at.column(i) < target", "false", 257),
}
QUICK = (
    "no barrier before reading the board",
    "a tile is filled before it has been read",
    "the last thread has no neighbour",
)
CASES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in BUGS]


@pytest.mark.parametrize("name", CASES)
def test_a_seeded_bug_is_caught(pytestconfig, name):
    broken = emulator(pytestconfig, seeded(BUGS[name]))

    with pytest.raises(AssertionError):
        examine(broken, BUGS[name].classes)


@pytest.mark.parametrize(
    "classes",
    [257, *(pytest.param(c, marks=pytest.mark.long) for c in sorted({b.classes for b in BUGS.values()} - {257}))],
)
def test_the_text_as_it_is_passes(pytestconfig, classes):
    examine(emulator(pytestconfig, text.package_text()), classes)


def seeded(bug: Bug) -> str:
    whole = text.package_text()
    begin = whole.index(bug.where)
    assert bug.place in whole[begin:], bug
    return whole[:begin] + whole[begin:].replace(bug.place, bug.instead, 1)


def emulator(config: pytest.Config, code: str) -> Emulator:
    return Emulator(config.cache.mkdir("cuda-emulator"), SCHEDULES, text=code)


def examine(device: Emulator, classes: int) -> None:
    """The contract in short: all columns of ordinary rows, of ties, of masks and of undecidable rows."""
    logits, targets = sample(classes)
    out = allocate(logits)
    probabilities = np.full(logits.shape, -77, FLOAT32)

    rows.softmax_rows(device, logits, probabilities, 1.0)
    rows.decision_rows(device, logits, targets, out, 1.0)
    alone = {"label": np.full(len(logits), -77, np.int32)}
    rows.decision_rows(device, logits, None, alone, 1.0)

    np.testing.assert_array_equal(alone["label"], out["label"])
    truth = {name: np.empty(a.shape, a.dtype if a.dtype.kind == "i" else np.float64) for name, a in out.items()}
    reference.decision_rows(logits, targets, truth, 1.0)
    for name in ("label", "target_rank", "max_logit"):
        np.testing.assert_array_equal(out[name], truth[name], err_msg=name)
    for name in ("confidence", "probabilities", "target_probability"):
        np.testing.assert_allclose(out[name], truth[name], rtol=4.8e-7, atol=1e-30, err_msg=name)
    np.testing.assert_allclose(out["margin"], truth["margin"], rtol=0, atol=4.8e-7)
    for name in ("entropy", "logsumexp", "nll", "log_probabilities"):
        np.testing.assert_allclose(out[name], truth[name], rtol=1e-6, atol=2e-6, err_msg=name)
    np.testing.assert_allclose(probabilities, truth["probabilities"], rtol=4.8e-7, atol=1e-30)


def allocate(logits: Any) -> dict[str, Any]:
    narrow = ("confidence", "margin", "entropy", "logsumexp", "max_logit", "nll", "target_probability")
    out: dict[str, Any] = {name: np.full(len(logits), -77, FLOAT32) for name in narrow}
    out |= {name: np.full(len(logits), -77, np.int32) for name in ("label", "target_rank")}
    return out | {name: np.full(logits.shape, -77, FLOAT32) for name in ("probabilities", "log_probabilities")}


def sample(classes: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(classes)
    logits = rng.normal(0, 1, (21, classes)).astype(FLOAT32)
    logits[:4] += 1e4
    logits[4, [2, classes // 2, classes - 1]] = 50  # a tie
    logits[5, 1::2] = -np.inf
    logits[6, 3], logits[7, 5], logits[8] = np.nan, np.inf, -np.inf
    logits[9] = 0
    logits[10, :3] = [-np.inf, np.nan, 1]
    logits[11] = np.linspace(-3, 3, classes)  # a new peak in every chunk
    return logits, rng.integers(-1, classes, 21)
