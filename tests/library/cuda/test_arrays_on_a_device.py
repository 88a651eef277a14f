"""The public functions, given arrays of CuPy: in and out on the device, also through Dask.

CuPy is a stand-in here, unless a real GPU is asked for.
"""

import subprocess
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import dask
import dask.array as da
import ml_dtypes
import numpy as np
import pytest

import softmax_dask
from softmax_dask import dispatch
from softmax_dask.errors import OutputBufferError, TargetError
from tests.library.cuda.fake_cupy import FakeDevice, fake_cupy
from tests.library.cuda.real_gpu import WANTED, RealGpu

LOGITS = np.random.default_rng(0).normal(0, 4, (6, 257)).astype(np.float32)
TARGETS = np.array([0, 3, -1, 256, 9, 1])
COLUMNS = (
    *("label", "confidence", "margin", "entropy", "probabilities", "nll", "target_rank", "correct", "top_k_labels"),
    *("top_k_log_probabilities", "tail_mass", "tail_divergence"),
)


@pytest.fixture
def gpu(request, monkeypatch) -> FakeDevice | RealGpu:
    """A GPU, or the emulator, which computes on arrays of a stand-in for CuPy."""
    device = RealGpu() if WANTED else FakeDevice(request.getfixturevalue("emulator"), fake_cupy())
    monkeypatch.setitem(sys.modules, "cupy", device.cupy)
    monkeypatch.setattr(import_module("softmax_dask.kernels.cuda"), "device", lambda: device)
    dispatch._backend.cache_clear()  # another test's module of that name
    return device


@pytest.fixture
def cupy(gpu) -> ModuleType:
    return gpu.cupy


def on_device(cupy: ModuleType, array: Any) -> Any:
    return cupy.asarray(array)


def on_host(array: Any) -> Any:
    return np.asarray(array.get() if hasattr(array, "get") else array)


def assert_near(found: Any, expected: Any) -> None:
    found, expected = (on_host(array).astype(np.float64) for array in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "jacobian"])
def test_functions_of_logits_stay_on_the_device(cupy, name):
    function = getattr(softmax_dask, name)

    found = function(on_device(cupy, LOGITS[:, :40]), temperature=1.7)

    assert type(found) is cupy.ndarray
    assert_near(found, function(LOGITS[:, :40], temperature=1.7))


@pytest.mark.parametrize("name", ["jvp", "vjp", "log_softmax_jvp", "log_softmax_vjp"])
def test_products_stay_on_the_device(cupy, name):
    function = getattr(softmax_dask, name)

    found = function(on_device(cupy, LOGITS), np.ones_like(LOGITS) * [[1.0]] + np.eye(6, 257))

    assert type(found) is cupy.ndarray
    assert_near(found, function(LOGITS, np.ones_like(LOGITS) * [[1.0]] + np.eye(6, 257)))


def test_decisions_stay_on_the_device(cupy):
    found = softmax_dask.decisions(on_device(cupy, LOGITS), COLUMNS, targets=TARGETS, top_k=3)

    expected = softmax_dask.decisions(LOGITS, COLUMNS, targets=TARGETS, top_k=3)
    assert {type(array) for array in found.values()} == {cupy.ndarray}
    for name in COLUMNS:
        assert_near(found[name], expected[name])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_16_bit_results_are_written_by_the_kernel(gpu, cupy, dtype):
    found = softmax_dask.softmax(on_device(cupy, LOGITS), dtype=dtype)

    assert found.dtype == dtype
    assert gpu.launched[-1].endswith(f"{'half' if dtype is np.float16 else 'bfloat'}_0")
    np.testing.assert_allclose(on_host(found).astype(np.float64), softmax_dask.softmax(LOGITS), rtol=2**-7, atol=1e-7)


@pytest.mark.parametrize("axis", [0, 1])
def test_any_axis_may_be_that_of_the_classes(cupy, axis):
    x = np.random.default_rng(1).normal(size=(5, 40, 3)).astype(np.float32)

    found = softmax_dask.softmax(on_device(cupy, x), axis=axis)

    assert_near(found, softmax_dask.softmax(x, axis=axis))


def test_lazy_arrays_keep_their_blocks_on_the_device(cupy):
    x = da.from_array(on_device(cupy, LOGITS), chunks=(4, -1), asarray=False)

    lazy = softmax_dask.decisions(x, ("label", "probabilities", "nll"), targets=on_device(cupy, TARGETS))

    found = dask.compute(lazy, scheduler="sync")[0]
    expected = softmax_dask.decisions(LOGITS, ("label", "probabilities", "nll"), targets=TARGETS)
    for name, array in found.items():
        assert type(array) is cupy.ndarray
        assert_near(array, expected[name])


def test_lazy_arrays_say_that_their_blocks_are_on_the_device(cupy):
    x = da.from_array(on_device(cupy, LOGITS), chunks=(4, -1), asarray=False)

    assert type(softmax_dask.softmax(x)._meta) is cupy.ndarray


def test_targets_of_the_host_are_checked(cupy):
    with pytest.raises(TargetError, match="targets hold 257 at row 1"):
        softmax_dask.decisions(on_device(cupy, LOGITS), ("nll",), targets=np.full(6, 257) * (np.arange(6) > 0))


def test_targets_on_the_device_that_are_no_class_count_as_none(cupy):
    targets = on_device(cupy, np.array([0, 257, -5, 2, 2, 2]))

    found = softmax_dask.decisions(on_device(cupy, LOGITS), ("nll", "target_rank"), targets=targets)

    np.testing.assert_array_equal(np.isnan(on_host(found["nll"])), [False, True, True, False, False, False])
    np.testing.assert_array_equal(on_host(found["target_rank"])[1:3], -1)


def test_out_may_be_filled_on_the_device(cupy):
    out = {"label": cupy.empty((6,), np.int32)}

    softmax_dask.decisions(on_device(cupy, LOGITS), ("label",), out=out)

    np.testing.assert_array_equal(on_host(out["label"]), LOGITS.argmax(axis=1))


def test_out_of_the_host_is_refused(cupy):
    with pytest.raises(OutputBufferError, match="is a ndarray; expected an array like the logits"):
        softmax_dask.decisions(on_device(cupy, LOGITS), ("label",), out={"label": np.empty(6, np.int32)})


def test_nothing_but_rows_of_a_device_loads_cupy():
    program = """
import subprocess
import sys
sys.modules["cupy"] = None  # an import fails
import numpy as np
import softmax_dask
import softmax_dask.kernels.cuda.rows
print(softmax_dask.softmax(np.zeros((1, 2), np.float32))[0, 0])
"""

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("0.5\n", "")
