"""What comes next is on its way while a block is decoded and computed.

Of a disk: the system is told, which reads ahead by itself inside of a file, but not from one chunk file to the next.
Of a store, where an answer takes far longer than to compute it: several blocks are asked for at a time.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_STEP_BYTES = 1 << 20
"""Linux reads no more ahead, for one advice, than the disk takes at once: half a megabyte to a few."""

_FAR_BYTES, _MOST_FAR = 16 << 20, 8
"""Of blocks that a thread asks a store for beside the one that it computes; the plan has memory for them."""


def read_ahead(file: Any, start: int, length: int) -> bool:
    """Begin to read these bytes of a file that has a descriptor; False where the last of them is in memory already.

    Then nothing is done: to advise all the same takes 5 to 7 % of the time in which chunks that are not compressed are
    read. Nothing fails here: who reads finds out.
    """
    if length <= 0 or not hasattr(os, "posix_fadvise"):
        return False
    descriptor, stop = file.fileno(), start + length
    if _is_in_memory(descriptor, stop - 1):
        return False
    with suppress(OSError):
        for i in range(start, stop, _STEP_BYTES):
            os.posix_fadvise(descriptor, i, min(_STEP_BYTES, stop - i), os.POSIX_FADV_WILLNEED)
    return True


def _is_in_memory(descriptor: int, position: int) -> bool:
    """Whether that byte is; False, too, where the file system cannot tell."""
    try:
        return os.preadv(descriptor, [bytearray(1)], position, os.RWF_NOWAIT) == 1
    except OSError:
        return False


def blocks_ahead(block_bytes: int) -> int:
    """How many blocks a thread asks a store for beside the one that it computes: of large ones none."""
    return min(_MOST_FAR, _FAR_BYTES // max(1, block_bytes))


def results_ahead(function: Callable[[_Item], _Result], items: Iterable[_Item], ahead: int) -> Iterator[_Result]:
    """function(item) of each, in order; of `ahead` more at a time it is called in threads of their own.

    What it raises is raised where its result would come. Nothing here keeps a result that was taken.
    """
    waiting: deque[Future[_Result]] = deque()
    pool = ThreadPoolExecutor(ahead + 1, thread_name_prefix="softmax-dask-read")
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
