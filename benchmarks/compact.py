"""A dump of a language model's size, 50,000 classes in float16, reduced to the 64 most probable classes of each row.

The logits are hidden states times an embedding, plus the log of the classes' frequencies: most probable classes hold a
quarter of a row on average, the 64 largest two thirds, so labels and logits are as hard to compress as a model's.
times smaller: the bytes of the dump as it is stored, and of its logits as they are in memory, over those of the output.
of the time of reading: our reader alone, with the same partitions and threads, in the same process; with the dump in
the page cache, and "from the disk" without, which is how a large dump is found. The working directory should be on one.

    python -m benchmarks.compact
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, ZstdCodec

from benchmarks import runs, script
from benchmarks.dumps import forget
from benchmarks.figures import Figure
from benchmarks.measure import Effort, Spread, in_turns, ratio
from softmax_dask_pipelines import compact, score
from softmax_dask_pipelines.config import ScoreConfig
from softmax_dask_pipelines.job import prepare

CLASSES, K = 50_000, 64
CHUNK_ROWS = 40
TABLE = "smaller dumps"

_CODECS: dict[str, Any] = {
    "zstd": ZstdCodec(level=1),
    "lz4": BloscCodec(cname="lz4", shuffle="shuffle"),
    "none": None,
}
_HIDDEN = 64


def figures(effort: Effort) -> Iterator[Figure]:
    """A row for each codec of the dump, and for each format of the output."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        for codec in _CODECS:
            source = dump(Path(folder), codec, _bytes_of(effort))
            yield from _speed(source, codec, effort)
            if codec == "zstd":
                yield from _sizes(source)
            shutil.rmtree(source)


def _bytes_of(effort: Effort) -> int:
    """What a run takes whatever its size, a tenth of a second, is small beside the time of reading these."""
    return min(10 * effort.dump_bytes, max(effort.dump_bytes, 512 << 20))


def dump(folder: Path, codec: str, size_bytes: int) -> Path:
    """A Zarr array of about so many bytes of logits in float16."""
    path, rows = folder / f"{codec}.zarr", min(CHUNK_ROWS, max(1, size_bytes // (4 * 2 * CLASSES)))
    count = max(4, size_bytes // (rows * 2 * CLASSES))
    random = np.random.default_rng(0)
    embedding = random.normal(size=(_HIDDEN, CLASSES)).astype(np.float32)
    frequency = random.permutation(-np.log(np.arange(1, CLASSES + 1, dtype=np.float32)))
    array = zarr.create_array(
        path,
        shape=(count * rows, CLASSES),
        chunks=(rows, CLASSES),
        dtype="float16",
        compressors=_CODECS[codec],
    )
    for number in range(count):
        array[number * rows : (number + 1) * rows] = _logits(random, rows, embedding, frequency)
    return path


def _logits(
    random: np.random.Generator, rows: int, embedding: NDArray[np.float32], frequency: NDArray[np.float32]
) -> NDArray[np.float16]:
    sharpness = random.gamma(4, 0.1, size=(rows, 1))
    hidden = (random.normal(size=(rows, _HIDDEN)) * sharpness).astype(np.float32)
    found: NDArray[np.float16] = (hidden @ embedding + frequency).astype(np.float16)
    return found


def _speed(source: Path, codec: str, effort: Effort) -> Iterator[Figure]:
    output = source.with_name("out.zarr")
    asked: dict[str, Any] = {"verb": "compact", "source": {"path": str(source)}, "output": {"path": str(output)}}
    job = prepare(ScoreConfig(**asked))
    given = {
        "compact": lambda: compact(source, output, k=K),
        "score": lambda: score(source, output),
        "read": lambda: runs.decode(job),
    }
    seconds = in_turns(given, effort, before=lambda: runs.remove(output))
    both = {who: given[who] for who in ("compact", "read")}
    of_disk = in_turns(both, effort, before=lambda: (runs.remove(output), forget(source)))
    yield Figure(TABLE, codec, "of the time of reading", ratio(seconds, "compact", "read"), "less")
    yield Figure(TABLE, codec, "from the disk, of it", ratio(of_disk, "compact", "read"), "less")
    yield Figure(TABLE, codec, "of the time of score", ratio(seconds, "compact", "score"), "less")
    rates = [job.plan.bytes_in / second / 1e9 for second in seconds["compact"]]
    yield Figure(TABLE, codec, "GB/s of logits", Spread.of(rates), "shown", "")


def _sizes(source: Path) -> Iterator[Figure]:
    stored, logits = _bytes_in(source), zarr.open_array(source, mode="r").nbytes
    for ending in ("zarr", "parquet"):
        output = source.with_name(f"out.{ending}")
        runs.remove(output)
        compact(source, output, k=K)
        written = _bytes_in(output)
        yield Figure(TABLE, f"to {ending}", "times smaller than the dump", Spread.exactly(stored / written), "more")
        yield Figure(TABLE, f"to {ending}", "than its logits", Spread.exactly(logits / written), "more")


def _bytes_in(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


if __name__ == "__main__":
    script.main(__doc__, figures)
