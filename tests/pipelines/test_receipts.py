"""Receipts are less than a kilobyte on their way from a worker, and none of what they say is lost."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softmax_dask_pipelines.marks import Marks
from softmax_dask_pipelines.receipts import Receipt
from softmax_dask_pipelines.sinks import StoredObject
from softmax_dask_pipelines.tally import Tally

NARROW = (
    *("label", "confidence", "margin", "entropy", "logsumexp", "max_logit", "top_k_labels", "top_k_probabilities"),
    *("nll", "correct", "target_rank", "target_probability", "id", "target", "day"),
)
PARTITION = 999_999

COUNTS = st.integers(0, 2**31)
SUMS = st.floats(allow_nan=False, allow_infinity=False)
TALLIES = st.builds(
    Tally,
    rows=COUNTS,
    undecidable=COUNTS,
    confidence_sum=SUMS,
    entropy_sum=SUMS,
    labelled=COUNTS,
    correct=COUNTS,
    nll_sum=SUMS,
    labels=st.dictionaries(st.integers(0, 250_000), COUNTS, max_size=32),
    labels_are_all=st.booleans(),
    lower_bounds=st.frozensets(st.integers(0, 250_000), max_size=4),
    label_groups=st.lists(COUNTS, max_size=256).map(tuple),
)
OBJECTS = st.builds(StoredObject, st.from_regex(r"[a-z_é]+/c/[0-9]+(/0)?", fullmatch=True), COUNTS, COUNTS)
MICROSECONDS = st.integers(0, 10**10).map(lambda count: 1e-6 * count)
RECEIPTS = st.builds(
    Receipt,
    partition=st.integers(0, 2**40),
    tally=TALLIES,
    objects=st.lists(OBJECTS, max_size=4).map(tuple),
    notes=st.lists(st.text(), max_size=2).map(tuple),
    read_s=MICROSECONDS,
    kernel_s=MICROSECONDS,
    write_s=MICROSECONDS,
)


@given(RECEIPTS)
def test_a_receipt_is_the_same_on_the_other_side(receipt):
    found = pickle.loads(pickle.dumps(receipt))

    seconds = [each.read_s for each in (found, receipt)], [each.kernel_s for each in (found, receipt)]
    assert replace(found, read_s=0, kernel_s=0, write_s=0) == replace(receipt, read_s=0, kernel_s=0, write_s=0)
    assert all(abs(one - other) < 1e-6 for one, other in seconds)
    assert {type(count) for count in found.tally.label_groups} <= {int}


def receipt_of(rows: int, classes: int, wide: tuple[str, ...], chunks: int) -> Receipt:
    """Of a partition with every narrow column, random labels, and sizes and checksums that nothing compresses."""
    random = np.random.default_rng(0)
    numbers = [PARTITION * chunks + i for i in range(chunks)]
    keys = [*(f"{name}/c/{number}/0" for number in numbers for name in wide), *(f"{n}/c/{PARTITION}" for n in NARROW)]
    sizes = random.integers(3_000_000, 4_000_000, len(keys)).tolist()
    checksums = random.integers(0, 2**32, len(keys)).tolist()
    sums = {"confidence_sum": 0.7312 * rows, "entropy_sum": 1.337 * rows, "nll_sum": 0.4444 * rows}
    tally = Tally(rows=rows, undecidable=17, labelled=rows - 5, correct=rows // 2, **sums)
    return Receipt(
        partition=PARTITION,
        tally=tally.with_labels(np.bincount(random.integers(0, classes, rows), minlength=classes)),
        objects=tuple(map(StoredObject, keys, sizes, checksums)),
        notes=(),
        read_s=1.2345678901,
        kernel_s=0.23456789012,
        write_s=0.345678901,
    )


@pytest.mark.parametrize(
    ("rows", "classes", "wide", "chunks"),
    [  # of 128 MiB of logits and results, in chunks of 4 MiB
        (8_000_000, 2, (), 0),
        (200_000, 256, (), 0),
        (105_000, 256, ("probabilities",), 25),  # of int8
        (27_000, 1000, ("probabilities",), 25),
        (13_000, 1000, ("probabilities", "log_probabilities"), 13),
        (300, 100_000, ("probabilities",), 25),
    ],
)
def test_a_receipt_is_less_than_a_kilobyte(rows, classes, wide, chunks):
    receipt = receipt_of(rows, classes, wide, chunks)

    assert len(pickle.dumps(receipt)) < 1024


def test_marks_know_what_is_left():
    marks = Marks()
    for number in (7, 3, 100_000):
        marks.add(number)

    assert [number for number in (0, 3, 7, 8, 100_000, 10**9) if number in marks] == [3, 7, 100_000]
    assert list(marks.rest(range(2, 9))) == [2, 4, 5, 6, 8]


def test_without_marks_a_million_partitions_take_no_memory():
    assert Marks().rest(range(10**6)) == range(10**6)
