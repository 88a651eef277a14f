"""What a run that writes Jacobians takes in memory, and how many rows it takes at once: integers only."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from softmax_dask_pipelines.errors import MemoryBudgetError
from softmax_dask_pipelines.jacobian_task import Tiles
from softmax_dask_pipelines.job import carried_bytes
from softmax_dask_pipelines.plan import PARTITION_BYTES, PROCESS_BYTES, RAISE
from softmax_dask_pipelines.selection import NUMBER_BYTES
from softmax_dask_pipelines.sources import SourceFacts

_TILES_AT_ONCE = 4
"""Of a thread: computed, encoded, and room for what Dask and the codec hold beside them."""
_PIECES_PER_THREAD = 3

_GATHERED_BYTES = 32 << 20
"""Of rows that are read before their matrices are computed: whole row groups, and many pieces."""


@dataclass(frozen=True, slots=True)
class JacobianMemory:
    """What a run takes, by the number of its threads and of the chosen rows."""

    facts: SourceFacts
    tiles: Tiles
    dtype: np.dtype[Any]
    wanted_threads: int
    limit: int

    def threads(self, rows: int) -> int:
        """As many as the limit allows."""
        threads = min(self.wanted_threads, (self.limit - self._fixed_bytes(rows)) // self._thread_bytes())
        if threads < 1:
            raise MemoryBudgetError(
                f"memory_limit is {self.limit:,} bytes; expected at least {self.peak_bytes(1, rows):,}: "
                f"{PROCESS_BYTES:,} for the process, {self._fixed_bytes(rows) - PROCESS_BYTES:,} for the chosen rows "
                f"and {self._thread_bytes():,} for one thread. {RAISE}, choose fewer rows, or store the "
                "logits in smaller chunks."
            )
        return threads

    def most_rows(self) -> int:
        """Whose numbers fit beside the threads of the search."""
        searching = PROCESS_BYTES + self.threads(0) * self._reading_bytes()
        return (self.limit - searching) // NUMBER_BYTES

    def batch_rows(self) -> int:
        """Rows that are read at once, so many at least that a partition is whole."""
        return max(_GATHERED_BYTES // self._row_bytes(), _full_partition_rows(self.tiles, self.dtype))

    def peak_bytes(self, threads: int, rows: int) -> int:
        """Of the whole process, at most."""
        return self._fixed_bytes(rows) + threads * self._thread_bytes()

    def _fixed_bytes(self, rows: int) -> int:
        return PROCESS_BYTES + rows * NUMBER_BYTES + min(rows, self.batch_rows()) * self._row_bytes()

    def _thread_bytes(self) -> int:
        return self._reading_bytes() + _TILES_AT_ONCE * self.tiles.bytes_of(self.dtype)

    def _reading_bytes(self) -> int:
        return self.facts.read_rows * self._logits_bytes() + self.facts.read_overhead_bytes

    def _row_bytes(self) -> int:
        return self._logits_bytes() + carried_bytes(self.facts)

    def _logits_bytes(self) -> int:
        return self.facts.classes * self.facts.dtype.itemsize


def partition_rows(tiles: Tiles, dtype: np.dtype[Any], rows: int, threads: int) -> int:
    """Rows of a piece: about PARTITION_BYTES of its stripe, less when there are few, so that each thread gets some."""
    fair = -(-rows // (threads * _PIECES_PER_THREAD * tiles.rows))
    return min(_full_partition_rows(tiles, dtype), tiles.rows * max(1, fair))


def _full_partition_rows(tiles: Tiles, dtype: np.dtype[Any]) -> int:
    return tiles.rows * max(1, PARTITION_BYTES // tiles.bytes_of(dtype))
