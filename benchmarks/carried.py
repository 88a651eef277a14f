"""What stands beside the results: ids and names of labels, as so many times the run without them.

Uncompressed Zarr of 10 classes, in memory as the dumps of `benchmarks.score` are; label and confidence are asked for.
Text is `doc-000000017` for ids and `class 7` for names of labels, in `label_name`. Outputs are new each time.

    python -m benchmarks.carried
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from benchmarks import runs, script
from benchmarks.dumps import folder_in_memory
from benchmarks.figures import Figure
from benchmarks.logits import normal, rows_of
from benchmarks.measure import Effort, Spread, in_turns, ratio
from softmax_dask_pipelines import score

CLASSES = 10
TABLE = "what stands beside, 10 classes"
_CHUNK_BYTES = 4 << 20
_OUTPUTS = ("zarr", "parquet")


def figures(effort: Effort) -> Iterator[Figure]:
    """A row for each kind of what is carried."""
    with folder_in_memory(effort.dump_bytes // 4) as folder:
        source, names = dump(folder / "dump.zarr", effort.dump_bytes // 4), folder / "names.json"
        names.write_text(json.dumps([f"class {number}" for number in range(CLASSES)]))
        asked: dict[str, dict[str, Any]] = {
            "nothing": {"columns": runs.NARROW},
            "integer ids": {"columns": runs.NARROW, "id": "number"},
            "text ids": {"columns": runs.NARROW, "id": "text"},
            "names of labels": {"columns": (*runs.NARROW, "label_name"), "classes": names},
        }
        for kind in _OUTPUTS:
            yield from _beside_nothing(source, folder / f"out.{kind}", asked, effort)


def dump(path: Path, size_bytes: int) -> Path:
    """A Zarr group of about so many bytes of logits, with ids as numbers and as text."""
    rows = max(1, rows_of(min(_CHUNK_BYTES, size_bytes // 4), CLASSES))
    count = max(1, rows_of(size_bytes, CLASSES) // rows)
    group, every = zarr.create_group(path), np.arange(count * rows)
    shape = (count * rows, CLASSES)
    logits = group.create_array("logits", shape=shape, chunks=(rows, CLASSES), dtype="float32", compressors=None)
    for number in range(count):
        logits[number * rows : (number + 1) * rows] = normal((rows, CLASSES), scale=4.0, seed=number)
    numbers = group.create_array("number", shape=shape[:1], chunks=(rows,), dtype="int64")
    texts = group.create_array("text", shape=shape[:1], chunks=(rows,), dtype=str)
    numbers[:], texts[:] = every, np.array([f"doc-{number:09d}" for number in every.tolist()], dtype=object)
    return path


def _beside_nothing(source: Path, output: Path, asked: dict[str, dict[str, Any]], effort: Effort) -> Iterator[Figure]:
    given = {row: partial(score, source, output, **options) for row, options in asked.items()}
    seconds = in_turns(given, effort, before=lambda: runs.remove(output))
    rows = int(zarr.open_array(source / "logits", mode="r").shape[0])
    kind = output.suffix[1:].capitalize()
    for row in asked:
        yield Figure(TABLE, row, f"{kind}, of the time of nothing", ratio(seconds, row, "nothing"), "less")
        each = [taken / rows * 1e9 for taken in seconds[row]]
        yield Figure(TABLE, row, f"{kind}, ns a row", Spread.of(each), "shown", "")


if __name__ == "__main__":
    script.main(__doc__, figures)
