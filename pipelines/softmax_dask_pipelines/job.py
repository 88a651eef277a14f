"""A run that is ready to begin: the config checked against its source, and cut. Nothing is written."""

import os
import shutil
import warnings
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from softmax_dask import COLUMNS, SingleClassWarning, TopKWarning, float_dtype, result_dtype
from softmax_dask_pipelines import machine
from softmax_dask_pipelines.config import ScoreConfig, output_format_of, read_class_names
from softmax_dask_pipelines.errors import ConfigError, DiskFullError, PathConflictError
from softmax_dask_pipelines.plan import Plan, Sizes, make_plan
from softmax_dask_pipelines.sinks import OutputSpec, job_folder, require_own_id_name
from softmax_dask_pipelines.sources import Source, SourceFacts, SourceRequest, open_source
from softmax_dask_pipelines.sources.formats import ZARR_FILES
from softmax_dask_pipelines.sources.parquet_paths import source_files

_ID_BYTES = 64
"""Of an id of unknown length, in memory and encoded."""
_TARGET_BYTES = 8

_LONGEST_NAME = 255
"""Bytes of a file's name, on every common file system."""

_DEFAULT_COLUMNS = ("label", "label_name", "confidence", "nll", "correct")
"""Those of them that can be known."""
_TOP_K_COLUMNS = ("top_k_labels", "top_k_probabilities")
_REMEDIES = {
    "targets": "Name the target (--target NAME)",
    "class_names": "Give --classes FILE",
    "top_k": "Give --top-k K",
}


_BEST_COMPRESSION = 1 / 50
"""Results are never written smaller than this: labels that hardly change, say."""


class RoomWarning(UserWarning):
    """The output may not fit its disk."""


@dataclass(frozen=True, slots=True)
class Job:
    """A run that is ready to begin: everything is checked, nothing is written."""

    config: ScoreConfig
    source: Source
    spec: OutputSpec
    plan: Plan

    @property
    def facts(self) -> SourceFacts:
        """What is known of the source."""
        return self.source.facts


def prepare(config: ScoreConfig) -> Job:
    """Check everything that can be checked before anything is written, and cut the run."""
    output = _output_path(config)
    _require_apart(config.source.path, output, config.source.classes)
    _require_folder_above(output)
    source = open_source(source_request(config))
    _require_apart_from_files(source.facts, output)
    _warn_of_one_class(source.facts)
    columns = _columns(config, source.facts)
    top_k = _top_k(config, source.facts, columns)
    plan = make_plan(
        _sizes(config, source.facts, columns, top_k),
        threads=config.threads or machine.cores(),
        memory_limit_bytes=config.memory_limit or machine.free_memory_bytes() // 2,
    )
    spec = _output_spec(config, source.facts, columns, top_k, plan)
    require_own_id_name(spec)
    _require_room(spec.path, plan)
    return Job(config, source, spec, plan)


def source_request(config: ScoreConfig) -> SourceRequest:
    """What the config says of its source."""
    given = config.source
    return SourceRequest(
        path=given.path,
        format=given.format,
        array=given.array,
        column=given.column,
        column_prefix=given.column_prefix,
        dtype=given.dtype,
        id=given.id,
        target=given.target,
        class_names=None if given.classes is None else read_class_names(given.classes),
        class_axis=given.class_axis,
        missing_chunks=given.missing_chunks,
        nulls=given.nulls,
        link=given.link,
    )


def _columns(config: ScoreConfig, facts: SourceFacts) -> tuple[str, ...]:
    """The columns asked for, or those that can be known; each must have what it needs."""
    there = {
        "nothing": True,
        "class_names": facts.class_names is not None,
        "targets": facts.target_name is not None,
        "top_k": config.top_k is not None,
    }
    chosen = config.columns or tuple(name for name in _DEFAULT_COLUMNS if there[COLUMNS[name].needs])
    if config.top_k is not None and not set(_TOP_K_COLUMNS) & set(chosen):
        chosen += _TOP_K_COLUMNS
    for name in chosen:
        need = COLUMNS[name].needs
        if not there[need]:
            raise ConfigError(
                f"columns: {name!r} needs {need.replace('_', ' ')}, and none are given or found in {facts.path}. "
                f"{_REMEDIES[need]}, or leave it out."
            )
        if chosen.count(name) > 1:
            raise ConfigError(f"columns: {name!r} stands twice; expected each name once.")
    return chosen


def _top_k(config: ScoreConfig, facts: SourceFacts, columns: tuple[str, ...]) -> int:
    """As many classes as were asked for, or as there are."""
    if config.top_k is None or not set(_TOP_K_COLUMNS) & set(columns):
        return 0
    if config.top_k > facts.classes:
        text = f"top_k is {config.top_k}, but there are {facts.classes} classes; all are given."
        warnings.warn(text, TopKWarning, stacklevel=4)
    return min(config.top_k, facts.classes)


