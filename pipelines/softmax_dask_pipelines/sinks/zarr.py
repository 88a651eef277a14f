"""Writes a Zarr v3 group, consolidated: one array a column, dimensions `row` and `class`.

Chunks first, each array's `zarr.json` next, the root's last: until then there is no group to open, or the old one.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from softmax_dask_pipelines import arrow, storage
from softmax_dask_pipelines.checksums import crc32c_of_object
from softmax_dask_pipelines.object_path import AnyPath
from softmax_dask_pipelines.sinks import CarriedColumn, OutputSpec, StoredObject
from softmax_dask_pipelines.sinks.background import Background
from softmax_dask_pipelines.sinks.buffers import PartitionBuffers
from softmax_dask_pipelines.sinks.carried import carried_numbers, carried_texts, repeated_texts, with_lengths
from softmax_dask_pipelines.sinks.places import Place, sync_folders
from softmax_dask_pipelines.sinks.zarr_codecs import encode_numbers, encode_string_runs, encode_strings
from softmax_dask_pipelines.sinks.zarr_layout import ArrayLayout, array_layouts, metadata_documents

_Object = tuple[str, list[bytes]]
"""Its key, and its bytes in parts."""


class ZarrSink:
    """Zarr group at `spec.path`."""

    def __init__(self, spec: OutputSpec, place: Place, *, more: Sequence[ArrayLayout] = ()) -> None:
        """`more` are arrays beside those of `spec`, written by `put`."""
        assert spec.partition_rows % spec.chunk_rows == 0, (
            f"partitions of {spec.partition_rows} rows are no multiple of chunks of {spec.chunk_rows}"
        )
        self._spec, self._place = spec, place
        self._layouts = array_layouts(spec) | {layout.name: layout for layout in more}

    def prepare(self) -> None:
        """Make the folder of each array."""
        self._place.prepare()
        for name in self._layouts:
            storage.make_folder(self._place.stage / name)

    def writer(self, number: int) -> "ZarrPartitionWriter":
        """Writer of partition `number`; one that holds rows which are visible already is written beside them."""
        return ZarrPartitionWriter(self._spec, self._layouts, self._chunks(self._folder(number)), number)

    def put(self, name: str, chunk: tuple[int, ...], values: NDArray[Any]) -> StoredObject:
        """Write one chunk of an array of `more`; `values` has the shape of a chunk, or less at the array's end."""
        layout = self._layouts[name]
        if values.shape != layout.chunks:
            values = np.pad(values, _missing(values.shape, layout.chunks), constant_values=layout.fill)
        return self._chunks(self._place.new).put(layout.key(*chunk), encode_numbers(values))

    def find(self, number: int, key: str) -> AnyPath:
        """In the stage, or where nobody looks before the commit."""
        return self._folder(number) / key

    def seal(self) -> tuple[StoredObject, ...]:
        """Write class names and metadata documents into the stage, and make all chunks durable."""
        folders = {self._place.stage, self._place.new}
        documents = metadata_documents(self._layouts, {"softmax_dask": self._spec.attributes})
        objects = {key: [document] for key, document in documents.items()}
        if self._spec.class_names is not None and not self._spec.visible_rows:
            names = with_lengths(arrow.texts(self._spec.class_names))
            objects[self._layouts["class"].key(0)] = encode_strings([names], len(names))
        chunks = _Chunks(self._place.stage, self._place.scratch, durable=True)
        stored = tuple(chunks.put(key, parts) for key, parts in objects.items())
        sync_folders(folder / name for folder in folders for name in self._layouts)
        sync_folders(folders)
        return stored

    def _folder(self, number: int) -> AnyPath:
        is_visible = number * self._spec.partition_rows < self._spec.visible_rows
        return self._place.stage if is_visible else self._place.new

    def _chunks(self, folder: AnyPath) -> "_Chunks":
        return _Chunks(folder, self._place.scratch, self._place.durable)


@dataclass(frozen=True, slots=True)
class _Chunks:
    """Where chunks go, and how."""

    folder: AnyPath
    scratch: AnyPath
    durable: bool

    def put(self, key: str, parts: list[bytes]) -> StoredObject:
        """Write one, and wait until it is whole."""
        return self.begin(key, parts).finish()

    def begin(self, key: str, parts: list[bytes]) -> "_BegunChunk":
        """Write one, and leave the waiting to who finishes it."""
        begun = storage.begin(self.folder / key, parts, scratch=self.scratch, durable=self.durable)
        return _BegunChunk(key, crc32c_of_object(parts), begun)


@dataclass(frozen=True, slots=True)
class _BegunChunk:
    """One that is written, but perhaps not on the disk."""

    key: str
    crc32c: int
    begun: storage.Begun

    def finish(self) -> StoredObject:
        return StoredObject(self.key, self.begun.finish(), self.crc32c)

    def drop(self) -> None:
        self.begun.drop()


