"""A run that is ready to begin: the config checked against its source, and cut. Nothing is written."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from softmax_dask import COLUMNS, SingleClassWarning, TopKWarning, confidence_edges, float_dtype, result_dtype
from softmax_dask_pipelines import machine
from softmax_dask_pipelines.addresses import is_address
from softmax_dask_pipelines.backend import Backend, chosen_backend
from softmax_dask_pipelines.config import ScoreConfig, SourceConfig, output_format_of, read_class_names
from softmax_dask_pipelines.errors import ConfigError
from softmax_dask_pipelines.object_path import AnyPath, ObjectPath
from softmax_dask_pipelines.output_checks import (
    checked_address_of_output,
    checked_output,
    require_apart_from_files,
    require_room,
)
from softmax_dask_pipelines.plan import Plan, Sizes, make_plan, make_plan_as_cut
from softmax_dask_pipelines.rules import MADE, Rule, rule_of
from softmax_dask_pipelines.sinks import CarriedColumn, OutputSpec, require_own_names
from softmax_dask_pipelines.sources import Source, SourceFacts, SourceRequest, open_source
from softmax_dask_pipelines.sources.names import listing, nearest
from softmax_dask_pipelines.sources.rows import rows_of

_ID_BYTES = 64
"""Of an id of unknown length, in memory and encoded."""
_KEY_BYTES = 16
"""Of the key of a folder: its number in a dictionary, and what refers to it or it itself. Its text comes on top."""
_TARGET_BYTES = 8
_CLASS_BYTES = 4
"""Of a class number."""
_MOST_PAIRS = 1 << 16
"""Pairs of classes that have a counter each."""
_GATHERED_BYTES = 7 * 8 << 15
"""32,768 rows of six columns and a target."""

_DEFAULT_COLUMNS = {
    "score": ("label", "label_name", "confidence", "nll", "correct"),
    "compact": ("top_k_labels", "top_k_log_probabilities", "logsumexp", "tail_mass", "tail_divergence", "nll"),
}
"""By verb. Those of them that can be known."""
_TOP_K_COLUMNS = ("top_k_labels", "top_k_probabilities")
_REMEDIES = {
    "targets": "Name the target (--target NAME)",
    "class_names": "Give --classes FILE",
    "top_k": "Give --top-k K",
    "threshold": "Give --accept FILE",
    "level": "Give --conformal FILE",
}


@dataclass(frozen=True, slots=True)
class Job:
    """A run that is ready to begin: everything is checked, nothing is written."""

    config: ScoreConfig
    source: Source
    spec: OutputSpec
    plan: Plan
    rule: Rule
    backend: Backend = "cpu"
    """Where it computes."""

    @property
    def facts(self) -> SourceFacts:
        """What is known of the source."""
        return self.source.facts

    @property
    def output(self) -> AnyPath:
        """Where the results go."""
        path = self.spec.path
        return ObjectPath.at(path, self.config.output.storage_options) if is_address(path) else Path(path)

    @property
    def total_rows(self) -> int:
        """Rows that the run works through."""
        return self.plan.rows_to_score


@dataclass(frozen=True, slots=True)
class Cut:
    """Which rows of a source are scored, and in which pieces, where an output or an open plan has decided that."""

    rows: tuple[range, ...]
    """Of the source, in the order of the output; those that are needed no more are left out."""
    first_row: int
    """Number of the first of them in the output's partitions."""
    partition_rows: int
    chunk_rows: int
    visible_rows: int
    """Rows that the output has already."""
    commit: int
    """How many commits the output has with this one."""
    attributes: dict[str, Any]


def prepare(config: ScoreConfig, *, has_client: bool = False) -> Job:
    """Check everything that can be checked before anything is written, and cut the run.

    `has_client`: the workers of a client that is given will score, whatever the config says.
    """
    elsewhere = has_client or config.cluster.kind in ("connect", "class")
    backend = chosen_backend(config.backend, elsewhere=elsewhere)
    output = _checked_output(config)
    source = open_source(source_request(config.source))
    if not isinstance(output, ObjectPath):
        require_apart_from_files(source.facts, output)
    warn_of_one_class(source.facts)
    rule = rule_of(config, source.facts)
    columns = _columns(config, source.facts)
    top_k = _top_k(config, source.facts, columns)
    plan = make_plan(_sizes(config, source.facts, columns, top_k, rule), **_hands(config))
    spec = _output_spec(config, output, source.facts, columns, top_k, plan, rule)
    require_own_names(spec)
    # Of one that is there, it is known only later how much of it is done.
    if not isinstance(output, ObjectPath) and not os.path.lexists(output):
        require_room(output, plan.bytes_out)
    return Job(config, source, spec, plan, rule, backend)


