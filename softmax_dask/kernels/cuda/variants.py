"""Which kernel for which rows: a pure function of class count, dtypes and columns, never of the number of rows.

So the same row gives the same bits in any chunk. Narrow columns do not depend on which others are wanted either: what
a kernel looks for beside the winner (`Work`) changes no sum.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntFlag
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np

DTYPES = {
    np.dtype(np.float16): "half",
    np.dtype(ml_dtypes.bfloat16): "bfloat",
    np.dtype(np.float32): "float",
    np.dtype(np.float64): "double",
}
"""Dtype of logits -> its C++ type in numbers.cuh."""

BLOCK = 128
"""Threads of a block whose rows need fewer; as in places.cuh."""
_WARP = 32
_MOST_WARPS = 16
_PACK_BYTES = 16
_TILE_CLASSES = 512
_WARP_CLASSES = 1024
"""Beyond them classes go round the threads of a block, not of a warp, in kernels that read rows more than once."""


class Work(IntFlag):
    """What a kernel of rows looks for, and whether it writes wide columns; nothing: probabilities alone.

    As in columns.cuh.
    """

    DECIDE = 1
    ENTROPY = 2
    RANK = 4
    SQUARES = 8
    WIDE = 16


PROBABILITIES = Work(0)
_RANKED = Work.DECIDE | Work.ENTROPY | Work.RANK
WORKS = (Work.DECIDE, Work.DECIDE | Work.ENTROPY, _RANKED, _RANKED | Work.SQUARES)
"""What rows may be looked at for."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One compiled kernel."""

    name: str
    line: str
    """The C++ that defines it, given the text of the package."""
    threads: int
    """Of a block."""
    rows: int
    """That a block computes at a time."""
    members: int
    """Threads that share a row."""
    crowd: int = 16
    """Blocks that a multiprocessor gets in all, where there are rows for so many."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the logits of a row lie while it is computed: as in places.cuh, or `stream`."""

    kind: str
    members: int
    held: int
    """Packs of 16 bytes a thread, or in a tile logits."""