def _output_spec(
    config: ScoreConfig, facts: SourceFacts, columns: tuple[str, ...], top_k: int, plan: Plan
) -> OutputSpec:
    return OutputSpec(
        path=str(_output_path(config)),
        format=config.output.format or output_format_of(config.output.path),
        rows=facts.rows,
        classes=facts.classes,
        partition_rows=plan.partition_rows,
        chunk_rows=plan.chunk_rows,
        columns=columns,
        float_dtype=float_dtype(facts.dtype),
        wide_dtype=result_dtype(facts.dtype, config.output.dtype),
        top_k=top_k,
        class_names=facts.class_names,
        # Of `meta/id` the last part: a name is ours to make, and must be one folder or column.
        id_name=None if facts.id_name is None else facts.id_name.rpartition("/")[2],
        id_type=facts.id_type,
        has_targets=facts.target_name is not None,
        # Only what the plan determines: two runs of one plan give the same bytes.
        attributes={
            "source": config.source.path,
            "logits": facts.name,
            "classes": facts.classes,
            "temperature": config.temperature,
        },
    )


def _sizes(config: ScoreConfig, facts: SourceFacts, columns: tuple[str, ...], top_k: int) -> Sizes:
    floats, wide = float_dtype(facts.dtype), result_dtype(facts.dtype, config.output.dtype)
    itemsizes = {"float": floats.itemsize, "string": _ID_BYTES, "wide": wide.itemsize}
    chosen = [COLUMNS[name] for name in columns]
    narrow = sum(
        prod(c.tail(facts.classes, top_k)) * (itemsizes.get(c.kind) or np.dtype(c.kind).itemsize)
        for c in chosen
        if c.per != "class"
    )
    carried = (_ID_BYTES if facts.id_name else 0) + (_TARGET_BYTES if facts.target_name else 0)
    of_classes = [facts.classes * wide.itemsize for c in chosen if c.per == "class"]
    return Sizes(
        rows=facts.rows,
        classes=facts.classes,
        read_rows=facts.read_rows,
        boundary_rows=facts.boundary_rows,
        read_overhead_bytes=facts.read_overhead_bytes,
        row_bytes=facts.classes * facts.dtype.itemsize,
        wide_bytes=sum(of_classes),
        widest_bytes=max(of_classes, default=0),
        narrow_bytes=narrow + carried,
    )


def _output_path(config: ScoreConfig) -> Path:
    """Where the output goes: behind a symbolic link, so that replacing it does not replace the link."""
    path = Path(config.output.path)
    resolved = path.resolve() if path.is_symlink() and path.exists() else path
    if len(os.fsencode(job_folder(resolved).name)) > _LONGEST_NAME:
        raise ConfigError(f"{path}: has a name that is too long; expected at most {_LONGEST_NAME - 4} bytes.")
    return resolved


def _require_apart(source: str, output: Path, classes: str | None) -> None:
    """Refuse an output that is the input, lies in it or around it, by any spelling of the path."""
    here, there = Path(source.removeprefix("file://")).resolve(), output.resolve()
    if here == there:
        raise PathConflictError(f"{output}: is the source itself; expected another path for the output.")
    if here in there.parents:
        raise PathConflictError(f"{output}: lies inside the source {source}; expected a path outside of it.")
    if there in here.parents:
        raise PathConflictError(f"{output}: holds the source {source}; expected a path that does not contain it.")
    _require_own_place(here, there, output, classes)


def _require_own_place(here: Path, there: Path, output: Path, classes: str | None) -> None:
    """Refuse an output in someone's Zarr store, over the class names, or whose job folder holds the source."""
    store = next((folder for folder in there.parents if any((folder / name).exists() for name in ZARR_FILES)), None)
    if store is not None:
        raise PathConflictError(f"{output}: lies inside the Zarr store {store}; expected a path outside of it.")
    names = None if classes is None else Path(classes).resolve()
    if names is not None and (names == there or there in names.parents):
        raise PathConflictError(f"{output}: holds the class names {classes}; expected another path for the output.")
    job = job_folder(there)
    if job == here or job in here.parents:
        raise PathConflictError(f"{output}: works in {job}, where the source is; expected another path.")


def _require_apart_from_files(facts: SourceFacts, output: Path) -> None:
    """Refuse an output that is one of the files which a pattern or a folder of links stands for."""
    if facts.format != "parquet":
        return
    there = output.resolve()
    files = [Path(file).resolve() for file in source_files(Path(facts.path))]
    if any(there == file or there in file.parents for file in files):
        raise PathConflictError(f"{output}: is part of the source {facts.path}; expected another path for the output.")


def _require_folder_above(output: Path) -> None:
    above = next(folder for folder in output.absolute().parents if os.path.lexists(folder))
    if not above.is_dir():
        raise ConfigError(
            f"{output}: cannot be made, because {above} is a file; expected a folder. Choose another path."
        )


def _require_room(output: str, plan: Plan) -> None:
    """Refuse what cannot fit the disk however well it is compressed, and warn of what may not fit."""
    folder = next(above for above in Path(output).absolute().parents if above.exists())
    free = shutil.disk_usage(folder).free
    if plan.bytes_out * _BEST_COMPRESSION > free:
        raise DiskFullError(
            f"{output}: needs up to {plan.bytes_out:,} bytes, and {folder} has {free:,} left; expected more room. "
            "Free some, ask for fewer columns or --dtype float16, and run the same command again."
        )
    if plan.bytes_out > 0.8 * free:
        text = f"{output}: may need {plan.bytes_out:,} bytes before compression, and {folder} has {free:,} left."
        warnings.warn(text, RoomWarning, stacklevel=4)


def _warn_of_one_class(facts: SourceFacts) -> None:
    if facts.classes == 1:
        warnings.warn(
            f"{facts.path}: has one class, so every probability is 1. Did you mean a sigmoid?",
            SingleClassWarning,
            stacklevel=3,
        )
