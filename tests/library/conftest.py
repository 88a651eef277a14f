"""The backends under one contract, and what runs the CUDA text: the emulator, or a GPU where one is asked for."""

from importlib import import_module
from types import ModuleType
from zlib import crc32

import pytest

from tests.library.cuda import prepared
from tests.library.cuda.emulator import COMPILER, Emulator
from tests.library.cuda.real_gpu import WANTED, HostedGpu

SHARES = {"cpu": 4, "cuda": 12, "reference": 12}
"""One in so many of the contract's cases of a backend runs in `make test`, all do in `make test-long`. The reference is
plain NumPy: nothing in it hangs on the size of a register."""


@pytest.hookimpl(tryfirst=True)  # before cases are deselected by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    met: set[object] = set()
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        backend, function = params.get("kernels"), getattr(item, "function", None)
        if backend not in SHARES:
            continue
        wanted = (backend, function) not in met or crc32(item.name.encode()) % SHARES[backend] == 0
        if WANTED or (wanted and (backend != "cuda" or prepared.is_quick(params))):
            met.add((backend, function))
        else:
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def emulator(pytestconfig: pytest.Config) -> Emulator | HostedGpu:
    """A device that every test may launch kernels on; those that the contract needs are compiled together."""
    if WANTED:
        return HostedGpu()
    if COMPILER is None:
        pytest.skip("no g++, which compiles the CUDA kernels for the CPU")
    device = Emulator(pytestconfig.cache.mkdir("cuda-emulator"), prepared.QUICK)
    device.compile(prepared.kernels())
    return device


@pytest.fixture
def cuda(emulator: Emulator | HostedGpu, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The CUDA kernels, on arrays of the host."""
    module = import_module("softmax_dask.kernels.cuda")
    monkeypatch.setattr(module, "device", lambda: emulator)
    return module


@pytest.fixture(params=["reference", "cpu", "cuda"])
def kernels(request: pytest.FixtureRequest) -> ModuleType:
    """Row kernels of each backend."""
    if request.param == "cuda":
        module: ModuleType = request.getfixturevalue("cuda")
        return module
    return import_module(f"softmax_dask.kernels.{request.param}")
