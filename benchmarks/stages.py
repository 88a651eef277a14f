"""Where the time of a run goes: each stage alone, on one thread, as GB of logits a CPU second. See docs/performance.md.

read: the chunk files into memory that is used again. decode: our reader, reading included. decisions, probabilities:
the kernels of a run over one block in the cache. encode: probabilities as Zarr chunks are stored (blosc, crc32c);
checksum: crc32c of what is encoded, a part of encoding. write: encoded chunks into files. On the disk: the same, each
synced before the next, as GB of logits a second of wall-clock time; the disk is that of the working directory.
A run: all of it, on every core, in wall-clock time; cores: CPU seconds a second of it.

    python -m benchmarks.stages --size 256
"""

import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter, thread_time

import google_crc32c
import numpy as np

from benchmarks import runs, script
from benchmarks.dumps import CODECS, PARQUET_CODECS, parquet_dump, zarr_dump
from benchmarks.figures import Figure
from benchmarks.measure import Effort, Spread
from softmax_dask import decisions, softmax
from softmax_dask_pipelines import score, storage
from softmax_dask_pipelines.job import Job
from softmax_dask_pipelines.sinks.zarr_codecs import encode_numbers

TABLE, WHOLE = "one thread", "a run"


def figures(effort: Effort) -> Iterator[Figure]:
    """A row for each dump."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        dumps = [(f"Zarr, {codec}", partial(zarr_dump, codec=codec)) for codec in (*CODECS, "sharded lz4")]
        dumps.append(("Zarr, lz4, float16", partial(zarr_dump, codec="lz4", classes=32000, dtype="float16")))
        dumps += [(f"Parquet, {codec}", partial(parquet_dump, codec=codec)) for codec in PARQUET_CODECS]
        for row, make in dumps:
            source = make(Path(folder), size_bytes=effort.dump_bytes)
            yield from _alone(row, source, effort)
            yield from _whole(row, source, effort)
            _remove(source)


def _alone(row: str, source: Path, effort: Effort) -> Iterator[Figure]:
    output = source.with_name("stages")
    output.mkdir()
    for name, (run, size) in _stages(runs.job_of(source, output / "out.zarr", runs.WIDE), source, output).items():
        clock = perf_counter if name == _SYNCED else thread_time
        rates = [size / each / 1e9 for each in _seconds(run, clock, effort)]
        yield Figure(TABLE, row, name, Spread.of(rates), "shown", "GB/s")
    _remove(output)


def _seconds(run: Callable[[], object], clock: Callable[[], float], effort: Effort) -> list[float]:
    """By this clock, of so many calls after a first one; of a thread's own time other processes take nothing."""
    taken: list[float] = []
    run()
    begin = perf_counter()
    while len(taken) < effort.turns or (perf_counter() - begin < effort.seconds and len(taken) < 4 * effort.turns):
        before = clock()
        run()
        taken.append(clock() - before)
    return taken


def _stages(job: Job, source: Path, output: Path) -> dict[str, tuple[Callable[[], object], int]]:
    """What each stage does, and of how many bytes of logits."""
    block = next(iter(job.source.read(0, job.facts.read_rows))).logits
    probabilities = np.asarray(softmax(block, dtype="float32"))
    encoded = encode_numbers(probabilities)
    out = {name: np.empty(len(block), "int32" if name == "label" else "float32") for name in _NARROW}
    wide = {**out, "probabilities": np.empty_like(probabilities)}
    durable = {False: "write", True: _SYNCED}
    return {
        "read": (partial(_read, _files(source)), job.plan.bytes_in),
        "decode": (partial(_decode, job), job.plan.bytes_in),
        "decisions": (partial(decisions, block, tuple(out), out=out), block.nbytes),
        "probabilities": (partial(decisions, block, tuple(wide), out=wide), block.nbytes),
        "encode": (partial(encode_numbers, probabilities), block.nbytes),
        "checksum": (partial(google_crc32c.value, encoded[0]), block.nbytes),
        **{
            name: (partial(storage.put, output / "chunk", encoded, durable=is_durable), block.nbytes)
            for is_durable, name in durable.items()
        },
    }


_SYNCED = "on the disk"
_NARROW = ("label", "confidence", "entropy")
"""What a run computes of every row, be it asked for or not: the summary counts them."""


def _files(source: Path) -> list[Path]:
    found = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
    return sorted(path for path in found if path.suffix != ".json")


def _read(files: list[Path]) -> None:
    memory = np.empty(max(path.stat().st_size for path in files), np.uint8)
    for path in files:
        with open(path, "rb", buffering=0) as file:
            file.readinto(memory.data)


def _decode(job: Job) -> None:
    for _ in job.source.read(0, job.facts.rows):
        pass


def _whole(row: str, source: Path, effort: Effort) -> Iterator[Figure]:
    output = source.with_name("out.zarr")
    for what, columns in (("decisions", runs.NARROW), ("with probabilities", runs.WIDE)):
        rates, cores = [], []
        for turn in range(effort.turns + 1):
            _remove(output, output.with_name("out.zarr.job"))
            before, begin = _cpu_s(), perf_counter()
            result = score(source, output, columns=columns)
            elapsed = perf_counter() - begin
            if turn:
                rates.append(result.bytes_in / elapsed / 1e9)
                cores.append((_cpu_s() - before) / elapsed)
        yield Figure(WHOLE, row, what, Spread.of(rates), "shown", "GB/s")
        yield Figure(WHOLE, row, f"cores, {what}", Spread.of(cores), "shown", "")
    _remove(output, output.with_name("out.zarr.job"))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    script.main(__doc__, figures)
