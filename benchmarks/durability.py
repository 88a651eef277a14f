"""What it costs that a power cut loses nothing: runs that sync beside runs that do not, and beside a copy that syncs.

Dumps of 1000 classes in the working directory, which should be on a real disk; contenders in turns. A copy
is our reader and writer with `np.copyto` for a kernel, equally durable.

    python -m benchmarks.durability --effort quick|full
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import runs, script
from benchmarks.dumps import zarr_dump
from benchmarks.figures import Figure
from benchmarks.measure import Effort, Spread, in_turns, ratio
from softmax_dask_pipelines import score

TABLE = "durability"


def figures(effort: Effort) -> Iterator[Figure]:
    """All of them."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        source = zarr_dump(Path(folder), "zstd", effort.dump_bytes)
        for ending in ("zarr", "parquet"):
            for what, columns in (("probabilities", runs.WIDE), ("decisions", runs.NARROW)):
                yield from _costs(source, source.with_name(f"out.{ending}"), f"{ending}, {what}", columns, effort)


def _costs(source: Path, output: Path, row: str, columns: tuple[str, ...], effort: Effort) -> Iterator[Figure]:
    contenders: dict[str, Callable[[], object]] = {
        "fsync": lambda: score(source, output, columns=columns),
        "none": lambda: score(source, output, columns=columns, durability="none"),
    }
    if columns == runs.WIDE:
        contenders["copy"] = lambda: runs.copy(source, output)
    seconds = in_turns(contenders, effort, before=lambda: runs.remove(output))
    yield Figure(TABLE, row, "of the time without", ratio(seconds, "fsync", "none"), "less")
    if "copy" in seconds:
        yield Figure(TABLE, row, "of the time of a copy", ratio(seconds, "fsync", "copy"), "less")
    yield Figure(TABLE, row, "seconds", Spread.of(seconds["fsync"]), "shown", "")


if __name__ == "__main__":
    script.main(__doc__ or "", figures)