class ZarrPartitionWriter:
    """Encodes each chunk of the wide columns when it is full, and all other columns at the end.

    Chunks are encoded and handed to the system by the thread that computes: then nobody holds them. Others wait until
    they are on the disk.
    """

    def __init__(self, spec: OutputSpec, layouts: dict[str, ArrayLayout], chunks: "_Chunks", number: int) -> None:
        self._spec, self._layouts, self._chunks, self._number = spec, layouts, chunks, number
        self._buffers = PartitionBuffers(spec, number)
        self._writes: Background[StoredObject] = Background()
        self._begun: list[_BegunChunk] = []
        self._encoded: list[_Object] = []
        self._is_drained = False

    def reserve(self, rows: int) -> dict[str, NDArray[Any]]:
        """Views of the next rows, at most `rows`."""
        return self._buffers.reserve(rows)

    def advance(self, rows: int, carried: Mapping[str, Any], targets: NDArray[np.int64] | None) -> None:
        """Take over the rows that were filled; a chunk that is full is written."""
        self._buffers.advance(rows, carried, targets)
        if self._buffers.wide and self._buffers.chunk_is_ready():
            self._write_wide()

    def drain(self) -> None:
        """Wait for the chunks of wide columns, and encode the columns of one value a row; no buffer is kept."""
        buffers = self._buffers
        assert buffers.is_complete(), f"{buffers.filled} of {len(buffers.rows)} rows when drained"
        self._writes.drain()
        buffers.release_wide()
        if len(buffers.rows) > 0:
            self._encode_narrow()
        del self._buffers
        self._is_drained = True

    def close(self) -> tuple[StoredObject, ...]:
        """Write the columns of one value a row."""
        if not self._is_drained:
            self.drain()
        for key, parts in self._encoded:
            self._writes.call(self._chunks.put, key, parts)
        return self._writes.finish()

    def abandon(self) -> None:
        """Let what is being written end."""
        self._writes.abandon()
        for chunk in self._begun:
            chunk.drop()

    def _write_wide(self) -> None:
        buffers = self._buffers
        chunk = (buffers.rows.start + buffers.chunk_start) // self._spec.chunk_rows
        for name, values in buffers.wide.items():
            filled = buffers.filled - buffers.chunk_start
            begun = self._chunks.begin(*self._numbers(name, chunk, values, filled))
            self._begun.append(begun)
            with ExitStack() as on_error:
                on_error.callback(begun.drop)
                self._writes.call(begun.finish)
                on_error.pop_all()
        buffers.next_chunk()

    def _encode_narrow(self) -> None:
        buffers, spec = self._buffers, self._spec
        for name, values in buffers.narrow.items():
            if name in self._layouts:  # `label` may be there for the names alone
                self._encoded.append(self._numbers(name, self._number, values, buffers.filled))
        if buffers.targets is not None:
            self._encoded.append(self._numbers("target", self._number, buffers.targets, buffers.filled))
        if "label_name" in spec.columns:
            self._encoded.append(
                self._strings("label_name", [_label_names(spec, buffers.narrow["label"][: buffers.filled])])
            )
        self._encoded += map(self._carried, spec.carried)

    def _carried(self, column: CarriedColumn) -> _Object:
        values, layout = self._buffers.take(column), self._layouts[column.name]
        if layout.dtype is None and column.is_repeated:
            padding = ("", self._spec.partition_rows - len(values))
            return layout.key(self._number), encode_string_runs([*repeated_texts(values), padding])
        if layout.dtype is None:
            return self._strings(column.name, carried_texts(values, column.name))
        chunk = np.empty(layout.chunks, layout.dtype)
        chunk[: len(values)] = carried_numbers(values, column.name)
        return self._numbers(column.name, self._number, chunk, len(values))

    def _numbers(self, name: str, chunk: int, values: NDArray[Any], filled: int) -> _Object:
        """A whole chunk, of which the first `filled` rows are results."""
        values[filled:] = self._layouts[name].fill
        return self._layouts[name].key(chunk), encode_numbers(values)

    def _strings(self, name: str, texts: list[pa.Array]) -> _Object:
        return self._layouts[name].key(self._number), encode_strings(texts, self._spec.partition_rows)


def _missing(shape: tuple[int, ...], chunk: tuple[int, ...]) -> list[tuple[int, int]]:
    """What `numpy.pad` must add to fill a chunk."""
    return [(0, whole - there) for there, whole in zip(shape, chunk, strict=True)]


def _label_names(spec: OutputSpec, labels: NDArray[np.int32]) -> pa.Array:
    assert spec.class_names is not None, "label_name without class names"
    named = with_lengths(arrow.texts([*spec.class_names, ""]))
    positions = np.where(labels < 0, len(spec.class_names), labels)
    return named.take(arrow.numbers(positions))
