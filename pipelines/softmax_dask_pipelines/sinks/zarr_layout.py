"""The arrays of a Zarr output and its metadata documents; no values, no files."""

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from zarr.storage import MemoryStore

from softmax_dask import COLUMNS, Column
from softmax_dask_pipelines.notices import silent
from softmax_dask_pipelines.sinks import CarriedColumn, OutputSpec
from softmax_dask_pipelines.sinks.buffers import column_dtype
from softmax_dask_pipelines.sinks.zarr_codecs import number_codecs, string_codecs

ROOT = "zarr.json"

_MOST_FLAGS = 1000
"""Class names stand in the attributes of `label` up to here; the array `class` has them all."""


@dataclass(frozen=True, slots=True)
class ArrayLayout:
    """One array of the output."""

    name: str
    dtype: np.dtype[Any] | None
    """None: text of any length."""
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    fill: Any
    """What pads the last chunk."""
    attributes: dict[str, Any] = field(default_factory=dict)

    def key(self, *chunk: int) -> str:
        """Name of a chunk's file, by the chunk's place along each axis; 0 along those that are not given."""
        # One folder an array (separator "."), so that one fsync makes all its chunks' names durable.
        places = chunk + (0,) * (len(self.shape) - len(chunk))
        return f"{self.name}/c.{'.'.join(map(str, places))}"


def array_layouts(spec: OutputSpec) -> dict[str, ArrayLayout]:
    """All arrays of the output, by name, in the order: class, carried, target, columns."""
    layouts = []
    if spec.class_names is not None:
        layouts.append(_strings("class", "class", spec.classes, spec.classes, "name of the class"))
    layouts += [_carried(spec, column) for column in spec.carried]
    if spec.has_targets:
        layouts.append(_targets(spec))
    layouts += [_column(spec, COLUMNS[name]) for name in spec.columns]
    return {layout.name: layout for layout in layouts}


def metadata_documents(layouts: dict[str, ArrayLayout], attributes: dict[str, Any]) -> dict[str, bytes]:
    """Zarr's own metadata documents by their keys, consolidated; the root's is the last."""
    stored: dict[str, Any] = {}
    store = MemoryStore(stored)
    group = zarr.create_group(store, zarr_format=3, attributes=attributes)
    for layout in layouts.values():
        _create(group, layout)
    # Zarr warns that version 3 has no specification for it yet; xarray warns where it is missing.
    with silent("Consolidated metadata", zarr.errors.ZarrUserWarning):
        zarr.consolidate_metadata(store)
    return {key: stored[key].to_bytes() for key in [*(f"{name}/{ROOT}" for name in layouts), ROOT]}


def _strings(name: str, dim: str, size: int, chunk: int, description: str) -> ArrayLayout:
    return ArrayLayout(name, None, (dim,), (size,), (chunk,), "", {"long_name": description})


def _carried(spec: OutputSpec, column: CarriedColumn) -> ArrayLayout:
    meaning = "id of the row" if column.is_id else "value of the folder's key in the source"
    # Zarr's integers have no null: text has the empty one.
    if column.has_nulls or not pa.types.is_integer(column.value_type):
        return _strings(column.name, "row", spec.rows, spec.partition_rows, meaning)
    return _row_numbers(spec, column.name, np.dtype(str(column.value_type)), 0, {"long_name": meaning})


def _targets(spec: OutputSpec) -> ArrayLayout:
    attributes = {"long_name": "true class; -1 where the row is unlabelled", "units": "class number"}
    return _row_numbers(spec, "target", np.dtype(np.int64), -1, attributes)


def _column(spec: OutputSpec, column: Column) -> ArrayLayout:
    if column.kind == "string":
        return _strings(column.name, "row", spec.rows, spec.partition_rows, column.description)
    dtype = column_dtype(spec, column)
    attributes = _column_attributes(spec, column)
    tail = column.tail(spec.classes, spec.top_k, spec.members)
    rows = spec.chunk_rows if column.is_large else spec.partition_rows
    dims = ("row",) if column.per == "row" else ("row", column.per)
    return ArrayLayout(column.name, dtype, dims, (spec.rows, *tail), (rows, *tail), column.undecidable, attributes)


def _row_numbers(
    spec: OutputSpec, name: str, dtype: np.dtype[Any], fill: Any, attributes: dict[str, Any]
) -> ArrayLayout:
    return ArrayLayout(name, dtype, ("row",), (spec.rows,), (spec.partition_rows,), fill, attributes)


def _column_attributes(spec: OutputSpec, column: Column) -> dict[str, Any]:
    attributes: dict[str, Any] = {"long_name": column.description, "units": column.unit}
    if column.name == "label" and spec.class_names is not None and spec.classes <= _MOST_FLAGS:
        # CF conventions: flag_meanings is one text, parted by blanks.
        attributes["flag_values"] = list(range(spec.classes))
        attributes["flag_meanings"] = " ".join(re.sub(r"\s+", "_", name) or "_" for name in spec.class_names)
    return attributes


def _create(group: zarr.Group, layout: ArrayLayout) -> None:
    codecs = string_codecs() if layout.dtype is None else number_codecs(layout.dtype, len(layout.shape))
    group.create_array(
        layout.name,
        shape=layout.shape,
        chunks=layout.chunks,
        dtype="string" if layout.dtype is None else layout.dtype.newbyteorder("<"),
        fill_value=layout.fill,
        dimension_names=layout.dims,
        attributes=layout.attributes,
        chunk_key_encoding={"name": "default", "separator": "."},
        **codecs,
    )
