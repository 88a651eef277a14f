"""How a run is cut. Integers only: no data, no files."""

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softmax_dask_pipelines.errors import MemoryBudgetError
from softmax_dask_pipelines.plan import (
    CHUNK_BYTES,
    PARTITION_BYTES,
    PARTITION_ROWS,
    PROCESS_BYTES,
    Plan,
    Sizes,
    make_plan,
)

MIB = 1 << 20
AMPLE = 1 << 50
"""More memory than any machine has: nothing is cut because of it."""

PLAIN = Sizes(
    rows=10_000_000,
    classes=1000,
    read_rows=2000,
    boundary_rows=2000,
    read_overhead_bytes=16 * MIB,
    row_bytes=4000,
    wide_bytes=0,
    widest_bytes=0,
    narrow_bytes=8,
)
"""40 GB of float32 in chunks of 8 MB; label and confidence are asked for."""

WIDE = dataclasses.replace(PLAIN, wide_bytes=8000, widest_bytes=4000)
"""The same with probabilities and log_probabilities."""


@st.composite
def sizes(draw: st.DrawFn, *, most_rows: int = 10**12) -> Sizes:
    classes = draw(st.integers(1, 250_000))
    item = draw(st.sampled_from([1, 2, 4, 8]))
    wide_columns, wide_item = draw(st.integers(0, 2)), draw(st.sampled_from([2, 4, 8]))
    return Sizes(
        rows=draw(st.integers(0, most_rows)),
        classes=classes,
        read_rows=draw(st.integers(1, 10**7)),
        boundary_rows=draw(st.integers(1, 10**7)),
        read_overhead_bytes=draw(st.integers(0, 1 << 30)),
        row_bytes=classes * item,
        wide_bytes=wide_columns * classes * wide_item,
        widest_bytes=min(1, wide_columns) * classes * wide_item,
        narrow_bytes=draw(st.integers(0, 300)),
    )


def planned(of: Sizes, *, threads: int = 8, limit: int = AMPLE) -> Plan:
    return make_plan(of, threads=threads, memory_limit_bytes=limit)


def needed_bytes(of: Sizes, *, threads: int = 8) -> int:
    """The figure that a refusal names."""
    with pytest.raises(MemoryBudgetError) as refusal:
        planned(of, threads=threads, limit=1)
    (figure,) = re.findall(r"expected at least (\d+) MiB", str(refusal.value))
    return int(figure) * MIB


@given(sizes(), st.integers(1, 256))
def test_a_partition_is_whole_chunks(of, threads):
    plan = planned(of, threads=threads)

    assert plan.chunk_rows > 0
    assert plan.partition_rows > 0
    assert plan.partition_rows % plan.chunk_rows == 0


@given(sizes(), st.integers(1, 256), st.integers(0, 10**12))
def test_partitions_follow_one_another(of, threads, number):
    plan = planned(of, threads=threads)
    number %= plan.count
    here, following = plan.partition(number), plan.partition(number + 1)

    assert here.number == number
    assert here.stop == following.start
    assert 0 < here.stop - here.start <= plan.partition_rows or of.rows == 0


@given(sizes(), st.integers(1, 256))
def test_the_first_partition_begins_and_the_last_ends_with_the_dump(of, threads):
    plan = planned(of, threads=threads)

    assert plan.partition(0).start == 0
    assert plan.partition(plan.count - 1).stop == of.rows


@given(sizes(most_rows=10_000), st.integers(1, 4))
def test_partitions_hold_every_row_once_and_in_order(of, threads):
    plan = planned(of, threads=threads)

    partitions = [plan.partition(number) for number in range(plan.count)]

    assert [row for part in partitions for row in range(part.start, part.stop)] == list(range(of.rows))


