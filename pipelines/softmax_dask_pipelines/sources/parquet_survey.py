"""What the headers of pages say before anything is read: how much memory a page takes, and a text; checksums.

All pages of a small dump are looked at, of a large one the first of some row groups. What was not foreseen so, a read
refuses.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from math import ceil
from typing import NamedTuple, TypeVar

from softmax_dask_pipelines.errors import MetadataLimitError
from softmax_dask_pipelines.sources.parquet_files import Part, plain_errors
from softmax_dask_pipelines.sources.parquet_footer import Chunk
from softmax_dask_pipelines.sources.parquet_limits import TEXT_BYTES
from softmax_dask_pipelines.sources.parquet_pages import Page, sound_pages
from softmax_dask_pipelines.sources.parquet_stream import text_chunk, where_is

Item = TypeVar("Item")

_PAGES = 1024
"""Headers that are looked at, about: 5 ms where the file is in the system's cache."""
_PAGES_FAR = 64
"""Where each may cost a request: two seconds."""
_PAGES_OF_CHUNK = 4
"""Enough to see what a writer does: a dictionary among them, and a whole page."""
_WIDE_COLUMNS = 16
"""Of one column a class: they are alike."""
_LEAST_PAGE_BYTES = 2 * 2**20
"""Writers aim at pages of a megabyte."""
_LEAST_TEXT_BYTES = 48
_MARGIN = 2
"""How much larger pages may be that were not looked at, and how much longer texts are in some rows than in all."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found."""

    page_bytes: int
    """Largest page to plan for."""
    text_bytes: Mapping[str, int]
    """By column of text: what one takes in memory, to plan for."""
    has_checksums: bool | None
    """Whether all pages of the logits have one; None where there are none."""


class _Look(NamedTuple):
    """At the first pages of a column in one row group."""

    name: str
    pages: Sequence[Page]
    is_whole: bool
    text_bytes: float
    """Of a text, on average."""


def survey(parts: Sequence[Part], *, logits: Sequence[str], others: Sequence[str], texts: Sequence[str]) -> Survey:
    """Look at the columns `logits` and `others`; `texts` are those of the others that hold text."""
    names = (*_spread(logits, _WIDE_COLUMNS), *others)
    groups = [(part, group) for part in parts for group in range(len(part.chunks)) if _has_rows(part, group)]
    most = _PAGES_FAR if parts[0].place.is_far else _PAGES
    chosen = _spread(groups, most // (_PAGES_OF_CHUNK * len(names)) or 1)
    pages = max(_PAGES_OF_CHUNK, most // (len(names) * len(chosen) or 1))
    looks = [
        look
        for part, found in groupby(chosen, lambda place: place[0])
        for look in _looks(part, [group for _, group in found], names, texts, pages)
    ]
    largest = max((page.uncompressed_bytes for look in looks for page in look.pages), default=0)
    is_whole = len(names) == len(logits) + len(others) and chosen == groups and all(look.is_whole for look in looks)
    checksums = [page.checksum is not None for look in looks if look.name in logits for page in look.pages]
    return Survey(
        page_bytes=max(_LEAST_PAGE_BYTES, largest if is_whole else _MARGIN * largest),
        text_bytes={name: _text_bytes(name, looks) for name in texts},
        has_checksums=all(checksums) if checksums else None,
    )


def _looks(
    part: Part, groups: Sequence[int], names: Sequence[str], texts: Sequence[str], count: int
) -> Iterator[_Look]:
    with plain_errors(part.path), part.opened(small=True) as file:
        for name in names:
            # A list has one leaf, a number and a text too.
            leaf = part.leaves_of([name])[0]
            for group in groups:
                chunk = Chunk._make(part.chunks[group, leaf].tolist())
                found = sound_pages(file, chunk, where_is(part, leaf, group))
                pages = list(islice(found, count))
                mean = text_chunk(file, part, leaf, chunk).mean(pages) if name in texts else 0.0
                if mean > 2 * TEXT_BYTES:
                    raise MetadataLimitError(
                        f"{where_is(part, leaf, group)}: holds texts of {ceil(mean)} bytes, on average, once they are "
                        f"decoded; expected at most {2 * TEXT_BYTES}. Write shorter ones, or name another column."
                    )
                yield _Look(name, pages, next(found, None) is None, mean)


def _text_bytes(name: str, looks: Sequence[_Look]) -> int:
    largest = max((look.text_bytes for look in looks if look.name == name), default=0)
    return max(_LEAST_TEXT_BYTES, ceil(_MARGIN * largest))


def _spread(items: Sequence[Item], count: int) -> Sequence[Item]:
    """At most so many of them, the first among them."""
    return items[:: ceil(len(items) / count) or 1]


def _has_rows(part: Part, group: int) -> bool:
    return part.group_starts[group + 1] > part.group_starts[group]
