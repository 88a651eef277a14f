"""Logits in a local Zarr v2 or v3 store: an array, bare or in a group, sharded or not.

Decoding is zarr-python's. What it does not tell is checked before: a chunk file that is
missing reads as fill value, and so does a shard of no bytes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from softmax_dask.errors import ClassAxisError
from softmax_dask_pipelines.errors import CorruptChunkError, PermissionDeniedError, SourceFormatError
from softmax_dask_pipelines.sources.blocks import aligned, rows_per_read
from softmax_dask_pipelines.sources.carried import TargetRule
from softmax_dask_pipelines.sources.dtypes import BFLOAT16, logits_dtype
from softmax_dask_pipelines.sources.names import ID_NAMES, TARGET_NAMES, require_class_names
from softmax_dask_pipelines.sources.protocol import SourceBlock, SourceFacts, SourceRequest
from softmax_dask_pipelines.sources.zarr_arrays import Store, is_bfloat16
from softmax_dask_pipelines.sources.zarr_carried import CarriedArray
from softmax_dask_pipelines.sources.zarr_chunks import ChunkFiles
from softmax_dask_pipelines.sources.zarr_codecs import codec_text


class ZarrSource:
    """One 2-D array of logits, (rows, classes), with the ids and targets beside it."""

    def __init__(self, request: SourceRequest, path: str) -> None:
        store = Store.at(path)
        name = store.logits_name(request.array)
        array = store.open(name)
        where = f"{path}: {name}" if name else path
        dtype = _checked_dtype(array, where, bfloat16=request.dtype == "bfloat16" or is_bfloat16(store.folder(name)))
        self._array = array
        self._chunks = ChunkFiles.of(array, Path(path), store.folder(name))
        self._ids = store.carried(request.id, ID_NAMES, rows=array.shape[0])
        self._targets = store.carried(request.target, TARGET_NAMES, rows=array.shape[0])
        names = _class_names(request, store, array, where)
        self._rule = _target_rule(self._targets, array.shape[1], names)
        self._facts = self._described(path, name, dtype, names)

    @property
    def facts(self) -> SourceFacts:
        """What is known without reading logits."""
        return self._facts

    def read(self, start: int, stop: int) -> Iterator[SourceBlock]:
        """Rows start..stop-1 in order, cut at the multiples of `facts.read_rows`."""
        assert 0 <= start <= stop <= self._facts.rows, f"rows {start}..{stop} of {self._facts.rows}"
        ids = self._ids.reader(stop) if self._ids else None
        targets = self._targets.reader(stop) if self._targets else None
        for rows in aligned(start, stop, self._facts.read_rows):
            yield SourceBlock(
                logits=self._logits(rows),
                ids=ids.values(rows) if ids else None,
                targets=self._rule.targets(targets.values(rows), first_row=rows.start)
                if targets and self._rule
                else None,
            )

    def _logits(self, rows: range) -> NDArray[Any]:
        self._chunks.require(rows)
        stored = self._decoded(rows)
        if self._facts.dtype == BFLOAT16:
            stored = np.ascontiguousarray(stored, stored.dtype.newbyteorder("=")).view(BFLOAT16)
        return np.ascontiguousarray(stored, self._facts.dtype)

    def _decoded(self, rows: range) -> NDArray[Any]:
        try:
            return np.asarray(self._array[rows.start : rows.stop])
        except MemoryError:
            raise
        except PermissionError as error:
            raise PermissionDeniedError(
                f"{self._facts.path}: {error}; expected read permission. Check the owner and mode of its files."
            ) from error
        except Exception as error:  # every codec raises errors of its own
            raise self._corrupt(rows, error) from error

    def _corrupt(self, rows: range, error: Exception) -> CorruptChunkError:
        for key, selection in self._chunks.selections(rows):
            try:
                self._array[selection]
            except Exception as reason:  # the caller raises what is returned
                return self._chunks.corrupt(key, f"does not decode ({reason})")
        return CorruptChunkError(
            f"{self._facts.path}: rows {rows.start} to {rows.stop - 1} failed to decode once ({error}); "
            "expected chunks that decode. The storage may be unsteady: check it, and run the same command again."
        )

    def _described(
        self, path: str, name: str, dtype: np.dtype[Any], class_names: tuple[str, ...] | None
    ) -> SourceFacts:
        rows, classes = self._array.shape
        group_rows = self._chunks.file_chunk[0]
        read_rows = rows_per_read(
            unit_rows=self._chunks.chunk[0], group_rows=group_rows, row_bytes=classes * dtype.itemsize
        )
        return SourceFacts(
            path=path,
            format="zarr",
            name=name,
            rows=rows,
            classes=classes,
            dtype=dtype,
            read_rows=max(1, min(rows, read_rows)),
            read_overhead_bytes=self._overhead_bytes(read_rows, dtype),
            stored_bytes=self._chunks.stored_bytes(),
            codec=codec_text(self._array),
            layout=self._chunks.layout,
            class_names=class_names,
            id_name=self._ids.name if self._ids else None,
            id_type=self._ids.type if self._ids else None,
            target_name=self._targets.name if self._targets else None,
            boundary_rows=max(read_rows, group_rows),
        )

    def _overhead_bytes(self, read_rows: int, dtype: np.dtype[Any]) -> int:
        """Encoded and decoded chunks of a block, side by side; and those of its ids and targets."""
        carried = sum(array.decoding_bytes(read_rows) for array in (self._ids, self._targets) if array)
        return 2 * self._chunks.decoded_values(read_rows) * dtype.itemsize + carried


def _checked_dtype(array: "zarr.Array[Any]", where: str, *, bfloat16: bool) -> np.dtype[Any]:
    if array.ndim != 2:
        raise SourceFormatError(
            f"{where}: has shape {array.shape}; expected 2 axes, (rows, classes). Name another array, or "
            "reshape this one."
        )
    if array.shape[1] == 0:
        raise ClassAxisError(f"{where}: has shape {array.shape}; expected at least 1 class. Write the logits again.")
    return logits_dtype(np.dtype(array.dtype), bfloat16=bfloat16, where=where)


def _class_names(request: SourceRequest, store: Store, array: "zarr.Array[Any]", where: str) -> tuple[str, ...] | None:
    names = request.class_names or array.attrs.get("class_names") or store.class_names()
    return None if names is None else require_class_names(names, array.shape[1], where=where)


def _target_rule(targets: CarriedArray | None, classes: int, class_names: tuple[str, ...] | None) -> TargetRule | None:
    if targets is None:
        return None
    rule = TargetRule(targets.where, classes, class_names)
    rule.require_type(targets.type)
    return rule
