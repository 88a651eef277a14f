"""What a worker does with one piece of a Jacobian: some rows, and of each matrix a stripe of lines."""

from dataclasses import dataclass
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softmax_dask import jacobian
from softmax_dask_pipelines.errors import InterruptedRunError
from softmax_dask_pipelines.sinks import OutputSpec, partition_row_range
from softmax_dask_pipelines.sinks.zarr import ZarrSink
from softmax_dask_pipelines.sources import SourceBlock
from softmax_dask_pipelines.sources.blocks import part_of


@dataclass(frozen=True, slots=True)
class Tiles:
    """How matrices are cut: as the library cuts those of a Dask array, and so are the chunks of the output."""

    rows: int
    lines: int
    columns: int
    stripes: int
    """Of `lines` lines each, in a matrix."""

    def bytes_of(self, dtype: np.dtype[Any]) -> int:
        """Of one tile."""
        return self.rows * self.lines * self.columns * dtype.itemsize


@dataclass(frozen=True, slots=True)
class JacobianReceipt:
    """What a piece came to."""

    rows: int
    """Of which it was the first stripe: each row is counted once."""
    undecidable: int
    """Of these rows."""
    bytes_written: int


@dataclass(frozen=True, slots=True)
class JacobianTask:
    """All that is needed to compute any piece of some partitions that follow one another."""

    first_partition: int
    block: SourceBlock
    """Their rows, read once for all tiles."""
    numbers: NDArray[np.int64]
    """Of these rows in the source."""
    sink: ZarrSink
    spec: OutputSpec
    tiles: Tiles
    temperature: float
    stop: Event
    """Set when the run is to end: pieces that have begun stop at the next tile."""

    @property
    def pieces(self) -> range:
        """Numbers of the pieces."""
        first, count = self.first_partition, -(-len(self.numbers) // self.spec.partition_rows)
        return range(first * self.tiles.stripes, (first + count) * self.tiles.stripes)

    @property
    def first_row(self) -> int:
        """Place in the output of the first of the rows."""
        return self.first_partition * self.spec.partition_rows

    def __call__(self, number: int) -> JacobianReceipt:
        """Compute piece `number` and store it. Nothing of it is visible yet."""
        partition, stripe = divmod(number, self.tiles.stripes)
        return _Piece(self, partition, stripe).run()


class _Piece:
    """The state of one piece while it is computed."""

    def __init__(self, task: JacobianTask, partition: int, stripe: int) -> None:
        self._task, self._partition, self._stripe = task, partition, stripe
        self._undecidable = 0
        self._bytes_written = 0

    def run(self) -> JacobianReceipt:
        is_first = self._stripe == 0
        writer = self._task.sink.writer(self._partition) if is_first else None
        places = partition_row_range(self._task.spec, self._partition)
        for start in range(places.start, places.stop, self._task.tiles.rows):
            block = self._write_tiles(start, min(start + self._task.tiles.rows, places.stop))
            if writer is not None:
                writer.advance(len(block.logits), block.carried, block.targets)
        if writer is not None:
            self._bytes_written += sum(stored.size_bytes for stored in writer.close())
            first = self._task.first_row
            self._put("row", (self._partition,), self._task.numbers[places.start - first : places.stop - first])
        return JacobianReceipt(len(places) if is_first else 0, self._undecidable, self._bytes_written)

    def _write_tiles(self, start: int, stop: int) -> SourceBlock:
        import dask.array as da  # as in `jacobian_job`

        task = self._task
        block = part_of(task.block, slice(start - task.first_row, stop - task.first_row))
        lazy = jacobian(
            da.from_array(block.logits, chunks=block.logits.shape),
            temperature=task.temperature,
            dtype=task.spec.wide_dtype,
        )
        for column in range(lazy.numblocks[2]):
            if task.stop.is_set():
                raise InterruptedRunError("stopped between two tiles, because the run ends.")
            tile = lazy.blocks[0, self._stripe, column].compute(scheduler="synchronous")
            if self._stripe == column == 0:
                self._undecidable += int(np.isnan(tile[:, 0, 0]).sum())
            self._put("jacobian", (start // task.tiles.rows, self._stripe, column), tile)
        return block

    def _put(self, name: str, chunk: tuple[int, ...], values: NDArray[Any]) -> None:
        self._bytes_written += self._task.sink.put(name, chunk, values).size_bytes
