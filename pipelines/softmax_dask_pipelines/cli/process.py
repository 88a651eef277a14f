"""What is different while a verb runs: warnings are lines, signals stop it cleanly, and any text can be printed."""

import io
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import current_thread, main_thread
from time import monotonic
from types import FrameType
from typing import Any

from softmax_dask import SoftmaxDaskWarning
from softmax_dask_pipelines.notices import AddressNotice

STOPS = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that end a run; Windows has two of them."""
_PATIENCE_S = 5.0
"""So long the first signal has for cleaning up; then another one counts again."""


@contextmanager
def as_a_command() -> Iterator[None]:
    """Hold all of it while the block runs; afterwards this process is what it was."""
    with _warnings_as_lines(), _stopped_by_signals(), _any_text_on(sys.stdout), _any_text_on(sys.stderr):
        yield


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Whatever `-W` and PYTHONWARNINGS say: a warning is no error here, and ours are always shown."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        warnings.filters = [
            ("default" if action == "error" else action, text, category, module, line)
            for action, text, category, module, line in warnings.filters
        ]
        # This call also makes Python look at the filters anew.
        warnings.simplefilter("default", SoftmaxDaskWarning)
        yield


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    text = " ".join(str(message).split())
    with suppress(OSError):  # nobody listens: no reason to end a run
        print(text if isinstance(message, AddressNotice) else f"Warning: {text}", file=sys.stderr)


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Schedulers end a job by SIGTERM, a terminal that closes by SIGHUP: to us the same as Ctrl-C."""
    if current_thread() is not main_thread():
        yield
        return
    # Ignored by `nohup`, or by a shell that runs us in the background: it stays so.
    stops = [stop for stop in STOPS if signal.getsignal(stop) is not signal.SIG_IGN]
    interrupt = _Interrupt()
    before = [signal.signal(stop, interrupt) for stop in stops]
    try:
        yield
    finally:
        for stop, handler in zip(stops, before, strict=True):
            signal.signal(stop, handler)


class _Interrupt:
    """Raises KeyboardInterrupt, once in a while: schedulers and people send a signal twice, and cleaning up goes on."""

    def __init__(self) -> None:
        self._last = -_PATIENCE_S

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if monotonic() - self._last >= _PATIENCE_S:
            self._last = monotonic()
            raise KeyboardInterrupt


@contextmanager
def _any_text_on(stream: Any) -> Iterator[None]:
    """Print what the stream's encoding lacks, such as names of files that are not UTF-8, as escapes."""
    if not isinstance(stream, io.TextIOWrapper):
        yield
        return
    before = stream.errors
    stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        stream.reconfigure(errors=before)
