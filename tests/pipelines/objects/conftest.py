"""A real store on loopback: moto's server in a process of its own, behind a proxy that spoils answers."""

import os
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

pytest.importorskip("s3fs")
pytest.importorskip("moto")

from softmax_dask_pipelines import object_store
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


@pytest.fixture(scope="session")
def session_connections() -> Callable[..., Any]:
    return _connections()


@pytest.fixture
def bucket(
    proxy: Proxy,
    store_port: int,
    session_connections: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Bucket:
    """A bucket of this test's own, which the environment leads to, as it leads all these tests."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in settings(proxy.url, tmp_path_factory.getbasetemp()).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(object_store, "_file_system", session_connections)
    # Waits, of botocore and ours: a store that a test spoils is not the better for them.
    monkeypatch.setattr("softmax_dask_pipelines.object_store._ATTEMPTS", 1)
    monkeypatch.setattr("softmax_dask_pipelines.retrying.FIRST_WAIT_S", 0.001)
    return Bucket.made(f"bucket-{os.urandom(6).hex()}", store_port)


@pytest.fixture
def new_connections(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test that changes the environment."""
    monkeypatch.setattr(object_store, "_file_system", _connections())


def _connections() -> Callable[..., Any]:
    """Making one takes as long as a test. None is let go: s3fs waits a tenth of a second for its end, then it warns."""
    _MADE.append(cache(object_store._file_system.__wrapped__))
    return _MADE[-1]


_MADE: list[Callable[..., Any]] = []
