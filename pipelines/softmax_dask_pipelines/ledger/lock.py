"""One run at a time builds an output: the lock that the kernel frees when its process ends, however it ends.

The file says who holds it, for those who come second; what a killed run has left there is overwritten.
"""

import json
import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from softmax_dask_pipelines import storage
from softmax_dask_pipelines.errors import LockedError, OutputExistsError
from softmax_dask_pipelines.ledger.identity import RunIdentity, text_of_run
from softmax_dask_pipelines.ledger.leases import leased, lessee
from softmax_dask_pipelines.object_path import AnyPath, ObjectPath
from softmax_dask_pipelines.sinks import job_folder

if sys.platform != "win32":
    import fcntl

_BEGIN = b'{"run": "'
"""Of what a run writes into its lock."""
_MOST_BYTES = 4096


@contextmanager
def locked(output: AnyPath) -> Iterator[RunIdentity]:
    """Hold the lock of `output` while the block runs, as a new run; the file is gone afterwards.

    Raises
    ------
    LockedError
        Another run holds it.
    OutputExistsError
        There is something of somebody else's in its place.
    """
    if isinstance(output, ObjectPath):
        with leased(output) as run:
            yield run
        return
    path = job_folder(output) / "lock"
    run = RunIdentity.new()
    descriptor = _acquired(path, output)
    try:
        _write(descriptor, run)
        yield run
    finally:
        with suppress(OSError):
            path.unlink()
        storage.remove_if_empty(path.parent)
        os.close(descriptor)


def holder(output: AnyPath) -> dict[str, Any] | None:
    """Who holds the lock of `output` now, as far as that is known; None where nobody does. Takes no lock."""
    if isinstance(output, ObjectPath):
        return lessee(output)
    path = job_folder(output) / "lock"
    try:
        inode, data = path.stat().st_ino, path.read_bytes()
    except OSError:
        return None
    facts = _facts(data)
    return facts if facts is not None and _is_held(inode, facts) else None


def _is_held(inode: int, facts: dict[str, Any]) -> bool:
    """As the kernel says; elsewhere, whether the process is there."""
    try:
        return any(f":{inode} " in line for line in Path("/proc/locks").read_text().splitlines())
    except OSError:
        return facts.get("host") == socket.gethostname() and Path(f"/proc/{facts.get('pid')}").exists()


def _acquired(path: Path, output: Path) -> int:
    while True:
        storage.make_folder(path.parent)
        with storage.plain_errors(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        _require_ours(path, descriptor)
        if _is_taken(descriptor):
            holder = _holder(descriptor)
            os.close(descriptor)
            raise LockedError(
                f"{output}: another run is writing it{holder}; expected none. Wait for it to end, and run again."
            )
        if _is_still(path, descriptor):
            return descriptor
        os.close(descriptor)  # its last holder has removed it meanwhile: that lock is nobody's


def _require_ours(path: Path, descriptor: int) -> None:
    """Refuse, and close, what no run has made: it would be removed when this one ends."""
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        # A power cut may leave zeros, or a part.
        with storage.plain_errors(path):
            data = os.pread(descriptor, _MOST_BYTES + 1, 0).rstrip(b"\0")
        if len(data) <= _MOST_BYTES and (data.startswith(_BEGIN) or _BEGIN.startswith(data)):
            return
    os.close(descriptor)
    raise OutputExistsError(
        f"{path}: is there, and no lock of a run; expected nothing that is not ours in {path.parent}. "
        "Move it, or choose another path for the output."
    )


def _write(descriptor: int, run: RunIdentity) -> None:
    """Say who holds the lock. Only a help for people: a disk that has no room for it stops no run here."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(run.facts()).encode(), 0)


def _holder(descriptor: int) -> str:
    """Who holds the lock; empty in the moment before that is written."""
    with suppress(OSError):
        facts = _facts(os.pread(descriptor, _MOST_BYTES, 0))
        return f" ({text_of_run(facts)})" if facts is not None else ""
    return ""


def _facts(data: bytes) -> dict[str, Any] | None:
    try:
        found: Any = json.loads(data)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _is_taken(descriptor: int) -> bool:
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
