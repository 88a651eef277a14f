"""What every source promises, whatever the layout of the dump."""

import hashlib
import itertools
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_dask_pipelines.sources import Source, open_source
from tests.pipelines import dumps
from tests.pipelines.sources.conftest import Dump

RANGES = [(0, 103), (0, 0), (0, 1), (102, 103), (7, 53), (20, 40), (31, 60), (59, 61), (1, 102)]


def test_facts_tell_rows_classes_and_native_dtype(dump: Dump) -> None:
    facts = open_source(dump.request).facts

    assert (facts.rows, facts.classes, facts.dtype) == (103, 5, dump.data.dtype)
    assert facts.dtype.isnative
    assert facts.path == dump.request.path
    assert facts.stored_bytes > 0
    assert facts.codec
    assert facts.layout


def test_any_range_reads_as_the_same_slice_of_the_data_cut_at_multiples_of_read_rows(dump: Dump) -> None:
    source = open_source(dump.request)
    step = source.facts.read_rows

    for start, stop in RANGES:  # not a test each: there are hundreds of dumps
        blocks = [block.logits for block in source.read(start, stop)]

        found = np.concatenate(blocks) if blocks else dump.data[:0]
        assert _bits(found) == _bits(dump.data[start:stop]), (start, stop)
        cuts = sorted({start, stop, *range(-(-start // step) * step, stop, step)})
        assert [len(block) for block in blocks] == [b - a for a, b in itertools.pairwise(cuts)], (start, stop)


def test_blocks_are_c_ordered_and_of_the_dtype_of_the_facts(dump: Dump) -> None:
    source = open_source(dump.request)

    for block in source.read(0, 103):
        assert block.logits.flags.c_contiguous
        assert block.logits.dtype == source.facts.dtype


def test_ids_come_with_their_rows(dump: Dump) -> None:
    source = open_source(dump.request)

    found = [block.carried for block in source.read(7, 53)]

    if dump.carried:
        ids = source.facts.id
        assert ids is not None
        assert ids.name.split("/")[-1] == "id"
        assert all(carried[ids.name].type == ids.type for carried in found)
        assert [text for carried in found for text in carried[ids.name].to_pylist()] == dumps.ids()[7:53]
    else:
        assert source.facts.carried == ()
        assert found == [{}] * len(found)


def test_targets_come_with_their_rows(dump: Dump) -> None:
    source = open_source(dump.request)

    found = [block.targets for block in source.read(7, 53)]

    if dump.carried:
        assert (source.facts.target_name or "").split("/")[-1] == "target"
        assert np.concatenate([part for part in found if part is not None]).tolist() == dumps.targets()[7:53].tolist()
    else:
        assert source.facts.target_name is None
        assert found == [None] * len(found)


def test_class_names_are_found(dump: Dump) -> None:
    expected = tuple(f"class {k}" for k in range(5)) if dump.carried else None

    assert open_source(dump.request).facts.class_names == expected


def test_a_pickled_source_reads_the_same(dump: Dump) -> None:
    source = open_source(dump.request)

    copy = pickle.loads(pickle.dumps(source))

    assert copy.facts == source.facts
    assert _bits(_logits(copy, 7, 53)) == _bits(dump.data[7:53])


def test_two_threads_read_the_same_source(dump: Dump) -> None:
    source = open_source(dump.request)
    ranges = RANGES * 3

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda rows: _bits(_logits(source, *rows)), ranges))

    assert found == [_bits(dump.data[start:stop]) for start, stop in ranges]


def test_reading_leaves_the_files_as_they_are(dump: Dump) -> None:
    before = _fingerprint(Path(dump.request.path).parent)

    list(open_source(dump.request).read(0, 103))

    assert _fingerprint(Path(dump.request.path).parent) == before


def _logits(source: Source, start: int, stop: int) -> NDArray[Any]:
    empty = np.empty((0, source.facts.classes), source.facts.dtype)
    return np.concatenate([empty, *(block.logits for block in source.read(start, stop))])


def _bits(logits: NDArray[Any]) -> tuple[Any, ...]:
    return logits.shape, logits.dtype, logits.tobytes()


def _fingerprint(folder: Path) -> dict[str, str]:
    files = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