def recut(job: Job, cut: Cut) -> Job:
    """The same run, of these rows and in these pieces."""
    source = rows_of(job.source, cut.rows, first_row=cut.first_row)
    spec = replace(
        job.spec,
        rows=source.facts.rows,
        partition_rows=cut.partition_rows,
        chunk_rows=cut.chunk_rows,
        visible_rows=cut.visible_rows,
        commit=cut.commit,
        attributes=cut.attributes,
    )
    plan = make_plan_as_cut(
        _sizes(job.config, source.facts, spec.columns, spec.top_k, job.rule),
        partition_rows=cut.partition_rows,
        chunk_rows=cut.chunk_rows,
        first=spec.first_partition,
        # What is free changes while a run begins; what it was prepared for stays.
        **_hands(job.config) | {"memory_limit_bytes": job.plan.memory_limit_bytes},
    )
    if not is_address(spec.path) and os.path.lexists(spec.path):  # `prepare` has looked otherwise
        require_room(Path(spec.path), plan.bytes_out)
    return Job(job.config, source, spec, plan, job.rule, job.backend)


def _checked_output(config: ScoreConfig) -> AnyPath:
    told, source = config.output, config.source
    if not is_address(told.path):
        return checked_output(told.path, source.path, source.classes)
    if config.expect is not None and config.expect.label_share_shift is not None:
        raise ConfigError(
            f"expect.label_share_shift: is said of {told.path}, in an object store; expected a local output, beside "
            "which the records of earlier runs are. Leave it out."
        )
    return checked_address_of_output(told.path, source.path, told.storage_options)


def source_request(given: SourceConfig) -> SourceRequest:
    """What a config says of its source."""
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
        settle_s=given.settle,
        verify_input=given.verify_input,
        link=given.link,
        storage_options=given.storage_options,
    )