@given(sizes(), st.integers(1, 256), st.integers(PROCESS_BYTES, 1 << 40))
def test_a_plan_stays_below_the_memory_limit(of, threads, limit):
    try:
        plan = planned(of, threads=threads, limit=limit)
    except MemoryBudgetError:
        assert needed_bytes(of, threads=threads) > limit - MIB  # the figure is rounded up to a MiB
        return

    assert PROCESS_BYTES < plan.peak_bytes <= limit
    assert 1 <= plan.threads <= threads


@given(sizes(), st.integers(1, 256))
def test_the_figure_that_a_refusal_names_is_enough(of, threads):
    needed = needed_bytes(of, threads=threads)

    plan = planned(of, threads=threads, limit=needed)

    assert plan.peak_bytes <= needed
    assert plan.threads >= 1


@given(sizes(), st.integers(1, 64), st.integers(0, 1 << 36), st.integers(0, 1 << 36))
def test_more_memory_gives_more_threads_and_with_as_many_no_smaller_partitions(of, threads, one, two):
    needed = needed_bytes(of, threads=threads)
    less, more = (planned(of, threads=threads, limit=needed + extra) for extra in sorted((one, two)))

    assert (less.threads, less.partition_rows) <= (more.threads, more.partition_rows)


@given(sizes())
def test_bytes_in_and_out_are_those_of_all_rows(of):
    plan = planned(of)

    assert plan.bytes_in == of.rows * of.row_bytes
    assert plan.bytes_out == of.rows * (of.wide_bytes + of.narrow_bytes)


