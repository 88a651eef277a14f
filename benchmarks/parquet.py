"""Parquet to Parquet, label and confidence, in one process that is warm.

Files and what becomes of them lie in memory (/dev/shm, where there is room), so no disk is measured.

The scan alone: our reader, beside the batches of a pyarrow dataset, and beside the first logit of every list by DuckDB
and by Polars' streaming engine, for which they decode all of them.

Polars by expressions over a list column, DuckDB by SQL over a list column: both are asked for the same two columns and
use every core, as ours does. Rows of 1000 classes, row groups of 4 MB. Defaults: as pyarrow and pandas write where
nothing is said, snappy and a dictionary for the first quarter of a row group.

    python -m benchmarks.parquet
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks import runs, script
from benchmarks.dumps import PARQUET_CODECS, folder_in_memory, parquet_dump
from benchmarks.figures import Figure
from benchmarks.logits import exact_softmax
from benchmarks.measure import Effort, Spread, in_turns, ratio
from benchmarks.peers import peer, require_equal
from softmax_dask_pipelines import score

PEERS = {"Polars": "polars", "DuckDB": "duckdb"}
SCANNERS = {**PEERS, "pyarrow": "pyarrow"}
TABLE = "score Parquet, decisions"


def figures(effort: Effort) -> Iterator[Figure]:
    """A row for each codec."""
    with folder_in_memory(effort.dump_bytes) as folder:
        for codec in PARQUET_CODECS:
            source = parquet_dump(folder, codec, effort.dump_bytes)
            yield from _codec(source, codec, effort)
            yield from _scan(source, codec, effort)
            source.unlink()


def _scan(source: Path, codec: str, effort: Effort) -> Iterator[Figure]:
    job = runs.job_of(source, source.with_name("out.parquet"), runs.NARROW)
    given: dict[str, Callable[[], object]] = {"ours": lambda: runs.decode(job)}
    given |= {name: partial(module.scan, source) for name, package in SCANNERS.items() if (module := peer(package))}
    seconds = in_turns(given, effort)
    for name in [name for name in SCANNERS if name in seconds]:
        yield Figure("scan Parquet", codec, f"faster than {name}", ratio(seconds, name, "ours"), "more")


def _codec(source: Path, codec: str, effort: Effort) -> Iterator[Figure]:
    output = source.with_name("out.parquet")
    given: dict[str, Callable[[], object]] = {"ours": lambda: score(source, output, columns=runs.NARROW)}
    modules = {name: module for name, package in PEERS.items() if (module := peer(package))}
    given |= {name: partial(module.score, source, output) for name, module in modules.items()}
    for who, run in given.items():
        runs.remove(output)
        run()
        _require_right(source, output, who)
    seconds = in_turns(given, effort, before=lambda: runs.remove(output))
    for name in modules:
        yield Figure(TABLE, codec, f"faster than {name}", ratio(seconds, name, "ours"), "more")
    yield Figure(TABLE, codec, "seconds", Spread.of(seconds["ours"]), "shown", "")


def _require_right(source: Path, output: Path, who: str) -> None:
    """The first rows have the labels and confidences that they should have."""
    first = pq.ParquetFile(source).read_row_group(0)["logits"].combine_chunks()
    exact = exact_softmax(first.flatten().to_numpy().reshape(len(first), -1))
    found = pq.read_table(output).slice(0, len(first))
    require_equal(found["label"].to_numpy(), exact.argmax(axis=1), who=who)
    require_equal(found["confidence"].to_numpy(), exact.max(axis=1), who=who)


if __name__ == "__main__":
    script.main(__doc__, figures)