def _hands(config: ScoreConfig) -> dict[str, int]:
    """How many processes score, and threads and memory of each.

    What a cluster's workers have is seen when they come: until then it is planned as if they were this machine, so
    that the same command cuts a run in the same way everywhere.
    """
    cores, free = machine.cores(), machine.free_memory_bytes()
    workers = 1
    if config.cluster.kind == "processes":
        workers = config.cluster.workers or machine.processes(config.threads)
    return {
        "workers": workers,
        "threads": config.threads or max(1, cores // workers),
        "memory_limit_bytes": config.memory_limit or free // 2 // workers,
    }


def _columns(config: ScoreConfig, facts: SourceFacts) -> tuple[str, ...]:
    """The columns asked for, or those that can be known; each must have what it needs."""
    there = {
        "nothing": True,
        "class_names": facts.class_names is not None,
        "targets": facts.target_name is not None,
        "top_k": config.top_k is not None,
        "threshold": config.accept is not None,
        "level": config.conformal is not None,
    }
    chosen = config.columns or tuple(name for name in _DEFAULT_COLUMNS[config.verb] if there[COLUMNS[name].needs])
    if config.top_k is not None and not _needs_top_k(chosen):
        chosen += _TOP_K_COLUMNS
    chosen += tuple(name for name in MADE if there[COLUMNS[name].needs] and name not in chosen)
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
    if config.top_k is None or not _needs_top_k(columns):
        return 0
    if config.top_k > facts.classes:
        text = f"top_k is {config.top_k}, but there are {facts.classes} classes; all are given."
        warnings.warn(text, TopKWarning, stacklevel=4)
    return min(config.top_k, facts.classes)


def _needs_top_k(columns: tuple[str, ...]) -> bool:
    return any(COLUMNS[name].needs == "top_k" for name in columns)


def _output_spec(
    config: ScoreConfig,
    output: AnyPath,
    facts: SourceFacts,
    columns: tuple[str, ...],
    top_k: int,
    plan: Plan,
    rule: Rule,
) -> OutputSpec:
    carried = carried_columns(config.output.rename, facts)
    return OutputSpec(
        path=str(output),
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
        carried=carried,
        has_targets=facts.target_name is not None,
        # Only what the plan determines: two runs of one plan give the same bytes.
        attributes={
            "source": config.source.path,
            "logits": facts.name,
            "classes": facts.classes,
            **({"row_shape": list(facts.row_shape)} if len(facts.row_shape) > 1 else {}),
            **rule.said(),
            **_fitted(rule, carried),
        },
        members=rule.members(facts.classes) if "conformal_set" in columns else 0,
    )


def _fitted(rule: Rule, carried: tuple[CarriedColumn, ...]) -> dict[str, Any]:
    """To which of these rows the temperature was fitted: nothing where to none."""
    if rule.fitted_on is None:
        return {}
    return {"fitted": {"on": rule.fitted_on, "id": next((column.name for column in carried if column.is_id), None)}}


def _sizes(config: ScoreConfig, facts: SourceFacts, columns: tuple[str, ...], top_k: int, rule: Rule) -> Sizes:
    floats, wide = float_dtype(facts.dtype), result_dtype(facts.dtype, config.output.dtype)
    itemsizes = {"float": floats.itemsize, "string": _ID_BYTES, "wide": wide.itemsize}
    chosen = [COLUMNS[name] for name in columns]
    narrow = sum(
        prod(c.tail(facts.classes, top_k)) * (itemsizes.get(c.kind) or np.dtype(c.kind).itemsize)
        for c in chosen
        if not c.is_large
    )
    of_classes = [facts.classes * wide.itemsize for c in chosen if c.per == "class"]
    of_classes += [rule.members(facts.classes) * _CLASS_BYTES for c in chosen if c.per == "member"]
    return Sizes(
        rows=facts.rows,
        classes=facts.classes,
        read_rows=facts.read_rows,
        boundary_rows=facts.boundary_rows,
        read_overhead_bytes=facts.read_overhead_bytes,
        row_bytes=facts.classes * facts.dtype.itemsize,
        wide_bytes=sum(of_classes),
        widest_bytes=max(of_classes, default=0),
        narrow_bytes=narrow + carried_bytes(facts),
        scratch_bytes=rule.scratch_bytes(facts.classes, floats.itemsize),
        counting_bytes=counting_bytes(facts.classes),
    )


def counting_bytes(classes: int) -> int:
    """What metrics of a partition take: three histograms, four counters a class, pairs; counted, and as they are kept.

    And rows that wait to be counted. See `softmax_dask.kernels.counts` and `softmax_dask.MetricsCounter`.
    """
    counters = 3 * len(confidence_edges()) + 4 * classes + min(classes**2, _MOST_PAIRS)
    return 2 * 8 * counters + _GATHERED_BYTES


def carried_bytes(facts: SourceFacts) -> int:
    """Of a row, in memory and encoded: ids, keys and the target."""
    texts = [_ID_BYTES if c.text_bytes is None else _KEY_BYTES + c.text_bytes for c in facts.carried]
    return sum(texts) + (_TARGET_BYTES if facts.target_name else 0)


def carried_columns(rename: Mapping[str, str] | None, facts: SourceFacts) -> tuple[CarriedColumn, ...]:
    """What is carried, under the names that it gets."""
    # Of `meta/id` the last part: a name is ours to make, and must be one folder or column.
    plain = {column.name: column.name.rpartition("/")[2] for column in facts.carried}
    given = rename or {}
    unknown = next((name for name in given if name not in {*plain, *plain.values()}), None)
    if unknown is not None:
        raise ConfigError(
            f"rename: {unknown!r} is not carried from {facts.path}; expected one of {listing(plain)}."
            f"{nearest(unknown, plain)}"
        )
    return tuple(
        CarriedColumn(
            name=given.get(column.name, given.get(plain[column.name], plain[column.name])),
            source_name=column.name,
            type=column.type,
            is_id=column.is_id,
            is_shared=column.is_shared,
            has_nulls=column.has_nulls,
        )
        for column in facts.carried
    )


def warn_of_one_class(facts: SourceFacts) -> None:
    """Say that probabilities of one class mean nothing."""
    if facts.classes == 1:
        warnings.warn(
            f"{facts.path}: has one class, so every probability is 1. Did you mean a sigmoid?",
            SingleClassWarning,
            stacklevel=4,
        )
