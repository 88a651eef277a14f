"""What is known of a source, as JSON types: for machines, and for the record of a run."""

from typing import Any

from softmax_dask_pipelines.sources.protocol import Carried, SourceFacts


def facts_of_source(facts: SourceFacts) -> dict[str, Any]:
    """All that people see of a source, for machines."""
    return {
        **short_facts_of_source(facts),
        "row_shape": list(facts.row_shape),
        "layout": facts.layout,
        "codec": facts.codec,
        "class_names": None if facts.class_names is None else list(facts.class_names),
        "id": None if facts.id is None else facts.id.name,
        "carried": {column.name: type_text(column) for column in facts.carried},
        "target": facts.target_name,
    }


def short_facts_of_source(facts: SourceFacts) -> dict[str, Any]:
    """Where it is and how large: a few figures, however many classes there are."""
    return {
        "path": facts.path,
        "format": facts.format,
        "logits": facts.name,
        "rows": facts.rows,
        "classes": facts.classes,
        "dtype": str(facts.dtype),
        "stored_bytes": facts.stored_bytes,
    }


def type_text(column: Carried) -> str:
    """Type of the values of what is carried."""
    return str(getattr(column.type, "value_type", column.type))
