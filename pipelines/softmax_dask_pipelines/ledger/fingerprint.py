"""Is the input still the one that was scored, and what is new in it? Stamps as JSON, and two of them compared."""

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_dask_pipelines.errors import InputChangedError
from softmax_dask_pipelines.sources.stamps import ArrayStamps, FileStamps, Stamps

Content = Callable[[str, range], str]
"""From the name of an array and rows to the digest of the values there now."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something that is not as it was."""

    words: str
    rows: range | None
    """Which rows it has, as they were numbered; None: it may be any."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What the input is now, beside what it was."""

    changed: tuple[Change, ...]
    added_files: tuple[str, ...] = ()
    added_rows: int = 0


def json_of(stamps: Stamps) -> dict[str, Any]:
    """JSON types only."""
    files = stamps.files
    return {
        "document": stamps.document,
        "arrays": [
            {
                "name": each.name,
                "rows": each.rows,
                "height": each.height,
                "digests": _text(each.digests),
                "tail": each.tail,
            }
            for each in stamps.arrays
        ],
        "files": None if files is None else {"names": files.names, "rows": files.rows, "digests": _text(files.digests)},
    }


def stamps_of(document: dict[str, Any]) -> Stamps:
    """From JSON."""
    files = document["files"]
    return Stamps(
        document["document"],
        tuple(
            ArrayStamps(each["name"], each["rows"], each["height"], _digests(each["digests"]), each["tail"])
            for each in document["arrays"]
        ),
        None if files is None else FileStamps(tuple(files["names"]), tuple(files["rows"]), _digests(files["digests"])),
    )


def compare(old: Stamps, new: Stamps, content: Content) -> Difference:
    """What has changed since `old`, and what came after it."""
    if old.files is not None and new.files is not None:
        return _of_files(old.files, new.files)
    if old.document != new.document or [each.name for each in old.arrays] != [each.name for each in new.arrays]:
        return Difference((Change("the metadata of its arrays was changed", None),))
    pairs = list(zip(old.arrays, new.arrays, strict=True))
    changed = tuple(change for before, now in pairs for change in _changes(before, now, content))
    return Difference(changed, added_rows=max(0, new.arrays[0].rows - old.arrays[0].rows))


def joined(old: Stamps, new: Stamps, added_files: tuple[str, ...]) -> Stamps:
    """What is scored when what is new in `new` is, too: files that are gone stay known."""
    if old.files is None or new.files is None:
        return new
    places = [new.files.names.index(name) for name in added_files]
    files = FileStamps(
        old.files.names + added_files,
        old.files.rows + tuple(new.files.rows[place] for place in places),
        np.concatenate([old.files.digests, new.files.digests[places]]),
    )
    return Stamps(new.document, files=files)


def amended(old: Stamps, new: Stamps, content: Content) -> Stamps:
    """What was known, of the same rows, as it is now."""
    if old.files is not None and new.files is not None:
        now = dict(zip(new.files.names, new.files.digests, strict=True))
        known = zip(old.files.names, old.files.digests, strict=True)
        digests = np.array([now.get(name, digest) for name, digest in known], np.uint64)
        return replace(old, files=replace(old.files, digests=digests))
    pairs = zip(old.arrays, new.arrays, strict=True)
    return replace(old, arrays=tuple(_amended(before, now, content) for before, now in pairs))


def _amended(old: ArrayStamps, new: ArrayStamps, content: Content) -> ArrayStamps:
    return replace(old, digests=new.digests[: len(old.digests)], tail=content(old.name, old.tail_rows))


def rows_from(first: int, known: Stamps, now: Stamps) -> tuple[range, ...]:
    """Where in the input, as it is now, the rows are that are known, from number `first` of them on.

    Raises
    ------
    InputChangedError
        Some of these rows are gone.
    """
    if known.files is None or now.files is None:
        return (range(first, known.arrays[0].rows),)
    places = dict(zip(now.files.names, map(range, *_edges(now.files)), strict=True))
    found = []
    for name, start, stop in zip(known.files.names, *_edges(known.files), strict=True):
        if stop > first:
            if len(places.get(name, ())) != stop - start:
                raise InputChangedError(
                    f"{name}: is gone or has other rows, and some of them are still to be scored; expected it to stay. "
                    "Put it back, or start over with --replace."
                )
            found.append(places[name][max(0, first - start) :])
    return tuple(found)


def _edges(files: FileStamps) -> tuple[list[int], list[int]]:
    edges = list(accumulate(files.rows, initial=0))
    return edges[:-1], edges[1:]


def _of_files(old: FileStamps, new: FileStamps) -> Difference:
    known, now = dict(zip(old.names, old.digests, strict=True)), dict(zip(new.names, new.digests, strict=True))
    rows = dict(zip(new.names, new.rows, strict=True))
    changed = []
    for name, start, stop in zip(old.names, *_edges(old), strict=True):
        if now.get(name) != known[name]:
            same_rows = rows.get(name) == stop - start
            words = f"{name} {'was changed' if name in now else 'is gone'}"
            changed.append(Change(words, range(start, stop) if same_rows else None))
    added = tuple(name for name in new.names if name not in known)
    return Difference(tuple(changed), added, sum(rows[name] for name in added))


def _changes(old: ArrayStamps, new: ArrayStamps, content: Content) -> Iterator[Change]:
    if new.rows < old.rows:
        yield Change(f"{_called(old)} has {new.rows:,} rows, and had {old.rows:,}", None)
        return
    for number in np.flatnonzero(old.digests[: old.full] != new.digests[: old.full]).tolist():
        start = number * old.height
        yield _change(old, range(start, start + old.height))
    tail = old.tail_rows
    same_file = len(tail) == 0 or old.digests[old.full] == new.digests[old.full]
    # Who appends rows writes the last file anew: then what is in it tells.
    if not same_file and (not old.tail or content(old.name, tail) != old.tail):
        yield _change(old, tail)


def _change(array: ArrayStamps, rows: range) -> Change:
    return Change(f"rows {rows.start:,} to {rows.stop - 1:,} of {_called(array)} were changed", rows)


def _called(array: ArrayStamps) -> str:
    return array.name or "the array"


def _text(digests: NDArray[np.uint64]) -> str:
    return base64.b64encode(digests.astype("<u8").tobytes()).decode()


def _digests(text: str) -> NDArray[np.uint64]:
    return np.frombuffer(base64.b64decode(text), "<u8").astype(np.uint64)
