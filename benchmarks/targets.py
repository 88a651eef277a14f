"""What must be reached: a limit for a figure, by its name. Some limits hang on the instruction set.

A figure that another package sets the pace of differs between instruction sets, because that package does:
where a limit is known for one set only, it is shown for the others and says so.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.figures import Figure

AVX512, AVX2 = "AVX-512", "AVX2"


@dataclass(frozen=True, slots=True)
class Target:
    """A limit: at least, or at most, as the figure says what is better."""

    name: str
    """Of the figure."""
    limits: Mapping[str, float]
    """By instruction set; "" is any."""
    of_large_dumps: bool = False
    """Whether it is asked of dumps as large as those of the full effort: of less, the beginning of a run is most."""

    def limit(self, instruction_set: str) -> float:
        """That of this instruction set; where there is none, that of AVX-512."""
        return next(self.limits[key] for key in (instruction_set, "", AVX512) if key in self.limits)

    def is_for(self, instruction_set: str) -> bool:
        """Whether a limit was set for this instruction set."""
        return bool({instruction_set, ""} & set(self.limits))


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target beside what was measured; `figure` is None where it was not."""

    target: Target
    limit: float
    figure: Figure | None
    is_small: bool = False
    """Whether what was measured is smaller than what is asked, so that it says nothing."""

    @property
    def margin(self) -> float:
        """How many times better than asked; below 1 is not met, and 0 not measured."""
        if self.figure is None:
            return 0.0
        found = self.figure.spread.middle
        return found / self.limit if self.figure.better == "more" else self.limit / max(found, 1e-12)


def verdicts(figures: Sequence[Figure], instruction_set: str, *, small: Collection[str] = ()) -> list[Verdict]:
    """All targets, the worst first; those that say nothing, and those that were not measured, come last.

    `small` are names of figures that were not measured with the full effort.
    """
    found = {figure.name: figure for figure in figures}
    judged = [
        Verdict(
            target,
            target.limit(instruction_set),
            found.get(target.name),
            is_small=target.of_large_dumps and target.name in small,
        )
        for target in TARGETS
    ]
    return sorted(judged, key=lambda verdict: (verdict.figure is None, verdict.is_small, verdict.margin))


def _by_classes(table: str, column: str, **limits: tuple[float, ...]) -> Iterator[Target]:
    """A limit for each number of classes; `avx512` and `avx2` hold them in the same order."""
    for number, classes in enumerate((2, 10, 16, 100, 1000, 32000)):
        known = {AVX512: limits["avx512"][number], AVX2: limits["avx2"][number]}
        yield Target(f"{table} | {classes} classes | {column}", known)


def _always(name: str, limit: float) -> Target:
    return Target(name, {"": limit})


def _of_runs(name: str, limit: float) -> Target:
    return Target(name, {"": limit}, of_large_dumps=True)


def _scoring() -> Iterator[Target]:
    """Limits of the run path: codec, then beside what."""
    for codec, wide_copy in (("lz4", 1.1), ("zstd", 1.1), ("none", 1.2), ("lz4, float16", 1.1)):
        yield _of_runs(f"score with probabilities | {codec} | of the time of a copy", wide_copy)
        yield _of_runs(f"score decisions | {codec} | of decode + kernel", 1.1)
        yield _of_runs(f"score with probabilities | {codec} | faster than Dask", 2.0)
        yield _of_runs(f"score decisions | {codec} | faster than Dask", 3.0 if codec == "zstd" else 8.0)
        yield _of_runs(f"score with probabilities | {codec} | faster than PyTorch", 1.1)
        yield _of_runs(f"score decisions | {codec} | faster than PyTorch", 4.0)
        yield _of_runs(f"score with probabilities | {codec} | faster than xarray + SciPy", 1.1)
        yield _of_runs(f"score decisions | {codec} | faster than xarray + SciPy", 4.0)
    for codec in ("lz4", "zstd", "none", "defaults", "byte stream split"):
        yield _of_runs(f"score Parquet, decisions | {codec} | faster than DuckDB", 3.0)
        yield _always(f"scan Parquet | {codec} | faster than DuckDB", 1.0)
        yield _always(f"scan Parquet | {codec} | faster than Polars", 1.0)
    for codec, decode in (
        ("lz4", 0.5),
        ("none", 0.5),
        ("zstd", 0.65),
        ("sharded lz4", 1.0),
        ("lz4, float16", 0.5),
    ):
        yield _always(f"decode alone | {codec} | of the time of zarr's", decode)


