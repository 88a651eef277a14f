"""One run at a time builds an output in an object store: a lease, which ends by itself where its holder has.

It saves work, and decides nothing: between two runs that both believe to hold it the commit decides, which is put
only where none is. So a store that cannot do that is refused before anything else.
"""

import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Any

from softmax_dask_pipelines import storage
from softmax_dask_pipelines.errors import ConfigError, LockedError, PipelineError
from softmax_dask_pipelines.ledger.identity import RunIdentity, text_of_run
from softmax_dask_pipelines.object_path import ObjectPath
from softmax_dask_pipelines.sinks import job_folder

RENEWED_EVERY_S = 20.0
VALID_S = 60.0
GRACE_S = 60.0
"""So long after its end a lease is left alone: clocks differ."""


@contextmanager
def leased(output: ObjectPath) -> Iterator[RunIdentity]:
    """Hold the lease of `output` while the block runs, as a new run; the object is gone afterwards.

    Raises
    ------
    LockedError
        Another run holds it.
    ConfigError
        The store cannot put an object only where none is.
    """
    _require_put_if_absent(job_folder(output))
    path, run, stop = job_folder(output) / "lock", RunIdentity.new(), Event()
    _take(path, run, output)
    renewing = Thread(target=_renew, args=(path, run, stop), name="softmax-dask-lease", daemon=True)
    renewing.start()
    try:
        yield run
    finally:
        stop.set()
        renewing.join()
        with suppress(PipelineError, OSError):
            if (_read(path) or {}).get("run") == run.run:
                storage.remove(path)


def lessee(output: ObjectPath) -> dict[str, Any] | None:
    """Who holds the lease of `output` now; None where nobody does. Takes none."""
    held = _read(job_folder(output) / "lock")
    return None if held is None or _has_ended(held) else held


def _require_put_if_absent(folder: ObjectPath) -> None:
    probe = folder / f"probe-{secrets.token_hex(8)}"
    first = storage.put_new(probe, [b"first"])
    second = storage.put_new(probe, [b"second"])
    storage.remove(probe)
    if not first or second:
        raise ConfigError(
            f"{folder}: is in a store that writes over an object that was to be new (it ignores If-None-Match); "
            "expected one that refuses, because that decides which of two runs has written an output. Upgrade the "
            "store, or write to a local path and copy the output."
        )


def _take(path: ObjectPath, run: RunIdentity, output: ObjectPath) -> None:
    while not storage.put_new(path, [_document(run)]):
        held = _read(path)
        if held is not None and not _has_ended(held):
            raise LockedError(
                f"{output}: another run is writing it ({text_of_run(held)}); expected none. Wait for it to end, and "
                f"run again. One that was killed on another machine is forgotten {VALID_S + GRACE_S:g} seconds after."
            )
        storage.remove(path)


def _has_ended(held: dict[str, Any]) -> bool:
    """Whether a lease is long over, or its holder was a process of this machine that is gone."""
    if held.get("host") == socket.gethostname() and isinstance(pid := held.get("pid"), int):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
    expires = held.get("expires")
    return not isinstance(expires, int | float) or time.time() > expires + GRACE_S


def _renew(path: ObjectPath, run: RunIdentity, stop: Event) -> None:
    while not stop.wait(RENEWED_EVERY_S):
        with suppress(PipelineError, OSError):  # the next time; a lease that ends costs work at most
            storage.put(path, [_document(run)])


def _document(run: RunIdentity) -> bytes:
    return json.dumps(run.facts() | {"expires": time.time() + VALID_S}).encode()


def _read(path: ObjectPath) -> dict[str, Any] | None:
    """Who holds the lease; None where nobody does any more."""
    try:
        found: Any = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None
