"""On a GPU: are the kernels right there, and how fast? Within ten minutes; writes `gpu_results.md` and `.json`.

python -m benchmarks.gpu [--budget SECONDS] [--folder FOLDER] [--dry-run]

Rates are bytes that must move (logits in, results out) a second, beside what the same run measured of the card:
probabilities as a fraction of a device-to-device copy, decisions as a fraction of reading. `--dry-run` needs no GPU: it
says what would be measured, and with which kernels.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import ml_dtypes
import numpy as np

from benchmarks.gpu_report import text_of
from benchmarks.report import FOLDER
from softmax_dask.kernels.cuda.variants import Work, place_of, row_kernel

CLASSES = (10, 100, 256, 1000, 2048, 4096, 16384, 32768, 50257, 128256, 262144)
DTYPES = tuple(map(np.dtype, (np.float32, np.float16, ml_dtypes.bfloat16, np.float64)))
CHECKED = (1, 3, 10, 64, 100, 257, 1000, 1001, 2048, 4097, 16384, 50257)
DECISIONS = {
    "label+confidence": ("label", "confidence"),
    "all": ("label", "confidence", "margin", "entropy", "logsumexp"),
}
LOGIT_BYTES = 1 << 30
"""Far more than a GPU's cache holds."""
REPEATS, WARM_UP = 15, 3


@dataclass(frozen=True, slots=True)
class Rate:
    """One thing measured."""

    what: str
    classes: int
    dtype: str
    gigabytes_per_s: float
    of_ceiling: float
    """Of the copy, or for decisions of reading."""
    target: float | None
    """What of it is asked for."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=540, help="seconds; what does not fit is left out, and listed")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the results go")
    parser.add_argument("--dry-run", action="store_true", help="needs no GPU")
    arguments = parser.parse_args()
    if arguments.dry_run:
        print("\n".join(planned()))
        return
    from benchmarks.peers.on_gpu import Gpu  # CuPy, and the peers that are installed

    results = measured(Gpu(), perf_counter() + arguments.budget)
    (arguments.folder / "gpu_results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (arguments.folder / "gpu_results.md").write_text(text_of(results), encoding="utf-8")
    print(text_of(results))


def planned() -> Iterator[str]:
    """What would be measured, and the kernels of it."""
    yield f"correctness: {len(CHECKED) * len(DTYPES)} cases beside float64 on the GPU"
    for classes, dtype in cases():
        names = [row_kernel(classes, dtype, w, k).name for w, k in ((dtype, Work(0)), (None, Work.DECIDE))]
        yield f"{classes} classes, {rows_of(classes, dtype)} rows of {dtype}: {', '.join(names)}"
    yield "streaming: 1 GiB of float16 logits from the host, beside a copy to the device"


def cases() -> Iterator[tuple[int, np.dtype[Any]]]:
    """In the order of how much they tell, should the time not be enough."""
    yield from ((classes, dtype) for dtype in DTYPES for classes in CLASSES)


def rows_of(classes: int, dtype: np.dtype[Any]) -> int:
    return max(1, LOGIT_BYTES // (classes * dtype.itemsize))


def measured(gpu: Any, until: float) -> dict[str, Any]:
    """All steps; of what does not fit the time, the names."""
    wrong = gpu.wrong_results(CHECKED, DTYPES)
    copy, read = gpu.copy_rate(LOGIT_BYTES, REPEATS), gpu.read_rate(LOGIT_BYTES, REPEATS)
    rates: list[Rate] = []
    left_out = []
    for classes, dtype in cases():
        if perf_counter() > until:
            left_out.append(f"{classes} classes of {dtype}")
            continue
        rates += rates_of(gpu, classes, dtype, copy, read)
        gpu.free()
    streams = gpu.stream_rates(LOGIT_BYTES) if perf_counter() < until else {}
    return {
        "card": gpu.card,
        "versions": gpu.versions,
        "wrong": wrong,
        "copy_gigabytes_per_s": copy,
        "read_gigabytes_per_s": read,
        "rates": [asdict(rate) for rate in rates],
        "streaming_gigabytes_per_s": streams,
        "left_out": left_out,
    }


def rates_of(gpu: Any, classes: int, dtype: np.dtype[Any], copy: float, read: float) -> Iterator[Rate]:
    """Ours and the peers', of one kind of rows."""
    logits = gpu.random((rows_of(classes, dtype), classes), dtype)
    jobs: dict[str, tuple[Callable[[], Any], int]] = gpu.softmaxes(logits)
    for name, columns in DECISIONS.items():
        jobs[f"decisions, {name}"] = gpu.decisions(logits, columns)
    for name, (run, moved) in jobs.items():
        rate = moved / gpu.seconds(run, REPEATS, WARM_UP) / 1e9
        ceiling = read if name.startswith("decisions") else copy
        yield Rate(name, classes, str(dtype), rate, rate / ceiling, target_of(name, classes, dtype))


def target_of(name: str, classes: int, dtype: np.dtype[Any]) -> float | None:
    """What is asked of ours; nothing of float64 and of peers."""
    if dtype.itemsize == 8 or not name.startswith(("softmax-dask", "decisions")):
        return None
    if name.startswith("decisions"):
        return 0.7 if classes <= 10 else 0.8 if classes <= 256 else 0.9 if dtype.itemsize == 4 else 0.85
    if place_of(classes, dtype).kind == "stream":
        return 0.64  # rows that registers do not hold are read twice
    few, some, many, more = (0.8, 0.88, 0.93, 0.95) if dtype.itemsize == 4 else (0.7, 0.8, 0.92, 0.95)
    return few if classes <= 10 else some if classes <= 256 else many if classes <= 2048 else more


if __name__ == "__main__":
    main()
