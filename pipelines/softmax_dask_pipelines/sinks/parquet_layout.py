"""The schema of a Parquet output, its encodings, and its buffers as Arrow arrays; no files.

Arrays are made of the buffers' own memory, so what they show changes when a buffer is used again.
"""

import json
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softmax_dask import COLUMNS, Column
from softmax_dask_pipelines import arrow
from softmax_dask_pipelines.sinks import CarriedColumn, OutputSpec
from softmax_dask_pipelines.sinks.buffers import PartitionBuffers, column_dtype

ROW = "row"
TARGET = "target"

_DIFFERENCES = "DELTA_BINARY_PACKED"


def schema(spec: OutputSpec) -> pa.Schema:
    """Schema of every part: row numbers, if any, ids, keys, target, columns; metadata `softmax_dask`, JSON."""
    fields = [pa.field(ROW, pa.int64(), nullable=False)] if spec.has_row_numbers else []
    fields += [pa.field(column.name, _carried_type(column)) for column in spec.carried]
    if spec.has_targets:
        fields.append(pa.field(TARGET, pa.int64()))
    fields += [_field(spec, COLUMNS[name]) for name in spec.columns]
    facts = {**spec.attributes, "class_names": spec.class_names}
    return pa.schema(fields, metadata={"softmax_dask": json.dumps(facts, ensure_ascii=False)})


def writer_options(spec: OutputSpec) -> dict[str, Any]:
    """Arguments of `pyarrow.parquet.ParquetWriter`."""
    others = [ROW] if spec.has_row_numbers else []
    others += [column.name for column in spec.carried]
    others += [TARGET] if spec.has_targets else []
    others += [name for name in spec.columns if COLUMNS[name].kind not in ("float", "wide")]
    repeated = [column.name for column in spec.carried if column.is_repeated]
    repeated += ["label_name"] if "label_name" in spec.columns else []
    encodings = _encodings(spec)
    # Of packed differences Zstandard takes up to three tenths of the time, and saves a twentieth of a file at most.
    compressed = [path for path in map(_path, schema(spec)) if encodings.get(path) != _DIFFERENCES]
    return {
        "compression": dict.fromkeys(compressed, "zstd"),
        "compression_level": dict.fromkeys(compressed, 1),
        "use_dictionary": repeated or False,
        # Statistics and dictionaries of floats cost time and say nothing.
        "write_statistics": others,
        "column_encoding": encodings or None,
        "write_page_checksum": True,
    }


class Batches:
    """Makes record batches of one partition's buffers."""

    def __init__(self, spec: OutputSpec, buffers: PartitionBuffers) -> None:
        self.schema = schema(spec)
        self._spec, self._buffers = spec, buffers
        self._names, self._positions = _distinct(spec.class_names or ())

    def current_chunk(self) -> pa.RecordBatch:
        """The rows of the current chunk; valid until the buffers are filled again."""
        buffers = self._buffers
        arrays = [self._row_numbers()] if self._spec.has_row_numbers else []
        arrays += [_one_array(buffers.take(column), _carried_type(column)) for column in self._spec.carried]
        if buffers.targets is not None:
            arrays.append(_nullable_integers(buffers.targets[buffers.chunk_start : buffers.filled]))
        arrays += [self._column(COLUMNS[name]) for name in self._spec.columns]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _row_numbers(self) -> pa.Array:
        buffers = self._buffers
        first = self._spec.visible_rows + buffers.rows.start
        return arrow.numbers(np.arange(first + buffers.chunk_start, first + buffers.filled, dtype=np.int64))

    def _column(self, column: Column) -> pa.Array:
        start, stop = self._buffers.chunk_start, self._buffers.filled
        if column.per == "class":
            return self._lists(column, self._buffers.wide[column.name][: stop - start])
        if column.per == "member":
            return self._sets(column, start, stop)
        if column.per == "rank":
            return self._lists(column, self._buffers.narrow[column.name][start:stop])
        if column.name == "label_name":
            return self._label_names(self._buffers.narrow["label"][start:stop])
        values = self._buffers.narrow[column.name][start:stop]
        return _nullable_booleans(values) if column.kind == "int8" else arrow.numbers(values)

    def _lists(self, column: Column, values: NDArray[Any]) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(
            arrow.numbers(values.reshape(-1)), type=self.schema.field(column.name).type
        )

    def _sets(self, column: Column, start: int, stop: int) -> pa.Array:
        """Lists of as many classes as there are; null where the row is undecidable."""
        padded = self._buffers.wide[column.name][: stop - start]
        is_there = padded >= 0
        ends = np.concatenate([[0], np.cumsum(is_there.sum(axis=1))]).astype(np.int32)
        known = _bits(self._buffers.narrow["label"][start:stop] >= 0)
        kind = self.schema.field(column.name).type
        return pa.Array.from_buffers(
            kind, len(padded), [known, pa.py_buffer(ends)], children=[arrow.numbers(padded[is_there])]
        )

    def _label_names(self, labels: NDArray[Any]) -> pa.Array:
        indices = self._positions[labels]  # at -1, a null, it does not matter which
        known = [_bits(labels >= 0), pa.py_buffer(indices)]
        return pa.DictionaryArray.from_arrays(pa.Array.from_buffers(pa.int32(), len(labels), known), self._names)


