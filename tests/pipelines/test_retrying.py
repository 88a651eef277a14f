"""A storage that is away for a moment costs an attempt; bad data, full disks and bugs cost none."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, current_thread

import pytest

from softmax_dask_pipelines import disk, retrying, run
from softmax_dask_pipelines.errors import (
    CorruptFileError,
    DiskFullError,
    InterruptedRunError,
    SourceUnavailableError,
    StorageFailedError,
)
from softmax_dask_pipelines.notices import NoteWarning
from softmax_dask_pipelines.retrying import Retrying, attempted
from softmax_dask_pipelines.sources import SourceBlock, zarr_files
from softmax_dask_pipelines.sources.zarr import ZarrSource
from tests.pipelines import dumps
from tests.pipelines.command import softmax_dask, tree

AGAIN = 75

pytestmark = pytest.mark.filterwarnings("ignore::softmax_dask_pipelines.notices.NoteWarning")


class Failing:
    """Fails so many times with these errors in turn, then returns 7."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self, *_: object) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return 7


def _wrapped(kind: type[Exception], cause: OSError) -> Exception:
    error = kind(f"dump.parquet: is no whole Parquet file ({cause})")
    error.__cause__ = cause
    return error


def _failed(code: int) -> OSError:
    return OSError(code, os.strerror(code), "dump")


PASSING = [
    _failed(errno.EIO),
    _failed(errno.ESTALE),
    _failed(errno.EBUSY),
    TimeoutError("no answer"),
    ConnectionResetError(errno.ECONNRESET, "reset"),
    _wrapped(CorruptFileError, _failed(errno.EIO)),
    _wrapped(StorageFailedError, _failed(errno.EIO)),
]
LASTING = [
    _failed(errno.ENOENT),
    _failed(errno.EACCES),
    _wrapped(CorruptFileError, OSError("the footer is cut short")),
    _wrapped(DiskFullError, _failed(errno.ENOSPC)),
    CorruptFileError("bad data"),
    ValueError("a bug"),
    MemoryError(),
    InterruptedRunError("stopped"),
]


def _files(folder: str) -> dict[str, bytes]:
    root = Path(folder)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def _no_wait(_: float) -> None:
    pass


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_may_pass_is_tried_again(error):
    call = Failing(error, error)

    assert attempted(call, retries=2, what="it", wait=_no_wait) == 7
    assert call.calls == 3


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_what_will_not_pass_is_raised_at_once(error):
    call = Failing(error)

    with pytest.raises(type(error)) as caught:
        attempted(call, retries=2, what="it", wait=_no_wait)

    assert caught.value is error
    assert call.calls == 1


def test_after_the_last_attempt_the_storage_is_away():
    call = Failing(*[_failed(errno.EIO)] * 9)

    with pytest.raises(
        SourceUnavailableError, match=r"^dump: cannot be read now \(Input/output error\), tried 3 times;"
    ):
        attempted(call, retries=2, what="it", wait=_no_wait)

    assert call.calls == 3


def test_what_fails_when_writing_stays_what_it_is():
    error = _wrapped(StorageFailedError, _failed(errno.EIO))

    with pytest.raises(StorageFailedError) as caught:
        attempted(Failing(error, error), retries=1, what="it", wait=_no_wait)

    assert caught.value is error


def test_no_retries_are_one_attempt():
    call = Failing(TimeoutError("no answer"))

    with pytest.raises(SourceUnavailableError, match=r"^it: cannot be read now \(no answer\), tried once;"):
        attempted(call, retries=0, what="it", wait=_no_wait)


def test_each_wait_is_about_twice_the_last_one():
    waits: list[float] = []

    attempted(Failing(*[TimeoutError()] * 9), retries=9, what="it", wait=waits.append)

    longest = [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=True))


def test_a_run_that_ends_does_not_wait():
    stop = Event()
    stop.set()

    assert Retrying(Failing(*[TimeoutError()] * 9), retries=9, stop=stop)(3) == 7


def test_an_attempt_is_told():
    with pytest.warns(NoteWarning, match=r"^partition 3: no answer; tried again, attempt 2 of 3\.$"):
        Retrying(Failing(TimeoutError("no answer")), retries=2, stop=_set())(3)


def _set() -> Event:
    stop = Event()
    stop.set()
    return stop


