"""Dumps with one logit a row, read as two: softmax([0, z]) is (1 - sigmoid(z), sigmoid(z))."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from softmax_dask_pipelines.errors import ConfigError
from softmax_dask_pipelines.sources.protocol import Source, SourceBlock, SourceFacts, SourceRequest
from softmax_dask_pipelines.sources.stamps import Stamps

CLASSES = 2
"""The classes of a row with one logit: 0 is "no", 1 is "yes"."""


def classes_of_rows(request: SourceRequest, stored: int, *, where: str) -> int:
    """How many classes targets, class names and blocks have, for so many logits a row.

    A source calls it before it looks at targets and class names.
    """
    if request.link == "softmax":
        return stored
    if stored != 1:
        raise ConfigError(
            f"link: is 'sigmoid', but {where} has {stored} logits a row; expected one. Leave link out, "
            "or name an array or column with one logit a row."
        )
    return CLASSES


class SigmoidSource:
    """The rows (z) of another source as (0, z)."""

    def __init__(self, source: Source) -> None:
        self._source = source
        facts = source.facts
        # The one-logit block of the source lives beside the block that is made of it.
        block_bytes = facts.read_rows * facts.classes * facts.dtype.itemsize
        self._facts = replace(facts, classes=CLASSES, read_overhead_bytes=facts.read_overhead_bytes + block_bytes)

    @property
    def facts(self) -> SourceFacts:
        """What is known without reading logits."""
        return self._facts

    def read(self, start: int, stop: int) -> Iterator[SourceBlock]:
        """Rows start..stop-1 in order, cut at the multiples of `facts.read_rows`."""
        return map(_with_zero, self._source.read(start, stop))

    def compile(self) -> None:
        """What the source calls."""
        self._source.compile()

    def stamps(self) -> Stamps:
        """Those of the source."""
        return self._source.stamps()

    def content(self, name: str, rows: range) -> str:
        """That of the source."""
        return self._source.content(name, rows)


def _with_zero(block: SourceBlock) -> SourceBlock:
    logits = np.zeros((len(block.logits), CLASSES), block.logits.dtype)
    logits[:, 1] = block.logits.reshape(-1)
    return replace(block, logits=logits)
