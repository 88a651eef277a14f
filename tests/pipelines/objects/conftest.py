"""A real store on loopback: moto's server in a process of its own, behind a proxy that spoils answers."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("s3fs")
pytest.importorskip("moto")

from tests.pipelines.objects.buckets import Bucket
from tests.pipelines.objects.faults import Proxy
from tests.pipelines.objects.server import served, settings


@pytest.fixture(scope="session")
def store_port() -> Iterator[int]:
    with served() as port:
        yield port


@pytest.fixture(scope="session")
def session_proxy(store_port: int) -> Iterator[Proxy]:
    proxy = Proxy(store_port)
    yield proxy
    proxy.close()


@pytest.fixture
def proxy(session_proxy: Proxy) -> Iterator[Proxy]:
    session_proxy.forget()
    yield session_proxy
    session_proxy.forget()


@pytest.fixture
def bucket(proxy: Proxy, store_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket of this test's own, which the environment leads to."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in settings(proxy.url, tmp_path).items():
        monkeypatch.setenv(name, value)
    _forget_connections()
    # Waits, of botocore and ours: a store that a test spoils is not the better for them.
    monkeypatch.setattr("softmax_dask_pipelines.object_store._ATTEMPTS", 1)
    monkeypatch.setattr("softmax_dask_pipelines.retrying.FIRST_WAIT_S", 0.001)
    return Bucket.made(f"bucket-{os.urandom(6).hex()}", store_port)


def _forget_connections() -> None:
    from softmax_dask_pipelines import object_store

    object_store._file_system.cache_clear()