class TestWholeRuns:
    """Faults that are put under the sources and sinks of a run."""

    @pytest.fixture
    def config(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setattr(retrying, "FIRST_WAIT_S", 0.001)
        monkeypatch.chdir(tmp_path)
        dumps.zarr_array(tmp_path / "in.zarr", dumps.logits(), chunks=(10, 5))
        table = dumps.parquet_table({"logits": dumps.fixed_lists(dumps.logits())})
        dumps.parquet_file(tmp_path / "in.parquet", table)
        (tmp_path / "run.yaml").write_text("source: {path: in.zarr}\noutput: {path: out.parquet}\nthreads: 1\n")
        return "run.yaml"

    @staticmethod
    def _break(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, fails: Callable[[int], bool]) -> list[int]:
        """Have calls fail by their number, with EIO; the list counts them."""
        whole, calls = getattr(owner, name), [0]

        def broken(*arguments: object, **options: object) -> object:
            calls[0] += 1
            if fails(calls[0]):
                raise _failed(errno.EIO)
            return whole(*arguments, **options)

        monkeypatch.setattr(owner, name, broken)
        return calls

    @staticmethod
    def _cut(monkeypatch: pytest.MonkeyPatch, fails: Callable[[int], bool]) -> list[int]:
        """Have reads fail, by their number, behind their first block; the list counts them."""
        whole, calls = ZarrSource.read, [0]

        def broken(self: ZarrSource, start: int, stop: int) -> Iterator[SourceBlock]:
            calls[0] += 1
            number = calls[0]
            for block in whole(self, start, stop):
                yield block
                if fails(number):
                    raise _failed(errno.EIO)

        monkeypatch.setattr(ZarrSource, "read", broken)
        return calls

    @pytest.mark.parametrize("name", ["zarr", "parquet"])
    def test_a_read_that_fails_once_costs_nothing(self, config, monkeypatch, name):
        columns = "columns=[label, probabilities]"
        run(config, overrides=[columns, f"output.path=whole.{name}"])
        calls = self._cut(monkeypatch, lambda call: call == 1)

        outcome = softmax_dask("run", config, "--set", columns, "--set", f"output.path=out.{name}")

        assert calls[0] == 2
        assert outcome.code == 0, outcome.err
        assert (
            outcome.err == "Warning: partition 0: [Errno 5] Input/output error: 'dump'; tried again, attempt 2 of 3.\n"
        )
        assert _files(f"out.{name}") == _files(f"whole.{name}")

    @pytest.mark.parametrize("name", ["zarr", "parquet"])
    def test_a_write_that_fails_once_costs_nothing(self, config, monkeypatch, name):
        run(config, overrides=[f"output.path=whole.{name}"])
        failed: list[str] = []

        def first_of_a_task(_: int) -> bool:
            thread = current_thread().name
            fails = thread.startswith("softmax-dask") and not failed
            failed.extend([thread] * fails)
            return fails

        self._break(monkeypatch, disk.os, "fsync", first_of_a_task)

        outcome = softmax_dask("run", config, "--set", f"output.path=out.{name}")

        assert failed
        assert outcome.code == 0, outcome.err
        assert _files(f"out.{name}") == _files(f"whole.{name}")

    @pytest.mark.parametrize("retries", [0, 2])
    def test_a_source_that_stays_away_is_exit_75_in_one_line_and_nothing_is_published(
        self, config, tmp_path, monkeypatch, retries
    ):
        calls = self._cut(monkeypatch, lambda call: True)
        before = tree(tmp_path)

        outcome = softmax_dask("run", config, "--set", f"retries={retries}")

        assert outcome.code == AGAIN
        assert outcome.err.splitlines()[-1].startswith("Error: dump: cannot be read now (Input/output error), tried ")
        assert len(outcome.err.splitlines()) == retries + 1
        assert calls[0] == 1 + retries
        assert tree(tmp_path) == before

    def test_bad_data_is_not_read_twice(self, config, monkeypatch):
        Path("in.zarr/c/3/0").write_bytes(b"not a chunk")
        calls = self._break(monkeypatch, retrying, "_passing", lambda call: False)

        outcome = softmax_dask("run", config)

        assert (outcome.code, calls[0]) == (3, 1)

    def test_a_source_that_is_away_for_a_moment_at_the_start_is_opened(self, config, monkeypatch):
        self._break(monkeypatch, zarr_files.FolderFiles, "size", lambda call: call == 1)

        outcome = softmax_dask("run", config)

        assert outcome.code == 0, outcome.err
