"""`backend: cuda` on the emulator of the CUDA kernels or on a GPU, and machines without one."""

import json
import sys
from importlib import import_module
from threading import Event, Thread
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import zarr

from softmax_dask import decisions, dispatch
from softmax_dask_pipelines import backend, score
from softmax_dask_pipelines.errors import ConfigError
from softmax_dask_pipelines.notices import BackendWarning
from tests.library.cuda import prepared
from tests.library.cuda.emulator import COMPILER, Emulator
from tests.library.cuda.fake_cupy import FakeDevice, fake_cupy, fake_cupyx
from tests.library.cuda.real_gpu import WANTED, RealGpu
from tests.pipelines.cluster.clusters import LOCAL
from tests.pipelines.command import softmax_dask

COLUMNS = ("label", "confidence", "entropy", "probabilities", "correct")
OPTIONS: dict[str, Any] = {"temperature": 1.7, "top_k": 0, "dtype": np.dtype(np.float32)}


@pytest.fixture
def gpu(pytestconfig, monkeypatch) -> FakeDevice | RealGpu:
    """A GPU, as far as the program can see; a real one where that is asked for."""
    if not WANTED and COMPILER is None:
        pytest.skip("no g++, which compiles the CUDA kernels for the CPU")
    device = RealGpu() if WANTED else _emulated(pytestconfig, monkeypatch)
    monkeypatch.delitem(sys.modules, "softmax_dask_pipelines.streaming", raising=False)
    monkeypatch.setattr(import_module("softmax_dask.kernels.cuda"), "device", lambda: device)
    dispatch._backend.cache_clear()
    return device


def _emulated(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    module = fake_cupy()
    for name, found in (("cupy", module), ("cupyx", fake_cupyx())):
        monkeypatch.setitem(sys.modules, name, found)
    return FakeDevice(Emulator(pytestconfig.cache.mkdir("cuda-emulator"), prepared.QUICK), module)


@pytest.fixture
def no_cupy(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.delitem(sys.modules, "softmax_dask_pipelines.streaming", raising=False)


@pytest.fixture
def broken_cupy(monkeypatch) -> None:
    """CuPy where there is no driver: it imports, and anything else raises."""

    def fails(*_: Any) -> Any:
        raise RuntimeError("cudaErrorInsufficientDriver: CUDA driver version\nis insufficient")

    module = ModuleType("cupy")
    module.zeros = fails  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setitem(sys.modules, "cupyx", fake_cupyx())
    monkeypatch.delitem(sys.modules, "softmax_dask_pipelines.streaming", raising=False)


@pytest.fixture
def dump(tmp_path) -> Any:
    rng = np.random.default_rng(0)
    store = zarr.open_group(tmp_path / "in.zarr", mode="w")
    store.create_array("logits", data=rng.normal(0, 4, (500, 100)).astype(np.float32), chunks=(64, 100))
    return tmp_path / "in.zarr"


def sample(rows: int, dtype: Any = np.float32) -> tuple[Any, Any]:
    rng = np.random.default_rng(rows)
    return rng.normal(0, 4, (rows, 100)).astype(dtype), rng.integers(-1, 100, rows)


def buffers(rows: int) -> dict[str, Any]:
    dtypes = {"label": np.int32, "correct": np.int8}
    return {n: np.full((rows, 100) if n == "probabilities" else rows, 77, dtypes.get(n, np.float32)) for n in COLUMNS}


# ---- a Dask cluster


def test_the_workers_of_a_cluster_compute_on_their_gpu(gpu, dump, tmp_path):
    # One in a thread of this process: the stand-in for CuPy is here alone.
    kwargs = {**LOCAL, "n_workers": 1, "threads_per_worker": 2, "processes": False, "protocol": "tcp://"}
    cluster = {"class": "distributed.LocalCluster", "kwargs": kwargs, "scale": 1}
    score(dump, tmp_path / "here.zarr", columns=["label", "probabilities"], backend="cuda")
    gpu.launched.clear()

    score(dump, tmp_path / "out.zarr", columns=["label", "probabilities"], backend="cuda", cluster=cluster)

    assert gpu.launched
    for name in ("label", "probabilities"):
        found, expected = (zarr.open_array(tmp_path / each / name, mode="r")[:] for each in ("out.zarr", "here.zarr"))
        np.testing.assert_array_equal(found, expected)


# ---- streams


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 100])
def test_rows_of_the_host_are_decided_as_on_the_cpu(gpu, rows):
    streams = import_module("softmax_dask_pipelines.streaming").HostStreams()
    logits, targets = sample(rows)
    out = buffers(rows)

    streams(logits, COLUMNS, targets=targets, out=out, **OPTIONS)

    expected = decisions(logits, COLUMNS, targets=targets, **OPTIONS)
    for name in COLUMNS:
        np.testing.assert_allclose(out[name], expected[name], rtol=1e-6, atol=1e-6)


