"""Logits in a local Zarr v2 or v3 store, a folder or a zip file: an array, bare or in a group, sharded or not.

Plain chunks go by the direct lane; zarr-python decodes all others, and those again that the lane gave up.
What zarr-python does not tell is checked before: a chunk file that is missing reads as fill value, and so
does a shard of no bytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray

from softmax_dask_pipelines.errors import CorruptChunkError, DataError, PermissionDeniedError, TemporaryError
from softmax_dask_pipelines.sources.blocks import aligned, rows_per_read
from softmax_dask_pipelines.sources.carried import TargetRule
from softmax_dask_pipelines.sources.dtypes import BFLOAT16, checked_class_axis, logits_dtype
from softmax_dask_pipelines.sources.names import ID_NAMES, TARGET_NAMES, require_class_names
from softmax_dask_pipelines.sources.protocol import Carried, SourceBlock, SourceFacts, SourceRequest
from softmax_dask_pipelines.sources.read_ahead import blocks_ahead, results_ahead
from softmax_dask_pipelines.sources.sigmoid import classes_of_rows
from softmax_dask_pipelines.sources.stamps import ArrayStamps, Stamps
from softmax_dask_pipelines.sources.zarr_arrays import Store
from softmax_dask_pipelines.sources.zarr_carried import CarriedArray
from softmax_dask_pipelines.sources.zarr_chunks import ChunkFiles
from softmax_dask_pipelines.sources.zarr_codecs import codec_text, has_checksum
from softmax_dask_pipelines.sources.zarr_direct import DirectLane, DirectReader


class ZarrSource:
    """One array of logits, (rows, classes) or with more axes of rows, with the ids and targets beside it."""

    def __init__(self, request: SourceRequest, path: str) -> None:
        store = Store.at(path, request.storage_options, by_content=request.verify_input == "content")
        name = store.logits_name(request.array)
        array = store.open(name)
        where = store.where(name)
        bfloat16 = request.dtype == "bfloat16" or store.says_bfloat16(name)
        class_axis = checked_class_axis(array.shape, request, where=where)
        dtype = logits_dtype(np.dtype(array.dtype), bfloat16=bfloat16, where=where)
        self._array, self._name = array, name
        self._chunks = ChunkFiles.of(
            array, path, store.files, name, class_axis=class_axis, fill_missing=request.missing_chunks == "fill"
        )
        self._lane = DirectLane.of(self._chunks)
        rows, classes = self._chunks.shape
        places = (rows // self._chunks.rows_a_place, *self._chunks.inner)
        self._ids = store.carried(request.id, ID_NAMES, logits=name, places=places)
        self._targets = store.carried(request.target, TARGET_NAMES, logits=name, places=places)
        classes = classes_of_rows(request, classes, where=where)
        names = _class_names(request, store, array, classes, where)
        self._rule = _target_rule(self._targets, classes, names)
        self._files = store.files
        self._look_anew()
        self._document = store.decoding(name, *(array.name for array in self._carried_arrays))
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
        blocks = list(aligned(start, stop, self._facts.read_rows))
        logits = self._logits_of_blocks(blocks)
        for rows in blocks:
            yield SourceBlock(
                logits=next(logits),
                carried={self._ids.name: ids.values(rows)} if self._ids and ids else {},
                targets=self._rule.targets(targets.values(rows), first_row=rows.start)
                if targets and self._rule
                else None,
            )

    def compile(self) -> None:
        """What takes texts apart, where there are some."""
        for array in self._carried_arrays:
            if array.texts is not None:
                array.texts.compile()

    def stamps(self) -> Stamps:
        """How chunk files look now; of a last chunk that is not full, also what is in it."""
        rows = self._facts.rows
        self._look_anew()
        found = [(self._name, self._chunks.file_chunk[0], self._chunks.stamps())]
        found += [(array.name, array.height, array.stamps()) for array in self._carried_arrays]
        arrays = (ArrayStamps(name, rows, height, digests, "") for name, height, digests in found)
        tails = ((array, self.content(array.name, array.tail_rows)) for array in arrays)
        return Stamps(self._document, tuple(replace(array, tail=tail) for array, tail in tails))

    def _look_anew(self) -> None:
        for name in (self._name, *(array.name for array in self._carried_arrays)):
            self._files.look_anew(name)

    def content(self, name: str, rows: range) -> str:
        """Digest of the values of `rows` of the logits, or of ids or targets; "" where they do not decode."""
        if not rows:
            return ""
        state = blake2b(digest_size=16)
        try:
            for part in self._values(name, rows):
                state.update(part)
        except DataError:  # who scores these rows finds out what is wrong with them, and says so
            return ""
        return state.hexdigest()

    def _values(self, name: str, rows: range) -> Iterator[Any]:
        """In pieces that have a buffer."""
        carried = next((array for array in self._carried_arrays if array.name == name), None)
        if carried is not None:
            # As Arrow would send them: no object a value, for a chunk of ids may have millions.
            yield pa.RecordBatch.from_arrays([carried.decode(rows.start, rows.stop)], ["values"]).serialize()
            return
        direct = self._direct()
        for block in aligned(rows.start, rows.stop, self._facts.read_rows):
            yield self._logits(block, direct).tobytes()
        if self._lane:  # else the thread of a driver would keep it while others score
            self._lane.scratch.free()

    @property
    def _carried_arrays(self) -> list[CarriedArray]:
        return [array for array in (self._ids, self._targets) if array is not None]

    def _logits_of_blocks(self, blocks: Sequence[range]) -> Iterator[NDArray[Any]]:
        """The logits of each; the next ones are on their way meanwhile."""
        facts = self._facts
        ahead = min(self._blocks_ahead(facts.read_rows * facts.classes * facts.dtype.itemsize), len(blocks) - 1)
        if ahead > 0:
            yield from results_ahead(lambda rows: self._logits(rows, None), blocks, ahead)
            return
        direct = self._direct()
        for rows, following in zip_longest(blocks, blocks[1:]):
            if direct and following:
                direct.expect(following)
            yield self._logits(rows, direct)

    def _direct(self) -> DirectReader | None:
        return self._lane.reader() if self._lane else None

    def _logits(self, rows: range, direct: DirectReader | None) -> NDArray[Any]:
        stored = self._decoded(rows, direct)
        if self._facts.dtype == BFLOAT16:
            stored = np.ascontiguousarray(stored, stored.dtype.newbyteorder("=")).view(BFLOAT16)
        return np.ascontiguousarray(stored, self._facts.dtype)

    def _decoded(self, rows: range, direct: DirectReader | None) -> NDArray[Any]:
        decoded = None if direct is None else direct.read(rows)
        return self._decoded_by_zarr(rows) if decoded is None else decoded

    def _decoded_by_zarr(self, rows: range) -> NDArray[Any]:
        self._chunks.require(rows)
        try:
            return self._stored(rows)
        except (MemoryError, PermissionDeniedError, TemporaryError):
            raise
        except Exception:  # every codec raises errors of its own
            return self._decoded_again(rows)

    def _decoded_again(self, rows: range) -> NDArray[Any]:
        """A second look: the storage may have failed, and not the chunk."""
        try:
            return self._stored(rows)
        except (MemoryError, PermissionDeniedError, TemporaryError):
            raise
        except Exception as error:
            raise self._corrupt(rows, error) from error

    def _stored(self, rows: range) -> NDArray[Any]:
        """The rows as zarr-python gives them, but (rows, classes)."""
        selection = self._chunks.selection(slice(rows.start, rows.stop), slice(None))
        try:
            stored = np.asarray(self._array[selection])
        except PermissionDeniedError:
            raise
        except PermissionError as error:
            raise PermissionDeniedError(
                f"{self._facts.path}: {error}; expected read permission. Check the owner and mode of its files."
            ) from error
        return self._chunks.rows_of(stored, rows)

    def _corrupt(self, rows: range, error: Exception) -> CorruptChunkError:
        for key, selection in self._chunks.selections(rows):
            try:
                self._array[selection]
            except Exception as reason:  # the caller raises what is returned
                return self._chunks.corrupt(key, f"does not decode ({reason})")
        return CorruptChunkError(
            f"{self._facts.path}: rows {rows.start} to {rows.stop - 1} failed to decode twice ({error}); "
            "expected chunks that decode. The storage may be unsteady: check it, and run the same command again."
        )

    def _described(
        self, path: str, name: str, dtype: np.dtype[Any], class_names: tuple[str, ...] | None
    ) -> SourceFacts:
        rows, classes = self._chunks.shape
        group_rows = self._chunks.file_chunk[0]
        row_bytes = classes * dtype.itemsize
        read_rows = rows_per_read(unit_rows=self._chunks.chunk[0], group_rows=group_rows, row_bytes=row_bytes)
        ahead = self._blocks_ahead(read_rows * row_bytes)
        return SourceFacts(
            path=path,
            format="zarr",
            name=name,
            rows=rows,
            classes=classes,
            dtype=dtype,
            read_rows=max(1, min(rows, read_rows)),
            read_overhead_bytes=self._overhead_bytes(read_rows, dtype, ahead),
            stored_bytes=self._chunks.stored_bytes(),
            codec=codec_text(self._array),
            layout=self._chunks.layout,
            class_names=class_names,
            carried=(_as_carried(self._ids),) if self._ids else (),
            target_name=self._targets.name if self._targets else None,
            boundary_rows=max(read_rows, group_rows),
            chunk_rows=self._chunks.chunk[0],
            class_chunks=-(-classes // self._chunks.chunk[1]),
            row_chunks=self._chunks.row_chunks,
            has_checksum=has_checksum(self._array),
            row_shape=(-1, *self._chunks.inner),
            row_kind="array",
        )

    def _blocks_ahead(self, block_bytes: int) -> int:
        return blocks_ahead(block_bytes) if self._files.is_far else 0

    def _overhead_bytes(self, read_rows: int, dtype: np.dtype[Any], ahead: int) -> int:
        """Encoded and decoded chunks of a block, side by side; those of its ids and targets; and the blocks ahead."""
        carried = sum(array.decoding_bytes(read_rows) for array in (self._ids, self._targets) if array)
        decoded = self._chunks.decoded_values(read_rows) * dtype.itemsize
        return 2 * decoded + carried + 3 * ahead * decoded


def _as_carried(ids: CarriedArray) -> Carried:
    return Carried(ids.name, ids.type, is_id=True, is_shared=ids.repeats > 1)


def _class_names(
    request: SourceRequest, store: Store, array: "zarr.Array[Any]", classes: int, where: str
) -> tuple[str, ...] | None:
    names = request.class_names or array.attrs.get("class_names") or store.class_names()
    return None if names is None else require_class_names(names, classes, where=where)


def _target_rule(targets: CarriedArray | None, classes: int, class_names: tuple[str, ...] | None) -> TargetRule | None:
    if targets is None:
        return None
    rule = TargetRule(targets.where, classes, class_names)
    rule.require_type(targets.type)
    return rule
