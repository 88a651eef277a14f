"""Which classes are taken for which: the most frequent pairs, in bounded memory and independent of any order.

Up to `LIMIT` different pairs are counted exactly. Beyond that, whichever part goes beyond it, all counts go into a
count-min sketch: counters that several pairs share, so that a pair's smallest counter is never below its count. Both
are sums, so merging in any order gives the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

LIMIT = 1 << 16
"""Different pairs that are counted one by one."""
DEPTH = 8
WIDTH = 1 << 13
"""Counters a pair has, and how many there are of each. A count is above the true one by more than 2 / WIDTH of all
confused rows with a probability below 2 to the power of -DEPTH."""
_CANDIDATES = 1024
"""Targets, and labels, whose pairs are looked up in a sketch: those that are confused most."""

# Odd multipliers of multiply-shift hashing, from the digits of pi: fixed, so that sketches of any two runs add up.
_MULTIPLIERS = np.array(
    [
        0x243F6A8885A308D3,
        0x13198A2E03707345,
        0xA4093822299F31D1,
        0x082EFA98EC4E6C89,
        0x452821E638D01377,
        0xBE5466CF34E90C6D,
        0xC0AC29B7C97C50DD,
        0x3F84D5B5B5470917,
    ],
    np.uint64,
)
_SHIFT = np.uint64(64 - WIDTH.bit_length() + 1)

Counters = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Confusion:
    """A pair of classes."""

    target: int
    label: int
    rows: int
    """That have this target and this label; of pairs that are not exact, at most so many."""


def _no_pairs() -> Counters:
    return np.empty(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Confusions:
    """Counted pairs."""

    pairs: Counters = field(default_factory=_no_pairs)
    """target * classes + label, rising; empty where there is a sketch"""
    rows: Counters = field(default_factory=_no_pairs)
    """rows of each"""
    sketch: Counters | None = None
    """(DEPTH, WIDTH)"""

    @property
    def is_exact(self) -> bool:
        """Whether every pair is counted one by one."""
        return self.sketch is None

    @staticmethod
    def of(pairs: Counters, rows: Counters | None = None) -> "Confusions":
        """Of these pairs, which may stand there several times, each with so many rows or one."""
        if rows is None:
            exact = Confusions(*np.unique(pairs, return_counts=True))
        else:
            order = np.argsort(pairs, kind="stable")
            sorted_pairs = pairs[order]
            known, starts = np.unique(sorted_pairs, return_index=True)
            exact = Confusions(known, np.add.reduceat(rows[order], starts) if len(starts) else rows)
        known = exact.pairs
        return exact if len(known) <= LIMIT else Confusions(sketch=exact.sketched())

    @staticmethod
    def merged(parts: Iterable["Confusions"]) -> "Confusions":
        """Of all their rows."""
        given = [part for part in parts if len(part.pairs) or not part.is_exact]
        if len(given) < 2:
            return given[0] if given else Confusions()
        if all(part.is_exact for part in given):
            pairs, rows = ([getattr(part, name) for part in given] for name in ("pairs", "rows"))
            return Confusions.of(np.concatenate(pairs), np.concatenate(rows))
        return Confusions(sketch=np.sum([part.sketched() for part in given], axis=0))

    def sketched(self) -> Counters:
        """The counts as a sketch."""
        if self.sketch is not None:
            return self.sketch
        sketch = np.zeros((DEPTH, WIDTH), np.int64)
        for counters, places in zip(sketch, _places(self.pairs), strict=True):
            np.add.at(counters, places, self.rows)
        return sketch

    def most_frequent(self, number: int, classes: int, missed: Counters, mistaken: Counters) -> list[Confusion]:
        """Up to so many pairs, falling; of equal ones the lower classes first.

        `missed` are confused rows by target, `mistaken` by label: in a sketch, pairs are looked for among the classes
        that have most of these.
        """
        pairs, rows = self.pairs, self.rows
        if self.sketch is not None:
            targets, labels = _most(missed), _most(mistaken)
            crossed = np.sort((targets[:, None] * classes + labels)[targets[:, None] != labels])
            found = np.min([row[at] for row, at in zip(self.sketch, _places(crossed), strict=True)], axis=0)
            # No pair has more rows than its classes have.
            bound = np.minimum(missed[crossed // classes], mistaken[crossed % classes])
            pairs, rows = crossed, np.minimum(found, bound)
        order = np.argsort(-rows, kind="stable")[:number]
        return [
            Confusion(int(pairs[i]) // classes, int(pairs[i]) % classes, int(rows[i])) for i in order if rows[i] > 0
        ]


def _places(pairs: Counters) -> Any:
    """Of each pair, which counter it has in each row of a sketch."""
    keys = pairs.astype(np.uint64)
    return ((keys * multiplier) >> _SHIFT for multiplier in _MULTIPLIERS)


def _most(rows: Counters) -> Counters:
    classes = np.argsort(-rows, kind="stable")[:_CANDIDATES]
    return classes[rows[classes] > 0]
