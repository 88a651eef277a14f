"""Compiled kernels are kept on disk, are forgotten when any source of theirs changes, and never stop a program."""

import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import pytest

from softmax_dask.kernels.cpu import compile as compiling

ROOT, HERE = Path(__file__).parents[2], Path(__file__).parent

USE_ALL = """
import json
import numpy as np
from softmax_dask import decisions, softmax
from softmax_dask.kernels.cpu import row, tile

for classes in (4, 300):
    x = np.zeros((3, classes), "float32")
    softmax(x), decisions(x)
kernels = (row.softmax_row, row.decision_row, tile.softmax_tile, tile.decision_tile)
print(json.dumps([[sum(k.stats.cache_hits.values()), sum(k.stats.cache_misses.values())] for k in kernels]))
"""

USE_ONE = """
import json
from tripling import tripled as kernel

kernel(2.0)
print(json.dumps([sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values())]))
"""

USE_TYPE = """
import json, sys
from tripling import tripled

print(json.dumps(tripled(json.loads(sys.argv[1]))))
"""

KILLED_AS_IT_WRITES = f"""
import os, signal
os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
{USE_ONE}
"""

ON_A_FULL_DISK = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
{USE_ONE}
"""

THEN_ANOTHERS = f"""
{USE_ALL}
import sys
import numba
print(json.dumps("numba.np.arraymath" in sys.modules))
print(json.dumps(numba.njit(lambda x: np.sort(x).sum())(np.arange(4))))
{USE_ONE}
"""

SOURCES = sorted(path.name for path in (ROOT / "softmax_dask" / "kernels" / "cpu").glob("*.py"))

SPOILT = {
    "empty": lambda content: b"",
    "cut short": lambda content: content[:1000],
    "zeros at the end": lambda content: content[:-512] + bytes(512),
    "one bit": lambda content: content[:2000] + bytes([content[2000] ^ 1]) + content[2001:],
    "another file": lambda content: b"not ours",
}


def run(code: str, root: Path, cache: Path, **environment: str) -> str:
    done = start(code, root, cache, **environment)
    found, said = done.communicate()
    assert done.returncode == 0, said
    return found


def start(code: str, root: Path, cache: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        cwd=root,
        env=os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{HERE}", "NUMBA_CACHE_DIR": str(cache)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def files_in(folder: Path) -> dict[str, int]:
    """Names and times of all files."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the library, and of the kernel beside it, that a test may edit."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "softmax_dask", tmp_path / "copy" / "softmax_dask", ignore=ignored)
    shutil.copy(HERE / "tripling.py", tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that one process filled."""
    folder = tmp_path_factory.mktemp("warm")
    run(USE_ALL, ROOT, folder)
    return folder


# ---- settings of Numba


@pytest.mark.parametrize("of", ["compiled", "loaded"])
def test_where_numba_is_told_to_compile_nothing_kernels_are_all_the_same(tmp_path, warm, of):
    code = """
import numba, numpy as np, softmax_dask
print(softmax_dask.softmax(np.zeros((3, 4), np.float32)).tolist())
assert not hasattr(numba.njit(lambda x: x), "overloads")
"""
    cache = {"compiled": tmp_path, "loaded": warm}[of]

    assert json.loads(run(code, ROOT, cache, NUMBA_DISABLE_JIT="1")) == [[0.25] * 4] * 3


# ---- steps


def test_a_step_is_no_machine_code_before_it_is_part_of_a_kernel():
    doubled = compiling.step(lambda x: x + x)
    run = numba.njit(lambda x: doubled(x) + 1.0)

    found = run(3.0)

    (compiled,) = doubled.overloads.values()
    engine = compiled.library.codegen._engine
    assert found == 7.0
    assert not engine.is_symbol_defined(compiled.fndesc.llvm_func_name)


# ---- from process to process


@pytest.mark.slow
def test_a_second_process_compiles_nothing(warm):
    found = json.loads(run(USE_ALL, ROOT, warm))

    assert found == [[1, 0]] * 4  # hits, misses


@pytest.mark.slow
def test_what_compiles_is_loaded_when_something_is_compiled(warm, tmp_path):
    shutil.copytree(warm, tmp_path / "cache")

    found = [json.loads(line) for line in run(THEN_ANOTHERS, ROOT, tmp_path / "cache").splitlines()]

    assert found == [[[1, 0]] * 4, False, 6, [0, 1]]


@pytest.mark.slow
def test_the_cache_does_not_grow_from_run_to_run(warm):
    before = files_in(warm)

    run(USE_ALL, ROOT, warm)

    assert files_in(warm) == before


@pytest.mark.slow
def test_processes_that_begin_at_once_are_all_right(tmp_path):
    started = [start(USE_TYPE, ROOT, tmp_path, value) for value in ("2", "2.5", "2", "2.5")]

    assert [json.loads(process.communicate()[0]) for process in started] == [6, 7.5, 6, 7.5]


@pytest.mark.slow
def test_a_process_that_is_killed_as_it_writes_leaves_a_cache_that_works(tmp_path):
    killed = start(KILLED_AS_IT_WRITES, ROOT, tmp_path)
    killed.communicate()

    found = json.loads(run(USE_ONE, ROOT, tmp_path))

    assert (killed.returncode, found) == (-signal.SIGKILL, [0, 1])  # hits, misses


# ---- edits


@pytest.mark.slow
def test_an_edit_of_another_file_makes_kernels_compile_again(tmp_path, copy):
    run(USE_ONE, copy, tmp_path / "cache")
    edited = copy / "softmax_dask" / "kernels" / "cpu" / "simd.py"
    edited.write_text(edited.read_text() + "\n# edited\n")

    found = json.loads(run(USE_ONE, copy, tmp_path / "cache"))

    assert found == [0, 1]  # hits, misses


@pytest.mark.parametrize("name", SOURCES)
def test_an_edit_of_any_file_changes_the_stamp(copy, monkeypatch, name):
    before = stamp_of(copy, monkeypatch)
    edited = copy / "softmax_dask" / "kernels" / "cpu" / name
    edited.write_text(edited.read_text() + "\n# edited\n")

    after = stamp_of(copy, monkeypatch)

    assert after != before


def test_the_stamp_of_equal_sources_is_equal(copy, monkeypatch):
    found = stamp_of(copy, monkeypatch)

    assert found == compiling.package_stamp.__wrapped__()


@pytest.mark.parametrize("edit", ["", "# edited"], ids=["as it was", "edited"])
def test_a_kernel_elsewhere_is_compiled_again_when_its_file_is_edited(here, tmp_path, edit):
    file = tmp_path / "elsewhere.py"
    file.write_text(ELSEWHERE)
    kernel_in(file)(2.0)
    file.write_text(ELSEWHERE + edit)
    again = kernel_in(file)

    found = again(2.0)

    assert (found, counts(again)) == (6.0, [0, 1] if edit else [1, 0])  # hits, misses


def test_a_kernel_whose_globals_cannot_be_pickled_stays_in_memory(here):
    file = here / "elsewhere.py"
    file.write_text(ELSEWHERE)
    found: dict[str, Any] = {"capsule": datetime.datetime_CAPI}  # type: ignore[attr-defined]
    exec(compile(file.read_text(), str(file), "exec"), found)

    assert found["tripled"](2.0) == 6.0
    assert [name for name in files_in(here) if name.endswith(".nbc")] == []


def test_of_a_kernel_that_was_typed_in_nothing_is_kept(here):
    typed = {"kernel": compiling.kernel}
    exec(ELSEWHERE, typed)

    found = typed["tripled"](2.0)

    assert (found, files_in(here)) == (6.0, {})


# ---- folders


@pytest.mark.slow
def test_where_no_folder_may_be_written_kernels_are_compiled_in_memory(tmp_path, copy):
    (copy / "__pycache__").write_text("no folder")
    nowhere = tmp_path / "file"
    nowhere.write_text("no folder")

    found = json.loads(run(USE_ONE, copy, nowhere, XDG_CACHE_HOME=str(nowhere)))

    assert found == [0, 1]  # hits, misses


@pytest.mark.slow
def test_a_full_disk_stops_no_program(tmp_path):
    found = json.loads(run(ON_A_FULL_DISK, ROOT, tmp_path))

    assert found == [0, 1]  # hits, misses


@pytest.mark.slow
def test_a_full_disk_leaves_no_files(tmp_path):
    run(ON_A_FULL_DISK, ROOT, tmp_path)

    assert not files_in(tmp_path)


def test_the_folder_is_named_by_the_host(here):
    found = Path(compiling.kernel(doubled).stats.cache_path)

    assert (found.name, found.is_relative_to(here)) == (compiling.host_folder(), True)


@pytest.mark.parametrize(
    ("cpu", "features", "same"),
    [("zen", "+avx2", True), ("zen", "+avx2,+avx512f", False), ("lake", "+avx2", False)],
)
def test_hosts_share_a_folder_if_their_cpus_are_equal(monkeypatch, cpu, features, same):
    found = folder_of(cpu, features, monkeypatch)

    assert (found == folder_of("zen", "+avx2", monkeypatch)) is same


# ---- files


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_file_that_is_not_whole_is_compiled_again(here, spoil):
    compiling.kernel(doubled)(2.0)
    (file,) = here.rglob("*.nbc")
    file.write_bytes(SPOILT[spoil](file.read_bytes()))
    again = compiling.kernel(doubled)

    found = again(2.0)

    assert (found, counts(again)) == (4.0, [0, 1])  # hits, misses


def test_a_file_that_is_not_whole_is_replaced(here):
    compiling.kernel(doubled)(2.0)
    (file,) = here.rglob("*.nbc")
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])

    compiling.kernel(doubled)(2.0)

    assert len(file.read_bytes()) == len(whole)


def test_a_file_that_cannot_be_read_is_compiled_again(here):
    compiling.kernel(doubled)(2.0)
    (file,) = here.rglob("*.nbc")
    file.unlink()
    file.mkdir()
    again = compiling.kernel(doubled)

    found = again(2.0)

    assert (found, counts(again)) == (4.0, [0, 1])  # hits, misses


def test_a_signature_has_a_file_of_its_own(here):
    first = compiling.kernel(doubled)

    first(2.0), first(2)

    assert len(files_in(here)) == 2


def test_files_of_other_sources_are_removed(here, monkeypatch):
    compiling.kernel(doubled)(2.0)
    old = files_in(here)
    monkeypatch.setattr(compiling, "package_stamp", lambda: "0" * 64)

    compiling.kernel(doubled)(2.0)

    assert (len(old), len(files_in(here)), old.keys() & files_in(here).keys()) == (1, 1, set())


def test_files_of_other_kernels_stay(here, monkeypatch):
    compiling.kernel(tripled)(2.0)
    old = files_in(here)
    monkeypatch.setattr(compiling, "package_stamp", lambda: "0" * 64)

    compiling.kernel(doubled)(2.0)

    assert old.items() <= files_in(here).items()


def test_a_save_amid_another_save_is_not_lost(tmp_path):
    ours, theirs = (compiling._KernelFiles(str(tmp_path), "kernel", "stamp") for _ in range(2))
    dump = ours._dump

    def dump_after_them(data):
        ours._dump = dump
        theirs.save("their key", "their code")
        return dump(data)

    ours._dump = dump_after_them

    ours.save("our key", "our code")

    assert [ours.load("our key"), ours.load("their key")] == ["our code", "their code"]


def test_flush_forgets_what_was_saved(here):
    used = compiling.kernel(doubled)
    used(2.0)

    used._cache.flush()

    assert not files_in(here)


# ---- what the tests share


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for the cache of this process."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return tmp_path


ELSEWHERE = """
from softmax_dask import kernel

@kernel
def tripled(x):
    return x * 3
"""


def kernel_in(file: Path) -> Any:
    """That of `ELSEWHERE` in this file, as of a module that is imported."""
    found: dict[str, Any] = {"__name__": __name__}  # of no module, Numba would pickle its globals, `builtins` and all
    exec(compile(file.read_text(), str(file), "exec"), found)
    return found["tripled"]


def doubled(x):
    return x * 2


def tripled(x):
    return x * 3


def counts(kernel: Any) -> list[int]:
    return [sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values())]


def folder_of(cpu: str, features: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder that a machine with this CPU would have."""
    codegen = SimpleNamespace(magic_tuple=lambda: ("x86_64-unknown-linux-gnu", cpu, features))
    target = SimpleNamespace(target_context=SimpleNamespace(codegen=lambda: codegen))
    with monkeypatch.context() as patch:
        patch.setattr(compiling, "cpu_target", target)
        folder: str = compiling.host_folder.__wrapped__()
    return folder


def stamp_of(root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The stamp that the package would have at `root`."""
    with monkeypatch.context() as patch:
        patch.setattr(compiling, "__file__", str(root / "softmax_dask" / "kernels" / "cpu" / "compile.py"))
        stamp: str = compiling.package_stamp.__wrapped__()
    return stamp