def place_of(classes: int, dtype: np.dtype[Any], work: Work = PROBABILITIES) -> Place:
    """The place for rows of so many classes."""
    pack, most = _PACK_BYTES // dtype.itemsize, _most_packs(dtype)
    packs = -(-classes // pack)
    if classes % pack == 0 and packs <= _WARP * most:
        return _part_of_warp(packs, dtype)
    if classes <= _TILE_CLASSES // max(1, dtype.itemsize // 4):
        return _tile(classes)
    if packs <= _WARP * most:
        return Place("warps", _WARP, _power_of_two(-(-packs // _WARP)))
    warps = _power_of_two(-(-packs // (_WARP * _MOST_PACKS)))
    # A block of 16 warps has a multiprocessor alone, and what is looked for makes its warps wait for each other.
    if warps <= (_MOST_WARPS // 2 if work else _MOST_WARPS):
        return Place("warps", _WARP * warps, _MOST_PACKS)
    return Place("stream", _WARP * 4, 4 if dtype.itemsize == 2 else 8) if work else Place("stream", _WARP * 8, 4)


_MOST_PACKS = 8
"""That a thread holds in registers."""


def _most_packs(dtype: np.dtype[Any]) -> int:
    """That a thread holds where a warp has a row: 32 logits, of float64 16."""
    return {2: 4, 4: 8, 8: 8}[dtype.itemsize]


def _part_of_warp(packs: int, dtype: np.dtype[Any]) -> Place:
    # Four packs a thread: fewer make the sums over threads dear. Two threads at least: neighbours swap halves.
    lanes = min(_WARP, max(_power_of_two(-(-packs // 4)), 2))
    held = _power_of_two(-(-packs // lanes))
    return Place("part", lanes, held) if lanes < _WARP else Place("warps", _WARP, held)


def _tile(classes: int) -> Place:
    lanes = _power_of_two(-(-classes // 32))  # a thread's logits are as many as there are bits in a word
    held = -(-classes // lanes)
    return Place("tile", lanes, held + -held % (2 if held <= 12 else 4))


def _power_of_two(n: int) -> int:
    """The smallest one that is no less."""
    return 1 << max(0, n - 1).bit_length()


@cache
def row_kernel(classes: int, dtype: np.dtype[Any], wide: np.dtype[Any] | None, work: Work) -> Kernel:
    """Columns of rows; `wide` is the dtype of probabilities and their logarithms, None where none are wanted."""
    return kernel_at(place_of(classes, dtype, work), dtype, wide, work)


@cache
def kernel_at(place: Place, dtype: np.dtype[Any], wide: np.dtype[Any] | None, work: Work) -> Kernel:
    """Columns of rows that lie in `place`."""
    if place.kind == "stream":
        work |= Work.DECIDE
    if work and wide is not None:
        work |= Work.WIDE
    t = DTYPES[dtype]
    o = DTYPES[wide or (dtype if dtype.itemsize == 8 else np.dtype(np.float32))]
    name = "_".join(map(str, (place.kind, place.members, place.held, t, *([o] if wide else []), int(work))))
    warps = place.members // _WARP
    bodies = {
        "part": f"held_rows<{t}, {o}, PartOfWarp<{t}, {place.members}, {place.held}>, {int(work)}>",
        "tile": f"held_rows<{t}, {o}, Tile<{t}, {place.members}, {place.held}, {o}>, {int(work)}>",
        "warps": f"held_rows<{t}, {o}, Warps<{t}, {warps}, {place.held}>, {int(work)}>",
        "stream": f"stream_rows<{t}, {o}, {warps}, {place.held}, {int(work)}>",
    }
    threads = place.members if warps > 1 else BLOCK
    line = f"ROW_KERNEL({name}, {t}, {o}, {threads}, {_resident(place, dtype, wide, work)}, ({bodies[place.kind]}))"
    return Kernel(name, line, threads, threads // place.members, place.members, _crowd(threads, work))


def _crowd(threads: int, work: Work) -> int:
    """Blocks that a multiprocessor gets in all: as many as were fastest on an H200."""
    # What finishes rows does so in batches, which are small where blocks are many. A block of 512 threads has a
    # multiprocessor alone, and the first rows of the next one are not on their way when it ends.
    return 4096 // threads if work else 128 if threads < 512 else 16


def _resident(place: Place, dtype: np.dtype[Any], wide: np.dtype[Any] | None, work: Work) -> int:
    """Threads that a multiprocessor must have registers for: as many as none of these kernels spills with."""
    packs, logits = (0, place.held) if place.kind == "tile" else (place.held, 0)
    if dtype.itemsize == 8:
        return 256 if work and (logits >= 28 or (place.kind == "stream" and work & Work.RANK)) else 384
    if work & (Work.RANK | Work.WIDE):
        if dtype.itemsize == 2 and packs > 4:
            return 256
        return 384 if place.kind == "stream" or logits >= 24 else 512
    if work and 20 <= logits < 28:
        return 768
    if wide is not None and wide != dtype and wide.itemsize == dtype.itemsize:
        return 512  # from one format of 16 bits to the other
    few = place.kind in ("part", "tile") or (bool(work) and dtype.itemsize == 2 and place.members == _WARP)
    return 1024 if few and packs <= 4 and logits < 28 else 512


@cache
def top_k_kernel(classes: int, dtype: np.dtype[Any]) -> Kernel:
    """The k largest logits."""
    return _of_members("TOP_K_KERNEL", "top_k", dtype, _WARP if classes <= _WARP_CLASSES else 256)


@cache
def share_kernel(classes: int, dtype: np.dtype[Any]) -> Kernel:
    """What the entries of a Jacobian are made of."""
    return _of_members("SHARE_KERNEL", "share", dtype, _members(classes))


@cache
def matrix_kernel(floats: np.dtype[Any]) -> Kernel:
    """The entries of Jacobians."""
    a = DTYPES[floats]
    return Kernel(f"matrix_{a}", f"MATRIX_KERNEL(matrix_{a}, {a})", BLOCK, 1, 1)


@cache
def product_kernel(classes: int, dtype: np.dtype[Any], kind: str) -> Kernel:
    """Products with the Jacobian; `kind` is jvp, log_jvp or log_vjp."""
    return _of_members("PRODUCT_KERNEL", kind, dtype, _members(classes), f", {kind.upper()}")


def _members(classes: int) -> int:
    return 8 if classes <= 64 else _WARP if classes <= _WARP_CLASSES else 256


def _of_members(macro: str, what: str, dtype: np.dtype[Any], members: int, more: str = "") -> Kernel:
    t, threads = DTYPES[dtype], max(BLOCK, members)
    name = f"{what}_{members}_{t}"
    return Kernel(name, f"{macro}({name}, {t}, {threads}, {members}{more})", threads, threads // members, members)


def every_kernel() -> Iterator[Kernel]:
    """All kernels that any rows may ask for, each once."""
    found: dict[str, Kernel] = {}
    for dtype in DTYPES:
        floats = np.dtype(np.float64) if dtype.itemsize == 8 else np.dtype(np.float32)
        wides = [floats] if dtype.itemsize == 8 else [d for d in DTYPES if d.itemsize < 8]
        kernels = [kernel_at(p, dtype, wide, PROBABILITIES) for p in every_place(dtype) for wide in wides]
        looked = every_place(dtype, Work.DECIDE)
        kernels += [kernel_at(p, dtype, wide, work) for p in looked for wide in (None, *wides) for work in WORKS]
        kernels += [product_kernel(c, dtype, kind) for c in (2, 100, 5000) for kind in ("jvp", "log_jvp", "log_vjp")]
        kernels += [share_kernel(c, dtype) for c in (2, 100, 5000)] + [top_k_kernel(c, dtype) for c in (2, 5000)]
        found |= {kernel.name: kernel for kernel in [*kernels, matrix_kernel(floats)]}
    yield from found.values()


@cache
def every_place(dtype: np.dtype[Any], work: Work = PROBABILITIES) -> tuple[Place, ...]:
    """All places that rows of some number of classes have."""
    counts = [*range(1, 1100), *range(1100, 40000, 13)]
    return tuple(dict.fromkeys(place_of(classes, dtype, work) for classes in counts))
