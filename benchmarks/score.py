"""Whole runs, in one process that is warm: everything imported, kernels compiled, contenders in turns.

Dumps of 1000 classes and what becomes of them lie in memory (/dev/shm, where there is room), so no disk is measured:
`benchmarks.durability` does that, for ours waits until what it wrote is on disk, and the others do not. All use every
core, write Zarr arrays with the same codecs (zstd and a checksum) and are asked for the same columns. Peers take the
dump's chunks, one at a time a thread.

float16: of 32000 classes, lz4; peers widen it first. All else float32 of 1000 classes.
with probabilities: label, confidence, probabilities. A copy is our reader and writer with `np.copyto` for a kernel.
decisions: label and confidence; decode + kernel is our reader alone and our kernels alone, over one block in cache.
decode alone: our reader beside zarr-python's `array[start:stop]` in as many threads.

    python -m benchmarks.score
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from benchmarks import runs, script
from benchmarks.dumps import CODECS, DECODED, folder_in_memory, zarr_dump
from benchmarks.figures import Figure
from benchmarks.logits import exact_softmax, normal
from benchmarks.measure import Effort, Seconds, Spread, in_turns, ratio
from benchmarks.peers import peer, require_equal
from softmax_dask_pipelines import score
from softmax_dask_pipelines.machine import cores
from softmax_dask_pipelines.sinks.zarr_codecs import number_codecs

PEERS = {"Dask": "dask", "PyTorch": "torch", "xarray + SciPy": "xarray"}

_DUMPS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    *((codec, codec, {}) for codec in DECODED),
    ("lz4, float16", "lz4", {"classes": 32000, "dtype": "float16"}),
)
"""Row of the tables, codec, and what is not as usual."""

Runs = dict[str, Callable[[], object]]


def figures(effort: Effort) -> Iterator[Figure]:
    """All of them."""
    with folder_in_memory(effort.dump_bytes) as folder:
        for row, codec, kind in _DUMPS:
            source = zarr_dump(folder, codec, effort.dump_bytes, **kind)
            if row not in DECODED or codec in CODECS:
                yield from _with_probabilities(source, row, effort)
                yield from decisions_beside_others(source, "score decisions", row, effort)
            yield _decode(source, row, effort)
            shutil.rmtree(source)


def run(who: str, source: Path, output: Path, columns: Sequence[str]) -> None:
    """One run, of ours or of a peer's package."""
    if who == "ours":
        score(source, output, columns=columns)
    else:
        _peer_run(peer(who), zarr.open_array(source, mode="r"), output, columns)


def _with_probabilities(source: Path, codec: str, effort: Effort) -> Iterator[Figure]:
    output = source.with_name("out.zarr")
    more = {"copy": lambda: runs.copy(source, output)}
    seconds = _timed(source, output, runs.WIDE, more, effort)
    table = "score with probabilities"
    yield Figure(table, codec, "of the time of a copy", ratio(seconds, "ours", "copy"), "less")
    yield from _beside_peers(table, codec, seconds)


def decisions_beside_others(source: Path, table: str, row: str, effort: Effort) -> Iterator[Figure]:
    """Runs with label and confidence beside their parts and beside peers."""
    output = source.with_name("out.zarr")
    job = runs.job_of(source, output, runs.NARROW)
    block = normal((job.facts.read_rows, job.facts.classes), scale=4.0).astype(job.facts.dtype)
    more = {"decode": lambda: runs.decode(job), "kernel": lambda: runs.compute(job, block)}
    seconds = _timed(source, output, runs.NARROW, more, effort)
    parts = [decode + kernel for decode, kernel in zip(seconds["decode"], seconds["kernel"], strict=True)]
    share = ratio({**seconds, "parts": parts}, "ours", "parts")
    yield Figure(table, row, "of decode + kernel", share, "less")
    yield from _beside_peers(table, row, seconds)


def _decode(source: Path, codec: str, effort: Effort) -> Figure:
    array = zarr.open_array(source, mode="r")
    job = runs.job_of(source, source.with_name("out.zarr"), runs.NARROW)
    given = {"ours": lambda: runs.decode(job), "zarr": lambda: runs.decode_with_zarr(array, job)}
    return Figure(
        "decode alone", codec, "of the time of zarr's", ratio(in_turns(given, effort), "ours", "zarr"), "less"
    )


def _timed(source: Path, output: Path, columns: Sequence[str], more: Runs, effort: Effort) -> Seconds:
    """Seconds of ours, of peers and of what else is given, once ours and the peers' results are right."""
    array = zarr.open_array(source, mode="r")
    modules = {name: module for name, package in PEERS.items() if (module := peer(package))}
    given: Runs = {"ours": lambda: score(source, output, columns=columns)}
    given |= {name: partial(_peer_run, module, array, output, columns) for name, module in modules.items()}
    for who, run in given.items():
        runs.remove(output)
        run()
        _require_right(array, output, columns, who)
    return in_turns(given | more, effort, before=lambda: runs.remove(output))


def _beside_peers(table: str, codec: str, seconds: Seconds) -> Iterator[Figure]:
    for name in PEERS:
        if name in seconds:
            yield Figure(table, codec, f"faster than {name}", ratio(seconds, name, "ours"), "more")
    yield Figure(table, codec, "seconds", Spread.of(seconds["ours"]), "shown", "")


def _peer_run(module: Any, array: "zarr.Array[Any]", output: Path, columns: Sequence[str]) -> None:
    rows, out = array.chunks[0], {}
    for name in columns:
        tail = array.shape[1:] if name == "probabilities" else ()
        dtype = np.dtype("int32" if name == "label" else "float32")
        shape = (array.shape[0], *tail)
        out[name] = zarr.create_array(
            output / name, shape=shape, chunks=(rows, *tail), dtype=dtype, **number_codecs(dtype, len(shape))
        )
    module.score(array, out, rows=rows, threads=cores())


def _require_right(array: "zarr.Array[Any]", output: Path, columns: Sequence[str], who: str) -> None:
    rows = slice(array.shape[0] - 10, None)
    exact = exact_softmax(np.asarray(array[rows]))
    wanted = {"label": exact.argmax(axis=1), "confidence": exact.max(axis=1), "probabilities": exact}
    for name in columns:
        require_equal(np.asarray(zarr.open_array(output / name, mode="r")[rows]), wanted[name], who=who)


if __name__ == "__main__":
    script.main(__doc__, figures)