def test_buffers_may_be_used_again_at_once(gpu):
    streams = import_module("softmax_dask_pipelines.streaming").HostStreams()
    first, second = sample(50)[0], sample(90)[0]
    reused, out, more = np.empty((90, 100), np.float32), buffers(50), buffers(90)
    reused[:50] = first
    streams(reused[:50], ("label",), out={"label": out["label"]}, **OPTIONS)
    reused[...] = second

    streams(reused, ("label",), out={"label": more["label"]}, **OPTIONS)

    np.testing.assert_array_equal(out["label"], first.argmax(axis=1))
    np.testing.assert_array_equal(more["label"], second.argmax(axis=1))


def test_16_bit_logits_cross_the_bus_as_they_are(gpu):
    streams = import_module("softmax_dask_pipelines.streaming").HostStreams()
    logits, _ = sample(20, np.float16)
    out = {"label": np.empty(20, np.int32)}

    streams(logits, ("label",), out=out, **OPTIONS)

    np.testing.assert_array_equal(out["label"], logits.argmax(axis=1))
    assert all("half" in name for name in gpu.launched)


def test_threads_take_turns(gpu):
    streams = import_module("softmax_dask_pipelines.streaming").HostStreams()
    samples = [sample(rows)[0] for rows in (30, 40, 50, 60)]
    outs = [{"label": np.empty(len(logits), np.int32)} for logits in samples]
    threads = [
        Thread(target=streams, args=(logits, ("label",)), kwargs={"out": out, **OPTIONS})
        for logits, out in zip(samples, outs, strict=True)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for logits, out in zip(samples, outs, strict=True):
        np.testing.assert_array_equal(out["label"], logits.argmax(axis=1))


def test_rows_are_copied_to_pinned_memory_while_another_thread_has_the_gpu(gpu, monkeypatch):
    module = import_module("softmax_dask_pipelines.streaming")
    streams, copied = module.HostStreams(), Event()
    pinned = module._Slot._pinned
    monkeypatch.setattr(module._Slot, "_pinned", lambda *arguments: (pinned(*arguments), copied.set())[0])
    logits = sample(30)[0]
    out = {"label": np.empty(30, np.int32)}
    thread = Thread(target=streams, args=(logits, ("label",)), kwargs={"out": out, **OPTIONS})

    with streams._turn:
        thread.start()
        assert copied.wait(60)
        assert not gpu.launched

    thread.join()
    np.testing.assert_array_equal(out["label"], logits.argmax(axis=1))


def test_large_blocks_go_in_pieces(gpu, monkeypatch):
    module = import_module("softmax_dask_pipelines.streaming")
    monkeypatch.setattr(module, "_PIECE_BYTES", 4000)
    logits = sample(100)[0]
    out = {"label": np.empty(100, np.int32)}

    module.HostStreams()(logits, ("label",), out=out, **OPTIONS)

    assert len(gpu.launched) == 3
    np.testing.assert_array_equal(out["label"], logits.argmax(axis=1))


def test_an_error_leaves_nothing_waiting(gpu):
    streams = import_module("softmax_dask_pipelines.streaming").HostStreams()
    logits, _ = sample(30)
    bad = np.full(30, 100)

    with pytest.raises(ValueError, match="targets hold 100"):
        streams(logits, ("correct",), targets=np.where(np.arange(30) < 12, 0, bad), out=buffers(30), **OPTIONS)

    out = {"label": np.empty(30, np.int32)}
    streams(logits, ("label",), out=out, **OPTIONS)
    np.testing.assert_array_equal(out["label"], logits.argmax(axis=1))


# ---- runs


@pytest.mark.parametrize("wanted", ["cuda", "auto"])
def test_a_run_on_a_gpu_gives_what_a_run_on_the_cpu_gives(gpu, dump, tmp_path, wanted):
    score(dump, tmp_path / "gpu.zarr", columns=("label", "probabilities"), backend=wanted)

    score(dump, tmp_path / "cpu.zarr", columns=("label", "probabilities"))
    found, expected = (zarr.open_group(tmp_path / f"{name}.zarr", mode="r") for name in ("gpu", "cpu"))
    assert gpu.launched
    np.testing.assert_array_equal(found["label"][:], expected["label"][:])
    np.testing.assert_allclose(found["probabilities"][:], expected["probabilities"][:], rtol=1e-6)


def test_another_backend_is_another_plan(gpu, dump, tmp_path):
    score(dump, tmp_path / "out.zarr", backend="cuda")

    with pytest.raises(Exception, match="kernel: cuda-v"):
        score(dump, tmp_path / "out.zarr", backend="cpu")


def test_auto_falls_back_to_the_cpu_in_one_line(no_cupy, dump, tmp_path):
    with pytest.warns(
        BackendWarning, match=r"^backend auto computes on the CPU: CuPy is not installed\. For a GPU: pip"
    ):
        score(dump, tmp_path / "out.zarr", backend="auto")

    assert (tmp_path / "out.zarr").exists()


def test_cuda_without_cupy_is_refused_with_the_remedy(no_cupy, dump, tmp_path):
    with pytest.raises(ConfigError, match=r"backend: is cuda, but CuPy is not installed; .*softmax-dask\[gpu\]"):
        score(dump, tmp_path / "out.zarr", backend="cuda")

    assert not (tmp_path / "out.zarr").exists()


def test_cuda_without_a_driver_says_so_in_one_line(broken_cupy, dump, tmp_path):
    with pytest.raises(ConfigError) as caught:
        score(dump, tmp_path / "out.zarr", backend="cuda")

    assert "CuPy fails: RuntimeError: cudaErrorInsufficientDriver: CUDA driver version is insufficient;" in str(
        caught.value
    )


def test_the_command_line_refuses_cuda_with_exit_code_2(no_cupy, dump, tmp_path):
    found = softmax_dask("score", str(dump), str(tmp_path / "out.zarr"), "--backend", "cuda")

    assert found.code == 2
    assert found.err.count("\n") == 1
    assert not (tmp_path / "out.zarr").exists()


def test_an_unknown_backend_is_refused(dump, tmp_path):
    found = softmax_dask("score", str(dump), str(tmp_path / "out.zarr"), "--backend", "gpu")

    assert found.code == 2
    assert found.err == "Error: --backend: is 'gpu'; expected 'cpu', 'cuda' or 'auto'.\n"


def test_doctor_says_what_auto_would_take(no_cupy):
    found = json.loads(softmax_dask("doctor", "--json").out)

    assert found["gpu"]["trouble"] == "CuPy is not installed"


def test_a_gpu_that_works_is_no_trouble(gpu):
    assert backend.trouble_with_gpu() is None
