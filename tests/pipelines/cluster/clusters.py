"""Dask clusters for tests: on loopback, without a dashboard, and quiet where workers are meant to die."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distributed import Client, LocalCluster

LOCAL: dict[str, Any] = {
    "host": "127.0.0.1",
    "dashboard_address": None,
    "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"},
}
"""Arguments of a LocalCluster that takes no port which somebody may have."""


@contextmanager
def client_of_cluster(n_workers: int, **options: Any) -> Iterator[Client]:
    """A client of a cluster that is there as long as the block."""
    with (
        LocalCluster(n_workers=n_workers, **LOCAL, **options) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client
