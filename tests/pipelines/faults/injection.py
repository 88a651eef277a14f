"""Wraps what `disk` asks of the system: each call is counted, and something happens at one of them.

The program has no hook for this: it is patched from here, in a process that ends.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from softmax_dask_pipelines import disk, storage

Act = Callable[[], None]


class Injector:
    """Counts operations; `act` is called before operation number `at`, or with `persists` before each from then on."""

    def __init__(self, at: int = 0, act: Act = lambda: None, *, persists: bool = False) -> None:
        self.count = 0
        self._at, self._act, self._persists = at, act, persists

    def tick(self) -> None:
        """One more operation."""
        self.count += 1
        if self.count == self._at or (self._persists and 0 < self._at <= self.count):
            self._act()

    def renamed(self, source: Path, target: Path, call: Callable[[], None]) -> None:
        """Called for each new name that a file or folder gets; `call` gives it."""
        call()

    def synced(self, descriptor: int, call: Callable[[], None]) -> None:
        """Called for each fsync; `call` does it."""
        call()

    def install(self) -> None:
        """Stand between `disk` and the system, for the rest of this process."""
        disk.os = _Os(self)
        disk.shutil = _Shutil(self)
        storage.writing = disk.writing = _ticking_context(self, disk.writing)
        disk._renameat2_exchange = _ticking(self, disk._renameat2_exchange)
        for name in ("make_folder", "remove"):
            setattr(disk, name, _ticking_path(self, getattr(disk, name)))


class ForgetfulInjector(Injector):
    """A file system that keeps no promise it did not make: a name is lost unless its folder was synced after."""

    def __init__(self, at: int, act: Act, *, aside: Path) -> None:
        super().__init__(at, lambda: (self.forget(), act())[1])
        self._aside = aside
        self._unsynced: list[tuple[Path, Path, Path | None]] = []
        self._one_at_a_time = Lock()
        """What two threads do at a time, this knows in one order; without it a name that is synced could come back."""

    def renamed(self, source: Path, target: Path, call: Callable[[], None]) -> None:
        with self._one_at_a_time:
            old = None
            if target.is_file():
                old = self._aside / f"{os.getpid()}-{self.count}"
                os.link(target, old)
            call()
            self._unsynced.append((source, target, old))

    def synced(self, descriptor: int, call: Callable[[], None]) -> None:
        with self._one_at_a_time:
            call()
            folder = Path(f"/proc/self/fd/{descriptor}").resolve()
            self._unsynced = [each for each in self._unsynced if each[1].parent.resolve() != folder]

    def forget(self) -> None:
        """The power is gone: take the names back, the last one first, and let no thread give another."""
        self._one_at_a_time.acquire()
        for source, target, old in reversed(self._unsynced):
            if not os.path.lexists(target):
                continue
            if source.parent.is_dir() and not os.path.lexists(source):
                os.rename(target, source)
            else:
                target.unlink() if target.is_file() else shutil.rmtree(target)
            if old is not None:
                os.rename(old, target)


class _Os:
    """`os`, with a tick before each call that changes something."""

    def __init__(self, injector: Injector) -> None:
        self._injector = injector
        self._halved: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            self._injector.tick()
        return os.open(path, flags, mode)

    def fsync(self, descriptor: int) -> None:
        self._injector.tick()
        self._injector.synced(descriptor, lambda: os.fsync(descriptor))

    def rename(self, source: Path, target: Path) -> None:
        self._named(os.rename, source, target)

    def replace(self, source: Path, target: Path) -> None:
        self._named(os.replace, source, target)

    def link(self, source: Path, target: Path) -> None:
        self._named(os.link, source, target)

    def _named(self, real: Callable[..., None], source: Path, target: Path) -> None:
        self._injector.tick()
        self._injector.renamed(source, target, lambda: real(source, target))

    def write(self, descriptor: int, data: Any) -> int:
        """Half of it, and the rest when the caller asks again: a crash may come between."""
        self._injector.tick()
        is_first = descriptor not in self._halved
        (self._halved.add if is_first else self._halved.discard)(descriptor)
        return os.write(descriptor, data[: max(1, len(data) // 2)] if is_first else data)


class _Shutil:
    """`shutil`, removing a tree in two steps."""

    def __init__(self, injector: Injector) -> None:
        self._injector = injector

    def rmtree(self, path: Path) -> None:
        files = sorted(found for found in path.rglob("*") if found.is_file())
        for file in files[:1]:
            file.unlink()
            self._injector.tick()
        shutil.rmtree(path)


def _ticking(injector: Injector, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        injector.tick()
        return real(*arguments, **named)

    return call


def _ticking_path(injector: Injector, real: Callable[[Path], None]) -> Callable[[Path], None]:
    """Of a function that says what the system's errors mean."""

    def call(path: Path) -> None:
        with disk.plain_errors(path):
            injector.tick()
        real(path)

    return call


def _ticking_context(injector: Injector, real: Callable[..., Any]) -> Callable[..., Any]:
    @contextmanager
    def writing(path: Path, **named: Any) -> Iterator[Path]:
        with disk.plain_errors(path):
            injector.tick()
        with real(path, **named) as temporary:
            yield temporary

    return writing
