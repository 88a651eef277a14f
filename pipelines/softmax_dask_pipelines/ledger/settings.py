"""What determines the bytes of an output, apart from the input's values: a plan of other settings is another plan."""

import json
from hashlib import blake2b
from typing import Any

from softmax_dask import kernel_name
from softmax_dask_pipelines.job import Job

_UNSAID: dict[str, Any] = {"source.verify_input": "metadata"}
"""What is not written down, as in plans of before it could be said."""

_HASHED = 16
"""Class names beyond so many are known by their hash."""


def settings_of(job: Job) -> dict[str, Any]:
    """Dotted keys of the config, with the values that were found out where it leaves them open; JSON types only.

    What only decides whether a run succeeds, or how fast, is no part of it: `nonfinite`, `missing_chunks`, `nulls`,
    `threads`, `memory_limit`.
    """
    config, spec, facts = job.config, job.spec, job.facts
    found = {
        "verb": config.verb,
        "source.path": facts.path,
        "source.format": facts.format,
        "source.array" if facts.format == "zarr" else "source.column": facts.name,
        "source.dtype": str(facts.dtype),
        "source.link": config.source.link,
        "source.class_axis": config.source.class_axis,
        "source.target": facts.target_name,
        "classes": facts.classes,
        "class names": _names(spec.class_names),
        "output.format": spec.format,
        "output.dtype": str(spec.wide_dtype),
        "carried": [[column.source_name, column.name, str(column.type)] for column in spec.carried],
        "columns": list(spec.columns),
        "top_k": spec.top_k,
        **job.rule.said(),
        "kernel": kernel_name(job.backend),
    }
    if config.source.verify_input != _UNSAID["source.verify_input"]:
        found["source.verify_input"] = config.source.verify_input
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """`key: old -> new` of each that is not the same."""
    old, new = _UNSAID | old, _UNSAID | new
    keys = dict.fromkeys([*old, *new])
    return [f"{key}: {_shown(old.get(key))} -> {_shown(new.get(key))}" for key in keys if old.get(key) != new.get(key)]


def _names(names: tuple[str, ...] | None) -> Any:
    if names is None or len(names) <= _HASHED:
        return names
    return f"{len(names)} names, hash {blake2b(json.dumps(names).encode(), digest_size=8).hexdigest()}"


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 120 else f"{text[:120]}..."
