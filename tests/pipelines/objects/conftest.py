"""A real store on loopback: moto's server in a process of its own, behind a proxy that spoils answers."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("s3fs")
pytest.importorskip("moto")

from tests.pipelines.objects.buckets import CANARY, Bucket
from tests.pipelines.objects.faults import Proxy


@pytest.fixture(scope="session")
def store_port() -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(server, port)
        yield port
    finally:
        server.terminate()
        server.wait()


def _wait_for(server: "subprocess.Popen[bytes]", port: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)  # a server says in no other way that it listens
    raise RuntimeError("moto's server did not begin to listen")


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
    settings: dict[str, Any] = {
        "AWS_ENDPOINT_URL": proxy.url,
        "AWS_ACCESS_KEY_ID": f"{CANARY}-id",
        "AWS_SECRET_ACCESS_KEY": f"{CANARY}-secret",
        "AWS_SESSION_TOKEN": f"{CANARY}-token",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "no-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    _forget_connections()
    # Waits, of botocore and ours: a store that a test spoils is not the better for them.
    monkeypatch.setattr("softmax_dask_pipelines.object_store._ATTEMPTS", 1)
    monkeypatch.setattr("softmax_dask_pipelines.retrying.FIRST_WAIT_S", 0.001)
    return Bucket.made(f"bucket-{os.urandom(6).hex()}", store_port)


def _forget_connections() -> None:
    from softmax_dask_pipelines import object_store

    object_store._file_system.cache_clear()
