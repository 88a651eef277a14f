"""Calls on other threads: in order, a few at a time, and none left behind."""

import os
import subprocess
import sys
from threading import Barrier, Event, current_thread, get_ident

import pytest

from softmax_dask_pipelines.sinks.background import Background


def test_results_come_in_the_order_of_the_calls():
    background = Background[int](2)

    for number in range(20):
        background.call(lambda given: given * 10, number)

    assert background.finish() == tuple(range(0, 200, 10))


def test_calls_are_made_beside_the_caller_and_beside_each_other():
    together = Barrier(3, timeout=60)
    background = Background[int](2)

    for _ in range(2):
        background.call(lambda: (together.wait(), get_ident())[1])
    together.wait()

    assert get_ident() not in background.finish()


def test_the_caller_waits_where_as_many_are_under_way_as_may_be():
    begun = []
    background = Background[None](1)
    for number in range(3):
        background.call(begun.append, number)
        assert len(begun) >= number

    background.finish()

    assert begun == [0, 1, 2]


def test_an_error_is_raised_by_a_later_call():
    background = Background[float](1)
    background.call(lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        background.call(lambda: 1.0)
    background.abandon()


def test_an_error_is_raised_at_the_end_once_nothing_is_under_way():
    done = []
    background = Background[float](2)
    background.call(lambda: 1 / 0)
    background.call(lambda: done.append(1) or 1.0)

    with pytest.raises(ZeroDivisionError):
        background.finish()

    assert done == [1]


def test_who_abandons_waits_for_what_has_begun():
    begun, may_end, done = Event(), Event(), []

    def slow() -> None:
        begun.set()
        may_end.wait(60)
        done.append(1)

    background = Background[None](1)
    background.call(slow)
    begun.wait(60)
    may_end.set()
    background.abandon()

    assert done == [1]


def test_one_partition_after_the_other_has_the_same_threads():
    def name_of_thread() -> str:
        background = Background[str](1)
        background.call(lambda: current_thread().name)
        return background.finish()[0]

    # Each is idle before the next one begins, or as good as: of twenty, one may still be on its way back.
    assert len({name_of_thread() for _ in range(20)}) < 10


FORKED = """
import os, sys
from softmax_dask_pipelines.sinks.background import Background

def three():
    background = Background(1)
    background.call(lambda: 3)
    return background.finish()

assert three() == (3,)
child = os.fork()
if child == 0:
    os._exit(0 if three() == (3,) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_that_was_forked_has_threads_of_its_own():
    # Python 3.12 warns of threads beside a fork, which is what this is about.
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], check=False, timeout=60)

    assert done.returncode == 0
