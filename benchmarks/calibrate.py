"""The temperature of a dump, beside one run of `score` over it, and beside the recipe that people use in PyTorch.

of the time of score: `calibrate` of half of the rows, with its report on the others, over `score` with its default
columns of a dump with targets; 100 classes in float32, both with all cores, files in the page cache.
PyTorch: all rows as one tensor, `torch.optim.LBFGS` with 50 iterations at a rate of 0.01 as in temperature_scaling.py
of Guo et al., over `softmax_dask.calibrate` of the same array with every row in the fit; both as they use threads.

    python -m benchmarks.calibrate
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, ZstdCodec

from benchmarks import script
from benchmarks.figures import Figure
from benchmarks.logits import normal
from benchmarks.measure import Effort, Spread, in_turns, ratio
from softmax_dask import calibrate as calibrate_array
from softmax_dask_pipelines import calibrate, score

CLASSES, TEMPERATURE = 100, 1.7
_MOST_ROWS = 1_000_000
"""PyTorch takes 110 seconds of one core for these."""

TABLE = "calibrate"

_CODECS: dict[str, Any] = {
    "zstd": ZstdCodec(level=1),
    "lz4": BloscCodec(cname="lz4", shuffle="shuffle"),
    "none": None,
}


def figures(effort: Effort) -> Iterator[Figure]:
    """A row for each codec of the dump, and one for arrays in memory."""
    rows = min(_MOST_ROWS, max(1000, effort.dump_bytes // (CLASSES * 4)))
    logits, targets = labelled(rows)
    with tempfile.TemporaryDirectory() as folder:
        for codec in _CODECS:
            yield _beside_score(dump(Path(folder), codec, logits, targets), codec, effort)
            shutil.rmtree(Path(folder, codec))
    if script.installed("torch"):
        yield from _beside_torch(logits, targets, effort)


def labelled(rows: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits of an overconfident model, and targets as often right as they say once divided by `TEMPERATURE`."""
    logits = normal((rows, CLASSES), scale=4.0, seed=0)
    noise = np.random.default_rng(1)
    targets = np.empty(rows, np.int64)
    for start in range(0, rows, 10_000):
        part = logits[start : start + 10_000]
        targets[start : start + len(part)] = (part / TEMPERATURE + noise.gumbel(size=part.shape)).argmax(axis=1)
    return logits, targets


def dump(folder: Path, codec: str, logits: NDArray[np.float32], targets: NDArray[np.int64]) -> Path:
    """A Zarr group with chunks of 4 MB or less."""
    path = folder / codec
    group = zarr.create_group(path)
    chunk = max(1, min(10_000, len(logits) // 4))
    group.create_array("logits", data=logits, chunks=(chunk, CLASSES), compressors=_CODECS[codec])
    group.create_array("target", data=targets, chunks=(chunk,))
    return path


def _beside_score(source: Path, codec: str, effort: Effort) -> Figure:
    output, document = source.with_name("out.zarr"), source.with_name("calibration.json")
    runs: dict[str, Callable[[], object]] = {
        "calibrate": lambda: calibrate(source, document, replace=True),
        "score": lambda: score(source, output, replace=True),
    }
    seconds = in_turns(runs, effort)
    return Figure(TABLE, f"Zarr, {codec}", "of the time of score", ratio(seconds, "calibrate", "score"), "less")


def _beside_torch(logits: NDArray[np.float32], targets: NDArray[np.int64], effort: Effort) -> Iterator[Figure]:
    found: dict[str, float] = {}

    def ours() -> None:
        found["ours"] = calibrate_array(logits, targets, fit_on="all").temperature

    def torch() -> None:
        found["PyTorch"] = _by_lbfgs(logits, targets)

    seconds = in_turns({"ours": ours, "PyTorch": torch}, effort)
    row = f"{len(logits):,} x {CLASSES} in memory"
    yield Figure(TABLE, row, "times faster than PyTorch LBFGS", ratio(seconds, "PyTorch", "ours"), "more")
    off = abs(found["PyTorch"] / found["ours"] - 1)
    yield Figure(TABLE, row, "PyTorch's T is off by", Spread.exactly(off), "shown", unit="")


def _by_lbfgs(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> float:
    import torch

    x, y = torch.from_numpy(logits), torch.from_numpy(targets)
    temperature = torch.nn.Parameter(torch.ones(1) * 1.5)
    optimizer = torch.optim.LBFGS([temperature], lr=0.01, max_iter=50)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(x / temperature, y)
        loss.backward()
        return loss

    optimizer.step(closure)
    return float(temperature.detach())


if __name__ == "__main__":
    script.main(__doc__ or "", figures)
