"""Decisions of dumps that are on a disk and not in the page cache, which is how a large dump is found.

The working directory should be on a real disk. of the time of its files: whole runs, over reading the bytes of all
chunk files, a file at a time a thread, by as many threads as a run has.
without reading ahead: the same runs, where the next chunk's file is not asked for while one is decoded and computed.

    python -m benchmarks.disk
"""

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

from benchmarks import runs, script
from benchmarks.dumps import CODECS, forget, zarr_dump
from benchmarks.figures import Figure
from benchmarks.measure import Effort, Spread, in_turns, ratio
from softmax_dask_pipelines import score
from softmax_dask_pipelines.machine import cores
from softmax_dask_pipelines.sources.zarr_direct import DirectReader

TABLE = "score from the disk, decisions"
_LEAST_BYTES, _STEP_BYTES = 256 << 20, 4 << 20


def figures(effort: Effort) -> Iterator[Figure]:
    """A row for each codec."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        for codec in CODECS:
            source = zarr_dump(Path(folder), codec, min(10 * effort.dump_bytes, max(effort.dump_bytes, _LEAST_BYTES)))
            yield from _of(source, codec, effort)
            shutil.rmtree(source)


def _of(source: Path, codec: str, effort: Effort) -> Iterator[Figure]:
    output = source.with_name("out.zarr")
    given = {
        "run": lambda: score(source, output, columns=runs.NARROW),
        "without": lambda: _without_reading_ahead(source, output),
        "files": lambda: _read_files(source),
    }
    seconds = in_turns(given, effort, before=lambda: (runs.remove(output), forget(source)))
    yield Figure(TABLE, codec, "of the time of its files", ratio(seconds, "run", "files"), "less")
    yield Figure(TABLE, codec, "without reading ahead", ratio(seconds, "without", "run"), "more")
    stored = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    rates = [stored / second / 1e9 for second in seconds["run"]]
    yield Figure(TABLE, codec, "GB/s of the disk", Spread.of(rates), "shown", "")


def _without_reading_ahead(source: Path, output: Path) -> None:
    with patch.object(DirectReader, "expect", lambda reader, rows: None):
        score(source, output, columns=runs.NARROW)


def _read_files(source: Path) -> None:
    def read(path: Path) -> None:
        with path.open("rb", buffering=0) as file:
            while file.read(_STEP_BYTES):
                pass

    with ThreadPoolExecutor(cores()) as pool:
        for _ in pool.map(read, sorted(path for path in source.rglob("*") if path.is_file())):
            pass


if __name__ == "__main__":
    script.main(__doc__ or "", figures)
