"""What a worker process of our own does first: it leaves signals, and messages, to the process that started it.

Ctrl-C in a terminal, and a service manager, signal all processes of a run. The one with the plan ends the run; workers
then end at their next block, and with the process that started them whatever becomes of it. What ends a task reaches
that process as its error; Dask's worker would print it, too, with a traceback.
"""

import logging
import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Called by Dask on the main thread of a worker, before it takes tasks."""
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)
    logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)
