"""The process of the console script: once its verb has ended it ends too, with that code, whatever signal comes.

Python would free a thousand modules and all that is in them, one by one: a fifth of the CPU time of a small run, in
which a second Ctrl-C would become the end that callers see. It still waits for threads, and calls who asked for that.
"""

import atexit
import os
import signal
import sys
from typing import Any


def main() -> None:
    """Run `softmax-dask`; does not return."""
    ending = _Ending()
    atexit.register(ending.end)  # before anything else does, so that it is called last
    # A signal while modules are loaded ends the process as Unix does it, without a traceback.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from softmax_dask_pipelines import cli

    try:
        cli.main(prog_name="softmax-dask")
    except SystemExit as ended:
        ending.begin(ended.code)
        raise


class _Ending:
    """What is left to do when the code is known."""

    def __init__(self) -> None:
        self._code: int | None = None

    def begin(self, code: Any) -> None:
        """From now on a signal only hastens the end."""
        if not isinstance(code, int):  # Python prints it, or takes it for 0
            return
        from softmax_dask_pipelines.cli.process import STOPS

        self._code = code
        for stop in STOPS:
            if signal.getsignal(stop) is not signal.SIG_IGN:
                signal.signal(stop, lambda *_: self.end())

    def end(self) -> None:
        """End at once, unless there is no code, or what was printed cannot be written: that Python says itself."""
        if self._code is None:
            return
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
        except (OSError, ValueError):
            return
        os._exit(self._code)
