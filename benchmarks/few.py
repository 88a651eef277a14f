"""Whole runs where classes are few, and rows many: what is done for each row weighs as much as its logits.

Dumps are uncompressed Zarr, half as large as those of `benchmarks.score`, and lie in memory as those do; label and
confidence are asked for, of all contenders. Peers and decode + kernel as there. Parquet: the same run with that output,
which has the number of each row too; bytes a row are those of the output.

    python -m benchmarks.few
"""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks import runs, script
from benchmarks.dumps import folder_in_memory, zarr_dump
from benchmarks.figures import Figure
from benchmarks.measure import Effort, Spread, in_turns, ratio
from benchmarks.score import decisions_beside_others
from softmax_dask_pipelines import score

CLASSES = (2, 10, 100)
TABLE = "score, few classes"


def figures(effort: Effort) -> Iterator[Figure]:
    """A row for each number of classes."""
    half = replace(effort, dump_bytes=effort.dump_bytes // 2)
    with folder_in_memory(half.dump_bytes) as folder:
        for classes in CLASSES:
            source, row = zarr_dump(folder, "none", half.dump_bytes, classes=classes), f"{classes} classes"
            yield from decisions_beside_others(source, TABLE, row, half)
            yield from _as_parquet(source, row, half)
            shutil.rmtree(source)


def _as_parquet(source: Path, row: str, effort: Effort) -> Iterator[Figure]:
    outputs = {name: source.with_name(f"out.{name}") for name in ("zarr", "parquet")}

    def remove() -> None:
        for output in outputs.values():
            runs.remove(output)

    given = {name: partial(score, source, output, columns=runs.NARROW) for name, output in outputs.items()}
    seconds = in_turns(given, effort, before=remove)
    yield Figure(TABLE, row, "Parquet, of the time of Zarr", ratio(seconds, "parquet", "zarr"), "less")
    for name, output in outputs.items():
        remove()
        given[name]()
        rows = runs.job_of(source, output, runs.NARROW).plan.rows
        size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
        yield Figure(TABLE, row, f"bytes a row, {name.capitalize()}", Spread.exactly(size / rows), "less", "")
    remove()


if __name__ == "__main__":
    script.main(__doc__, figures)