@given(sizes(), st.integers(1, 256))
def test_a_chunk_is_made_of_whole_reads_or_is_an_equal_part_of_one(of, threads):
    plan = planned(of, threads=threads)
    parts = -(-of.read_rows // plan.chunk_rows)

    # An equal part: all parts of a read have `chunk_rows` rows but the last, and one part fewer would not do.
    whole_reads = plan.chunk_rows % of.read_rows == 0
    equal_part = -(-of.read_rows // parts) == plan.chunk_rows
    capped = of.rows < of.read_rows or plan.chunk_rows >= of.rows
    assert whole_reads or equal_part or capped


@pytest.mark.parametrize(
    ("of", "chunk_rows", "partition_rows"),
    [
        # PARTITION_BYTES of logits and results, 33 reads of 8 MB and 8 bytes a row
        (PLAIN, 1000, 32_000),
        # the same bytes, now with two wide columns beside the logits
        (WIDE, 1000, 10_000),
        # a tiny dump is one chunk: eight threads have nothing to share
        (dataclasses.replace(PLAIN, rows=10, read_rows=10), 10, 10),
        # a small dump: each of eight threads gets three partitions
        (dataclasses.replace(PLAIN, rows=100_000), 1000, 6000),
        # no rows: one partition, so that the output has its schema
        (dataclasses.replace(PLAIN, rows=0, read_rows=1), 1, 1),
        # 2 classes: half a million rows a chunk, two reads of 2 MB; ten million rows are fewer than three a thread
        (
            dataclasses.replace(PLAIN, classes=2, row_bytes=8, read_rows=250_000, boundary_rows=250_000),
            500_000,
            500_000,
        ),
        # 250,000 classes: 4 rows of a million bytes a chunk
        (dataclasses.replace(PLAIN, classes=250_000, row_bytes=1_000_000, read_rows=8, boundary_rows=8), 4, 128),
        # shards of 12 reads: partitions are whole shards, 24,000 rows, though more would fit
        (dataclasses.replace(PLAIN, boundary_rows=24_000), 1000, 24_000),
        # a row group of 4 GB is cut: each of its parts decodes it from its start
        (dataclasses.replace(PLAIN, boundary_rows=1_000_000), 1000, 33_000),
        # reads of a prime number of rows, larger than a chunk: eight parts; partitions are as near to whole reads
        (dataclasses.replace(PLAIN, read_rows=7919, boundary_rows=7919), 990, 31_680),
        # one row is larger than a chunk should be
        (dataclasses.replace(PLAIN, classes=4_000_000, row_bytes=16_000_000, read_rows=1, boundary_rows=1), 1, 8),
    ],
    ids=[
        "label and confidence",
        "two wide columns",
        "tiny",
        "small",
        "no rows",
        "2 classes",
        "250000 classes",
        "shards",
        "huge row group",
        "prime reads",
        "huge rows",
    ],
)
def test_examples(of, chunk_rows, partition_rows):
    plan = planned(of)

    assert plan.chunk_rows == chunk_rows
    assert plan.partition_rows == partition_rows


@pytest.mark.parametrize("of", [PLAIN, WIDE])
def test_a_partition_of_a_large_dump_is_as_large_as_a_task_should_be(of):
    plan = planned(of)

    row_bytes = of.row_bytes + of.wide_bytes + of.narrow_bytes
    assert PARTITION_BYTES / 2 < plan.partition_rows * row_bytes <= PARTITION_BYTES


def test_a_partition_of_few_classes_has_no_more_rows_than_the_allocator_likes():
    of = dataclasses.replace(PLAIN, rows=10**9, classes=2, row_bytes=8, read_rows=500_000, boundary_rows=500_000)

    assert PARTITION_ROWS / 2 < planned(of).partition_rows <= PARTITION_ROWS


@pytest.mark.parametrize("of", [PLAIN, WIDE])
def test_a_chunk_of_a_large_dump_fits_the_cache(of):
    plan = planned(of)

    assert CHUNK_BYTES / 2 < plan.chunk_rows * of.row_bytes <= CHUNK_BYTES


def test_a_partition_of_shards_is_whole_shards():
    of = dataclasses.replace(PLAIN, boundary_rows=10_000)

    plan = planned(of)

    assert plan.partition_rows % of.boundary_rows == 0


def test_each_thread_gets_a_few_partitions_of_a_small_dump():
    plan = planned(dataclasses.replace(PLAIN, rows=100_000), threads=4)

    assert 8 <= plan.count <= 16


@pytest.mark.parametrize("threads", [2, 3, 5])
@pytest.mark.parametrize("rows", [402_000, 1_000_000])
def test_threads_get_equally_many_partitions(rows, threads):
    one = dataclasses.replace(PLAIN, rows=rows)

    plan = planned(one, threads=threads)

    # Of whole chunks: one of them may be left out, and none is over.
    assert plan.count % threads in (0, threads - 1)


def test_with_little_memory_partitions_become_smaller_before_threads_become_fewer():
    of = dataclasses.replace(PLAIN, narrow_bytes=1000)  # long ids: what is gathered for a partition is most of it
    ample = planned(of, threads=4)

    tight = planned(of, threads=4, limit=ample.peak_bytes - 1)

    assert tight.threads == 4
    assert tight.partition_rows < ample.partition_rows


def test_with_less_memory_threads_become_fewer():
    ample = planned(PLAIN, threads=4)
    a_thread = (ample.peak_bytes - PROCESS_BYTES) // 4

    tight = planned(PLAIN, threads=4, limit=PROCESS_BYTES + 2 * a_thread)

    assert tight.threads == 2


def test_a_refusal_says_what_takes_the_memory_and_what_to_do():
    with pytest.raises(MemoryBudgetError) as refusal:
        planned(PLAIN, limit=200 * MIB)

    message = str(refusal.value)
    assert "memory_limit is 200 MiB" in message
    assert f"{PROCESS_BYTES // MIB} MiB for the process" in message
    assert "blocks of 2000 x 1000 logits" in message
    assert "Raise the limit (where none is given: half of what is free), or store the logits in" in message


def test_partition_numbers_past_the_end_are_empty():
    plan = planned(PLAIN)

    beyond = plan.partition(plan.count)

    assert (beyond.start, beyond.stop) == (PLAIN.rows, PLAIN.rows)
