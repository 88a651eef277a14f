"""Metrics of a dump with targets: one read, integer sums, no output.

of the time of score: `score` writes the same columns of the same dump (label, confidence, entropy, nll, brier,
target_rank) as Zarr, and keeps the same metrics beside them; both in turns, in one process that is warm.

    python -m benchmarks.evaluate
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import BloscCodec

from benchmarks import runs, script
from benchmarks.figures import Figure
from benchmarks.logits import normal, rows_of
from benchmarks.measure import Effort, Spread, in_turns, ratio
from softmax_dask import metric_columns
from softmax_dask_pipelines import evaluate, score

CLASSES = (10, 100, 1000)
TABLE = "evaluate"
_CHUNK_BYTES = 4 << 20


def figures(effort: Effort) -> Iterator[Figure]:
    """A row for each number of classes."""
    with tempfile.TemporaryDirectory() as folder:
        for classes in CLASSES:
            source = dump(Path(folder), classes, effort.dump_bytes)
            yield from _beside_score(source, classes, effort)
            shutil.rmtree(source)


def dump(folder: Path, classes: int, size_bytes: int) -> Path:
    """A Zarr group of about so many bytes of logits, lz4, with targets of which a half are right."""
    path, rows = folder / f"{classes}.zarr", max(1, rows_of(min(_CHUNK_BYTES, size_bytes // 4), classes))
    count = max(1, rows_of(size_bytes, classes) // rows)
    group = zarr.create_group(path)
    shape, codec = (count * rows, classes), BloscCodec(cname="lz4", shuffle="shuffle")
    logits = group.create_array("logits", shape=shape, chunks=(rows, classes), dtype="float32", compressors=codec)
    target = group.create_array("target", shape=shape[:1], chunks=(rows,), dtype="int32")
    for number in range(count):
        values = normal((rows, classes), scale=4.0, seed=number)
        part = slice(number * rows, (number + 1) * rows)
        other = np.random.default_rng(number).integers(0, classes, rows)
        logits[part], target[part] = values, np.where(other % 2, values.argmax(axis=1), other)
    return path


def _beside_score(source: Path, classes: int, effort: Effort) -> Iterator[Figure]:
    output = source.with_name("out.zarr")
    columns = metric_columns(with_targets=True)
    given = {"evaluate": lambda: evaluate(source), "score": lambda: score(source, output, columns=columns)}
    seconds = in_turns(given, effort, before=lambda: runs.remove(output))
    row = f"{classes} classes"
    yield Figure(TABLE, row, "of the time of score", ratio(seconds, "evaluate", "score"), "less")
    size = zarr.open_group(source, mode="r")["logits"].nbytes  # type: ignore[union-attr]
    yield Figure(TABLE, row, "GB/s of logits", Spread.of([size / s / 1e9 for s in seconds["evaluate"]]), "shown", "")
    yield Figure(TABLE, row, "seconds", Spread.of(seconds["evaluate"]), "shown", "")


if __name__ == "__main__":
    script.main(__doc__, figures)
