"""How a run is cut: integer arithmetic on sizes, no data.

A partition is a range of rows: one task, one receipt, whole chunks or one file of the output.
Inside it rows are read in the source's own blocks and computed in chunks that fit the cache,
so its size is not bounded by memory but by what a crash may cost.
"""

from dataclasses import dataclass, replace
from math import lcm

from softmax_dask import BLOCK_BYTES
from softmax_dask_pipelines.errors import MemoryBudgetError

PARTITION_BYTES = 128 << 20
"""Logits and results of a partition: a task of 0.1 s or more, output objects of a megabyte or more."""

PARTITION_ROWS = 4 << 20
"""At most: a value a row of them is 16 MiB. Of larger arrays the allocator gives memory back, and takes it anew, for
each partition; of 2 classes a fifth of the CPU time went into fresh pages."""

CHUNK_BYTES = BLOCK_BYTES // 2
"""Logits, or one wide column, of a chunk: with its results it fits the caches that cores share. Each thread holds some,
as computed, encoded and being written: of twice the size a run takes twice the memory, see benchmarks/growth.py."""

RAISE = "Raise the limit (where none is given: half of what is free)"
"""What to do first where a run does not fit."""

PROCESS_BYTES = 400 << 20
"""A process with everything imported: 280 MiB measured, 320 when it compiles the kernels, see benchmarks/memory.py.
The rest is for what the allocators of threads and of Arrow keep back when buffers are freed."""

_TASKS_PER_THREAD = 3

_PARTS_TRIED = 10_000

