"""A small dump, and runs that are cut as those of millions of rows would be."""

from pathlib import Path

import pytest

from tests.pipelines import dumps


@pytest.fixture
def small_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks and partitions of some ten rows."""
    monkeypatch.setattr("softmax_dask_pipelines.sources.blocks.READ_BYTES", 240)
    monkeypatch.setattr("softmax_dask_pipelines.plan.CHUNK_BYTES", 240)
    monkeypatch.setattr("softmax_dask_pipelines.plan.PARTITION_BYTES", 500)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A Zarr group of 103 rows of 5 classes, with ids and targets."""
    return dumps.zarr_group(tmp_path / "in.zarr", dumps.logits(), chunks=(10, 5))
