"""A sample dump: what a decent classifier of 100 classes would have written. The same bytes on every machine."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from softmax_dask_pipelines import storage

ROWS, CLASSES = 100_000, 100

_SEED = 20_260_101
_SIGNAL, _NOISE = 8.0, 2.0
"""The target's logit is raised by the first, all are spread by the second: nine rows in ten come out right."""
_EXACT = 3.65
"""Standard deviations. Beyond them NumPy asks the C library for a logarithm, and no two agree on its last bit."""
_ROWS_A_CHUNK = 10_000

_ADJECTIVES = ("amber", "brisk", "calm", "dusty", "eager", "faint", "grand", "hazy", "ivory", "jolly")
_NOUNS = ("ant", "bear", "crow", "deer", "elk", "fox", "goat", "hare", "ibis", "jay")
CLASS_NAMES = tuple(f"{adjective} {noun}" for adjective in _ADJECTIVES for noun in _NOUNS)


def write_sample(path: Path) -> None:
    """Write the sample at `path`, as Zarr or Parquet by its ending; one that is there is left alone."""
    if path.exists():
        return
    writers = {".zarr": _write_zarr, ".parquet": _write_parquet}
    storage.make_folder(path.parent)
    # Under another name until it is whole: a demo that is stopped leaves no half of a dump.
    with storage.writing(path) as unfinished:
        writers[path.suffix](unfinished)


def sample() -> tuple[NDArray[np.float32], NDArray[np.int64], list[str]]:
    """Logits (rows, classes), targets (rows,) with -1 for one in a hundred, and ids."""
    random = np.random.Generator(np.random.PCG64(_SEED))
    # Some classes are much more frequent than others, as everywhere.
    shares = 1 / np.arange(3, CLASSES + 3)
    targets = random.choice(CLASSES, ROWS, p=shares / shares.sum())
    noise = random.standard_normal((ROWS, CLASSES), dtype=np.float32).clip(-_EXACT, _EXACT)
    logits = noise * np.float32(_NOISE)
    logits[np.arange(ROWS), targets] += np.float32(_SIGNAL)
    targets[random.random(ROWS) < 0.01] = -1
    return logits, targets, [f"image-{row:06d}" for row in range(ROWS)]


def _write_zarr(path: Path) -> None:
    logits, targets, ids = sample()
    group = zarr.create_group(path, attributes={"class_names": list(CLASS_NAMES)})
    rows, both = (_ROWS_A_CHUNK,), (_ROWS_A_CHUNK, CLASSES)
    group.create_array("logits", data=logits, chunks=both, dimension_names=["row", "class"])
    group.create_array("target", data=targets, chunks=rows, dimension_names=["row"])
    texts = group.create_array("id", shape=(ROWS,), dtype=str, chunks=rows, dimension_names=["row"])
    texts[:] = np.array(ids, dtype=object)


def _write_parquet(path: Path) -> None:
    logits, targets, ids = sample()
    values = pa.array(logits.reshape(-1))
    table = pa.table(
        {
            "id": pa.array(ids),
            "target": pa.array(targets, mask=targets < 0),
            "logits": pa.FixedSizeListArray.from_arrays(values, CLASSES),
        }
    ).replace_schema_metadata({"class_names": json.dumps(CLASS_NAMES)})
    pq.write_table(table, path, row_group_size=_ROWS_A_CHUNK, use_dictionary=["id"], compression="zstd")