_LARGEST_UNIT_BYTES = 1 << 30
"""A row group or shard beyond this is cut, though each part then decodes it from its start."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the plan must know of a source and of what is asked of it."""

    rows: int
    classes: int
    read_rows: int
    """Rows of the largest block that the source yields."""
    boundary_rows: int
    """A partition that begins on a multiple of this decodes nothing that its neighbour decodes too."""
    read_overhead_bytes: int
    row_bytes: int
    """Of the logits of a row, as they are read."""
    wide_bytes: int
    """Of a row of all wide columns together."""
    widest_bytes: int
    """Of a row of the widest column."""
    narrow_bytes: int
    """Of a row of all other columns, ids and targets together."""
    scratch_bytes: int = 0
    """Of a row, what it takes beside results while they are computed."""
    counting_bytes: int = 0
    """What a thread counts into."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A run of rows that is computed, written and recorded as one."""

    number: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A run, cut."""

    rows: int
    partition_rows: int
    """Of each partition but the last; a multiple of `chunk_rows`."""
    chunk_rows: int
    threads: int
    bytes_in: int
    """Logits, decoded."""
    bytes_out: int
    """Results, before compression."""
    peak_bytes: int
    """Memory of the whole process, at most."""
    memory_limit_bytes: int
    process_bytes: int = PROCESS_BYTES
    """Of `peak_bytes`, what a process takes before it scores anything."""
    workers: int = 1
    """Processes with so many threads each; `peak_bytes` and `memory_limit_bytes` are of one. Of a cluster, 1."""
    first: int = 0
    """Number of the first partition to score: those before it are done, by earlier runs."""

    @property
    def count(self) -> int:
        """Number of partitions; one even when there are no rows, so that every output has its schema."""
        return max(1, -(-self.rows // self.partition_rows))

    @property
    def task_bytes(self) -> int:
        """Memory that one thread takes at most, beside the process."""
        return (self.peak_bytes - self.process_bytes) // self.threads

    @property
    def numbers(self) -> range:
        """Of the partitions to score."""
        return range(self.first, self.count)

    @property
    def rows_to_score(self) -> int:
        """Rows of these partitions."""
        return self.rows - self.first * self.partition_rows

    def partition(self, number: int) -> Partition:
        """The rows of partition `number`."""
        start = number * self.partition_rows
        return Partition(number, min(start, self.rows), min(start + self.partition_rows, self.rows))


def make_plan(
    sizes: Sizes, *, threads: int, memory_limit_bytes: int, process_bytes: int = PROCESS_BYTES, workers: int = 1
) -> Plan:
    """Cut a run so that each process stays within the limit: smaller partitions first, then fewer threads.

    Raises
    ------
    MemoryBudgetError
        One thread with the smallest partitions would still need more; the message says how much.
    """
    chunk = chunk_rows(sizes)
    unit = _unit(sizes, chunk)
    largest = _partition_rows(sizes, unit, threads * workers)
    smaller = {_reduced(largest, times, unit) for times in (1, 4, 16)} | {unit, chunk}
    for used in range(threads, 0, -1):
        for partition in sorted(smaller, reverse=True):
            peak = process_bytes + used * _task_bytes(sizes, chunk, partition)
            if peak <= memory_limit_bytes:
                plan = _plan(sizes, partition, chunk, used, peak, memory_limit_bytes)
                return replace(plan, workers=workers, process_bytes=process_bytes)
    raise MemoryBudgetError(
        f"memory_limit is {_bytes_text(memory_limit_bytes)}; expected at least {_bytes_text(peak)}: "
        f"{_bytes_text(process_bytes)} for the process and {_bytes_text(peak - process_bytes)} for one thread with "
        f"blocks of {sizes.read_rows} x {sizes.classes} logits. {RAISE}, or store the logits in smaller chunks."
    )


def make_plan_as_cut(
    sizes: Sizes,
    *,
    partition_rows: int,
    chunk_rows: int,
    first: int,
    threads: int,
    memory_limit_bytes: int,
    workers: int = 1,
) -> Plan:
    """A run that is cut already, as the output says: threads are all that there is to choose.

    Raises
    ------
    MemoryBudgetError
        One thread would need more than the limit.
    """
    task_bytes = _task_bytes(sizes, chunk_rows, partition_rows)
    used = min(threads, (memory_limit_bytes - PROCESS_BYTES) // max(1, task_bytes))
    if used < 1:
        raise MemoryBudgetError(
            f"memory_limit is {_bytes_text(memory_limit_bytes)}; expected at least "
            f"{_bytes_text(PROCESS_BYTES + task_bytes)} for one thread, in partitions of {partition_rows} rows as the "
            f"output has them. {RAISE}, or start over with --replace."
        )
    peak = PROCESS_BYTES + used * task_bytes
    plan = _plan(sizes, partition_rows, chunk_rows, used, peak, memory_limit_bytes)
    scored = sizes.rows - first * partition_rows
    bytes_out = scored * (sizes.wide_bytes + sizes.narrow_bytes)
    return replace(plan, first=first, workers=workers, bytes_in=scored * sizes.row_bytes, bytes_out=bytes_out)


def chunk_rows(sizes: Sizes) -> int:
    """Rows that are computed and encoded as one: about CHUNK_BYTES, and whole blocks of the source or equal parts."""
    wanted = max(1, min(sizes.rows, CHUNK_BYTES // max(1, sizes.classes * 4, sizes.widest_bytes)))
    if sizes.read_rows <= wanted:
        return wanted // sizes.read_rows * sizes.read_rows
    parts = -(-sizes.read_rows // wanted)
    equal = next((p for p in range(parts, min(2 * parts, parts + _PARTS_TRIED)) if sizes.read_rows % p == 0), parts)
    return -(-sizes.read_rows // equal)


def _unit(sizes: Sizes, chunk: int) -> int:
    """Fewest rows of a partition: whole chunks of the output and, within reason, whole pieces of the source."""
    boundary = max(1, min(sizes.boundary_rows, sizes.rows))
    if boundary * _row_bytes(sizes) > _LARGEST_UNIT_BYTES:
        return chunk
    common = lcm(chunk, boundary)
    return common if common <= 2 * max(chunk, boundary) else -(-boundary // chunk) * chunk


def _row_bytes(sizes: Sizes) -> int:
    return max(1, sizes.row_bytes + sizes.wide_bytes + sizes.narrow_bytes)


def _partition_rows(sizes: Sizes, unit: int, threads: int) -> int:
    """About PARTITION_BYTES, less when classes are few or the dump is small; a multiple of `unit`.

    Each thread gets a few, and all get as many: with one more than they can share, one works and the others wait.
    """
    full = max(1, min(PARTITION_ROWS, PARTITION_BYTES // _row_bytes(sizes)) // unit)
    units = -(-sizes.rows // unit)
    each = max(_TASKS_PER_THREAD, -(-units // (full * threads)))
    return max(1, -(-units // (threads * each))) * unit


def _reduced(rows: int, times: int, unit: int) -> int:
    return max(unit, rows // times // unit * unit)


def _task_bytes(sizes: Sizes, chunk: int, partition: int) -> int:
    """Of one thread: a decoded block and what decoding takes; results as computed, encoded, and twice being written.

    Columns of one value a row are kept for a partition, while those of the one before are encoded and stored.
    """
    reading = sizes.read_rows * sizes.row_bytes + sizes.read_overhead_bytes
    computing = chunk * (sizes.wide_bytes + 3 * sizes.widest_bytes) + 2 * chunk * sizes.classes * 4
    computing += chunk * sizes.scratch_bytes
    gathering = 3 * min(partition, max(1, sizes.rows)) * sizes.narrow_bytes
    return reading + computing + gathering + sizes.counting_bytes


def _plan(sizes: Sizes, partition: int, chunk: int, threads: int, peak: int, limit: int) -> Plan:
    return Plan(
        rows=sizes.rows,
        partition_rows=partition,
        chunk_rows=chunk,
        threads=threads,
        bytes_in=sizes.rows * sizes.row_bytes,
        bytes_out=sizes.rows * (sizes.wide_bytes + sizes.narrow_bytes),
        peak_bytes=peak,
        memory_limit_bytes=limit,
    )


def _bytes_text(count: int) -> str:
    return f"{count} B" if count < 1 << 20 else f"{-(-count // (1 << 20))} MiB"
