"""A run of as many partitions as wanted, of rows that nobody has stored: what the driver costs, and nothing else.

The source makes rows out of nothing, the sink stores none; plan, lock, journal, receipts and totals are those of any
run. As a program: `python -m benchmarks.nothing COUNT local|processes [MOST]`, which prints what it took as JSON.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from benchmarks import memory
from softmax_dask_pipelines import job, scoring
from softmax_dask_pipelines.config import ScoreConfig
from softmax_dask_pipelines.object_path import AnyPath
from softmax_dask_pipelines.sinks import OutputSpec, StoredObject
from softmax_dask_pipelines.sinks.buffers import PartitionBuffers
from softmax_dask_pipelines.sinks.places import Place
from softmax_dask_pipelines.sources import SourceBlock, SourceFacts
from softmax_dask_pipelines.sources.stamps import ArrayStamps, Stamps

_ROWS = 8
"""Of a partition."""
_CLASSES = 10


@dataclass(frozen=True, slots=True)
class NothingSource:
    """So many partitions of zeros."""

    count: int

    @property
    def facts(self) -> SourceFacts:
        """As of a Zarr array with a chunk a partition."""
        return SourceFacts(
            path="/nothing.zarr",
            format="zarr",
            name="",
            rows=self.count * _ROWS,
            classes=_CLASSES,
            dtype=np.dtype(np.float32),
            read_rows=_ROWS,
            read_overhead_bytes=0,
            stored_bytes=0,
            codec="none",
            layout="none",
            class_names=None,
            carried=(),
            target_name=None,
            boundary_rows=_ROWS,
        )

    def read(self, start: int, stop: int) -> Iterator[SourceBlock]:
        """One block a partition."""
        yield SourceBlock(np.zeros((stop - start, _CLASSES), np.float32), {}, None)

    def compile(self) -> None:
        """Nothing."""

    def stamps(self) -> Stamps:
        """A digest a partition, as of a chunk of Zarr."""
        digests = np.arange(self.count, dtype=np.uint64)
        return Stamps("nothing", (ArrayStamps("", self.count * _ROWS, _ROWS, digests, ""),))

    def content(self, name: str, rows: range) -> str:
        """Always the same."""
        return ""


@dataclass(frozen=True, slots=True)
class NothingSink:
    """Stores nothing."""

    spec: OutputSpec
    place: Place

    def prepare(self) -> None:
        """Make the folders of the plan."""
        self.place.prepare()

    def writer(self, number: int) -> "_Writer":
        """Of one partition."""
        return _Writer(PartitionBuffers(self.spec, number))

    def find(self, number: int, key: str) -> AnyPath:
        """Nowhere: there are no objects."""
        return self.place.stage / key

    def seal(self) -> tuple[StoredObject, ...]:
        """No documents."""
        return ()


@dataclass(frozen=True, slots=True)
class _Writer:
    buffers: PartitionBuffers

    def reserve(self, rows: int) -> dict[str, NDArray[Any]]:
        return self.buffers.reserve(rows)

    def advance(self, rows: int, carried: Mapping[str, Any], targets: NDArray[np.int64] | None) -> None:
        self.buffers.advance(rows, carried, targets)

    def drain(self) -> None:
        """Nothing is under way."""

    def close(self) -> tuple[StoredObject, ...]:
        return ()


class EnoughError(Exception):
    """Ends a run that has shown what it takes."""


def run(count: int, cluster: str, folder: Path, most: int | None = None) -> dict[str, float]:
    """Score so many partitions of nothing, or the first `most`: what each takes, and the most memory of the process."""
    config = ScoreConfig(
        source={"path": str(folder / "nothing.zarr")}, output={"path": str(folder / "out.zarr")}, cluster=cluster
    )
    with ExitStack() as patches:
        patches.enter_context(patch.object(job, "open_source", lambda _: NothingSource(count)))
        patches.enter_context(patch.object(scoring, "open_sink", NothingSink))
        ready = job.prepare(config)
        ready = replace(ready, plan=replace(ready.plan, partition_rows=_ROWS, chunk_rows=_ROWS))
        ready = replace(ready, spec=replace(ready.spec, partition_rows=_ROWS, chunk_rows=_ROWS))
        taken, begin, times = 0, perf_counter(), []

        def take(_: Any) -> None:
            nonlocal taken
            taken += 1
            if taken == 1:
                times.extend([perf_counter(), process_time()])
            if taken == most:
                raise EnoughError

        with suppress(EnoughError):
            scoring.execute(ready, on_receipt=take)
        seconds, cpu_s = perf_counter() - times[0], process_time() - times[1]
    assert taken == (most or count), f"{taken} of {count}"
    return {
        "partitions": taken,
        "each_ms": seconds / taken * 1000,
        "cpu_ms": cpu_s / taken * 1000,
        "begin_s": times[0] - begin,
        "peak_bytes": memory.peak_bytes(),
    }


def peak_bytes_of(count: int, cluster: str, most: int) -> int:
    """The most memory of a process that drives the first `most` of `count` partitions."""
    line = [sys.executable, "-m", "benchmarks.nothing", str(count), cluster, str(most)]
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
    found: int = json.loads(done.stdout)["peak_bytes"]
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        asked = [int(word) for word in sys.argv[3:]]
        print(json.dumps(run(int(sys.argv[1]), sys.argv[2], Path(scratch), *asked)))