def _carried_type(column: CarriedColumn) -> pa.DataType:
    """Its type in Arrow's schema: only of text is a dictionary something that all readers know."""
    return column.value_type if pa.types.is_integer(column.value_type) else column.type


def _one_array(values: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    return pa.concat_arrays(values.cast(kind).chunks)


def _field(spec: OutputSpec, column: Column) -> pa.Field:
    if column.name == "label_name":
        return pa.field(column.name, pa.dictionary(pa.int32(), pa.string()))
    if column.kind == "int8":
        return pa.field(column.name, pa.bool_())
    element = pa.from_numpy_dtype(column_dtype(spec, column))
    if column.per == "row":
        return pa.field(column.name, element, nullable=False)
    if column.per == "member":
        return pa.field(column.name, pa.list_(pa.field("element", element, nullable=False)))
    # Lists and elements that cannot be null have fewer levels to decode.
    elements = pa.field("element", element, nullable=False)
    return pa.field(column.name, pa.list_(elements, *column.tail(spec.classes, spec.top_k)), nullable=False)


def _encodings(spec: OutputSpec) -> dict[str, str]:
    """How values lie in a page, by their place in the file; PLAIN where it is not said.

    Of integers the differences are packed: less than half of the time of Zstandard on the integers as they are, a
    sixth to a half less of labels, and next to nothing of numbers that follow each other. All readers know that.
    """
    integers = [ROW] if spec.has_row_numbers else []
    integers += [c.name for c in spec.carried if pa.types.is_integer(c.value_type) and not c.is_repeated]
    integers += [TARGET] if spec.has_targets else []
    integers += [name for name in spec.columns if COLUMNS[name].kind == "int32" and COLUMNS[name].per == "row"]
    split = [path for name in spec.columns for path in _split_paths(spec, COLUMNS[name])]
    return dict.fromkeys(integers, _DIFFERENCES) | dict.fromkeys(split, "BYTE_STREAM_SPLIT")


def _path(field: pa.Field) -> str:
    """Where its values lie in the file."""
    is_list = pa.types.is_list(field.type) or pa.types.is_fixed_size_list(field.type)
    return f"{field.name}.list.element" if is_list else str(field.name)


def _split_paths(spec: OutputSpec, column: Column) -> list[str]:
    """Where the column's values lie in the file, if they are to be stored byte plane by byte plane."""
    # Of top_k_labels, whose upper bytes are 0, it saves a fifth, and what it saves is that of 16-bit integers.
    if column.kind == "float" or column.name == "top_k_labels":
        return [column.name if column.per == "row" else f"{column.name}.list.element"]
    # DuckDB 2.0 cannot read float16 that is stored so.
    splits = column.kind == "wide" and spec.wide_dtype.itemsize > 2
    return [f"{column.name}.list.element"] if splits else []


def _distinct(names: tuple[str, ...]) -> tuple[pa.Array, NDArray[np.int32]]:
    """The names without repetitions, and the position of each class's name among them."""
    # ImageNet has two classes `crane`. Of a dictionary with repetitions pyarrow 26 writes a page
    # that ends in whatever lay in memory, so that no two files are equal.
    position = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return arrow.texts(list(position)), np.array([position[name] for name in names], np.int32)


def _nullable_integers(values: NDArray[Any]) -> pa.Array:
    """Integers with null for -1."""
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [_bits(values >= 0), pa.py_buffer(values)])


def _nullable_booleans(values: NDArray[Any]) -> pa.Array:
    """Truth of 1 and 0, null for -1."""
    return pa.Array.from_buffers(pa.bool_(), len(values), [_bits(values >= 0), _bits(values > 0)])


def _bits(flags: NDArray[np.bool_]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(flags, bitorder="little"))