TARGETS = (
    *(_always(f"evaluate | {classes} classes | of the time of score", 1.2) for classes in (10, 100, 1000)),
    *(_of_runs(f"calibrate | Zarr, {codec} | of the time of score", 3.5) for codec in ("zstd", "lz4", "none")),
    _of_runs("calibrate | 1,000,000 x 100 in memory | times faster than PyTorch LBFGS", 5.0),
    *_by_classes("softmax", "faster than torch", avx512=(8, 15, 2, 1.8, 1.7, 1.4), avx2=(5, 2, 1.4, 1.2, 1.6, 1.6)),
    *_by_classes("decisions", "faster than torch", avx512=(12, 20, 8, 8, 8, 10), avx2=(8, 5, 5, 4, 5, 5)),
    _always("decisions | 32000 classes | of the rate of max", 0.6),
    _always("softmax | 1000 classes | of the rate of copyto", 0.7),
    _always("softmax | 32000 classes | of the rate of copyto", 0.7),
    _always("decisions | 1000 classes | all columns, of the time", 1.15),
    _always("two threads | softmax | of what one computes", 1.7),
    _always("two threads | decisions | of what one computes", 1.7),
    _always("start-up | the first softmax | of the time of a function from Numba's cache", 1.05),
    _always("in cache | 1000 classes | faster than torch", 2.0),
    _always("in cache | 32000 classes | faster than torch", 2.0),
    *(
        _always(f"dtypes | {classes} classes | {dtype} {what}", limit)
        for dtype, what, limit in (
            ("float16", "softmax", 0.95),
            ("bfloat16", "softmax", 0.95),
            ("float16", "decisions", 0.85),
            ("bfloat16", "decisions", 0.85),
            ("float64", "softmax", 0.38),
            ("float64", "decisions", 0.38),
        )
        for classes in (10, 1000)
    ),
    _always("top_k | k = 5 of 1000 | of the time of decisions", 2.0),
    _always("top_k | k = 64 of 50000 | faster than torch", 4.0),
    _always("axis 1 of (N, C, H, W) | 20 classes | of the contiguous rate", 0.5),
    _always("axis 1 of (N, C, H, W) | 150 classes | of the contiguous rate", 0.5),
    *(_always(f"jacobian | {classes} classes | of the rate of copyto", 0.8) for classes in (10, 100, 1000)),
    _always("largest relative error | worst, float32 | softmax-dask", 4.8e-7),
    _always("largest relative error | worst, float64, in eps | softmax-dask", 8.0),
    *_scoring(),
    _of_runs("memory a run adds | decisions | of what Dask adds", 0.4),
    _of_runs("memory a run adds | decisions | of threads x (3 blocks + encoded) + 32 MiB", 1.0),
    _of_runs("memory a run adds | with probabilities | of what Dask adds", 0.4),
    _of_runs("memory a run adds | with probabilities | of threads x (3 blocks + encoded) + 32 MiB", 1.0),
    _always("partitions | that do nothing, threads | each", 0.3),
    _always("partitions | that do nothing, processes | each", 0.3),
    _always("partitions | planning 10^6 | seconds", 20.0),
    _always("partitions | planning 10^6 | memory beyond 10^5", 64.0),
    _always("partitions | running 10^6, threads | memory beyond 10^5", 64.0),
    _always("partitions | running 10^6, processes | memory beyond 10^5", 64.0),
)
