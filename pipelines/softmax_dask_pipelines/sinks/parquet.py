"""Writes a folder of Parquet files, `commit=000001/part-00000.parquet` and on: one a partition, a folder a commit.

Parts are written beside the output; one rename of their folder publishes them all.
"""

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from softmax_dask_pipelines import storage
from softmax_dask_pipelines.checksums import crc32c_of_file
from softmax_dask_pipelines.errors import InterruptedRunError
from softmax_dask_pipelines.sinks import OutputSpec, StoredObject
from softmax_dask_pipelines.sinks.background import Background
from softmax_dask_pipelines.sinks.buffers import PartitionBuffers
from softmax_dask_pipelines.sinks.parquet_layout import Batches, writer_options
from softmax_dask_pipelines.sinks.places import Place, sync_folders

_ROW_GROUP_ROWS = 1 << 20
"""Most rows of a row group where no column is wide."""


class ParquetSink:
    """Parquet folder at `spec.path`, built beside it."""

    def __init__(self, spec: OutputSpec, place: Place) -> None:
        self._spec, self._place = spec, place

    def prepare(self) -> None:
        """Make the folder of the parts."""
        self._place.prepare()
        storage.make_folder(self._parts)
        if self._spec.rows == 0:
            # No partition would write it, and a folder without a file has no schema.
            self.writer(0).close()

    def writer(self, number: int) -> "ParquetPartitionWriter":
        """Writer of partition `number`."""
        return ParquetPartitionWriter(self._spec, self._parts, self._place, number)

    def find(self, number: int, key: str) -> Path:
        """In the stage."""
        return self._stage / key

    def seal(self) -> tuple[StoredObject, ...]:
        """Make the names of the parts durable; each of them explains itself."""
        sync_folders([self._parts, self._place.stage])
        return ()

    @property
    def _stage(self) -> Path:
        assert isinstance(self._place.stage, Path), "configs have Parquet on local paths"
        return self._place.stage

    @property
    def _parts(self) -> Path:
        return self._stage / commit_folder(self._spec)


def commit_folder(spec: OutputSpec) -> str:
    """Folder of the parts inside the output."""
    return f"commit={spec.commit:06d}"


class ParquetPartitionWriter:
    """Writes a row group when a chunk of the wide columns is full; without any, larger ones at the end.

    Another thread syncs what is written.
    """

    def __init__(self, spec: OutputSpec, folder: Path, place: Place, number: int) -> None:
        self._path, self._durable = folder / f"part-{number:05d}.parquet", place.durable
        self._buffers = PartitionBuffers(spec, number)
        self._batches = Batches(spec, self._buffers)
        self._syncs: Background[None] = Background(1)
        with ExitStack() as stack:
            assert isinstance(place.scratch, Path), "configs have Parquet on local paths"
            self._temporary = stack.enter_context(storage.writing(self._path, scratch=place.scratch))
            options = writer_options(spec)
            self._file = stack.enter_context(pq.ParquetWriter(self._temporary, self._batches.schema, **options))
            # What was opened stays open until `close`, or goes with the first error.
            self._open = stack.pop_all()

    def reserve(self, rows: int) -> dict[str, NDArray[Any]]:
        """Views of the next rows, at most `rows`."""
        return self._buffers.reserve(rows)

    def advance(self, rows: int, carried: Mapping[str, Any], targets: NDArray[np.int64] | None) -> None:
        """Take over the rows that were filled; a row group that is full is written."""
        self._buffers.advance(rows, carried, targets)
        if self._buffers.chunk_is_ready():
            with ExitStack() as on_error:
                on_error.push(self._open)
                self._write_rows()
                on_error.pop_all()

    def drain(self) -> None:
        """Wait for what is being synced, and give back the memory of wide columns."""
        self._syncs.drain()
        self._buffers.release_wide()

    def close(self) -> tuple[StoredObject, ...]:
        """Write the footer; the file then has its name."""
        buffers = self._buffers
        with self._open:
            assert buffers.is_complete(), f"{buffers.filled} of {len(buffers.rows)} rows when closed"
            self._file.close()
            checksum = crc32c_of_file(self._temporary)
            self._syncs.finish()
            if self._durable:
                storage.sync_file(self._temporary)
        key = f"{self._path.parent.name}/{self._path.name}"
        return (StoredObject(key, self._path.stat().st_size, checksum),)

    def abandon(self) -> None:
        """Remove what is written."""
        self._syncs.abandon()
        with suppress(InterruptedRunError), self._open:
            raise InterruptedRunError("the partition is not closed.")

    def _write_rows(self) -> None:
        rows = pa.Table.from_batches([self._batches.current_chunk()])
        self._file.write_table(rows, row_group_size=_ROW_GROUP_ROWS)
        self._buffers.next_chunk()
        if self._durable and not self._buffers.is_complete():
            # Little is left to sync at the end: what was written reaches the disk while the next chunk is computed.
            self._syncs.call(storage.sync_file, self._temporary)
