"""pyarrow: a dataset's record batches, decoded by all of its threads."""

from pathlib import Path

import pyarrow.dataset as ds


def scan(source: Path) -> int:
    """All logits decoded, and nothing computed."""
    return sum(batch.num_rows for batch in ds.dataset(source).to_batches(columns=["logits"]))
