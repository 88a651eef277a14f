"""Some rows of a source as a source: those that were there when a plan was made, or those that are new."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate, chain

from softmax_dask_pipelines.sources.blocks import aligned, regrouped
from softmax_dask_pipelines.sources.protocol import Source, SourceBlock, SourceFacts
from softmax_dask_pipelines.sources.stamps import Stamps


def rows_of(source: Source, ranges: tuple[range, ...], *, first_row: int = 0) -> Source:
    """These rows, one range after the other, the first of them being number `first_row`; those before cannot be read.

    The source itself, where that is all of its rows in their order.
    """
    wanted = _merged(ranges)
    is_all = first_row == 0 and wanted == _merged((range(source.facts.rows),))
    return source if is_all else SomeRows(source, wanted, first_row)


class SomeRows:
    """Ranges of rows of another source, numbered anew."""

    def __init__(self, source: Source, ranges: tuple[range, ...], first_row: int) -> None:
        self._source, self._ranges = source, ranges
        self._starts = list(accumulate(map(len, ranges), initial=first_row))
        facts = source.facts
        # Blocks that straddle two ranges are copied together.
        block_bytes = facts.read_rows * facts.classes * facts.dtype.itemsize if len(ranges) > 1 else 0
        self._facts = replace(facts, rows=self._starts[-1], read_overhead_bytes=facts.read_overhead_bytes + block_bytes)

    @property
    def facts(self) -> SourceFacts:
        """Those of the source, with fewer rows."""
        return self._facts

    def read(self, start: int, stop: int) -> Iterator[SourceBlock]:
        """Rows start..stop-1 in order, cut at the multiples of `facts.read_rows`."""
        assert self._starts[0] <= start <= stop <= self._facts.rows, f"rows {start}..{stop} of {self._facts.rows}"
        lengths = (len(rows) for rows in aligned(start, stop, self._facts.read_rows))
        return regrouped(chain.from_iterable(self._pieces(start, stop)), lengths)

    def compile(self) -> None:
        """What the source calls."""
        self._source.compile()

    def stamps(self) -> Stamps:
        """Those of the whole source."""
        return self._source.stamps()

    def content(self, name: str, rows: range) -> str:
        """That of the source, whose rows these are."""
        return self._source.content(name, rows)

    def _pieces(self, start: int, stop: int) -> Iterator[Iterator[SourceBlock]]:
        for first, rows in zip(self._starts, self._ranges, strict=False):
            part = rows[max(0, start - first) : max(0, stop - first)]
            if part:
                yield self._source.read(part.start, part.stop)


def _merged(ranges: tuple[range, ...]) -> tuple[range, ...]:
    """Ranges that follow one another as one; without those that are empty."""
    merged: list[range] = []
    for rows in filter(None, ranges):
        if merged and merged[-1].stop == rows.start:
            merged[-1] = range(merged[-1].start, rows.stop)
        else:
            merged.append(rows)
    return tuple(merged)
