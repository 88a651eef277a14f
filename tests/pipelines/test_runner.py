"""The runner knows no softmax: any function of a number will do."""

import json
import subprocess
import sys
from threading import Barrier, Event, Lock, get_ident
from weakref import ref

import pytest

from softmax_dask_pipelines import runner
from softmax_dask_pipelines.runner import run_on_threads

SOON_S = 20
"""Time after which an event that should come is missing. Never waited for when all is well."""


def results_of(function, numbers, *, threads=2):
    taken = []
    run_on_threads(function, numbers, threads=threads, take=taken.append, stop=Event())
    return taken


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
def test_every_number_is_run_once(count):
    ran, lock = [], Lock()

    def record(number):
        with lock:
            ran.append(number)

    results_of(record, range(count))

    assert sorted(ran) == list(range(count))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_result_is_taken_once(count, threads):
    taken = results_of(lambda number: number * number, range(count), threads=threads)

    assert sorted(taken) == [number * number for number in range(count)]


@pytest.mark.parametrize("count", [2, 3, 4, 6, 7])
def test_waves_lose_and_repeat_nothing(count, monkeypatch):
    monkeypatch.setattr(runner, "_WAVE", 3)

    taken = results_of(lambda number: number, range(count))

    assert sorted(taken) == list(range(count))


def test_results_are_forgotten_once_they_are_taken():
    class Result:
        """Something that can be referred to weakly."""

    known, most = [], []

    def take(result):
        known.append(ref(result))
        del result
        most.append(sum(each() is not None for each in known))

    run_on_threads(lambda number: Result(), range(50), threads=2, take=take, stop=Event())

    assert len(known) == 50
    assert max(most) <= 3


def test_a_wave_ends_before_the_next_begins(monkeypatch):
    monkeypatch.setattr(runner, "_WAVE", 3)

    taken = results_of(lambda number: number, range(9), threads=3)

    assert [sorted(taken[start : start + 3]) for start in (0, 3, 6)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_numbers_need_not_begin_at_zero():
    taken = results_of(lambda number: number, [5, 3, 8])

    assert sorted(taken) == [3, 5, 8]


def test_no_numbers_are_no_work():
    assert results_of(lambda number: number, []) == []


@pytest.mark.parametrize("result", [None, {"a": 1}, [1, 2], (3,), b"bytes"])
def test_a_result_may_be_anything(result):
    assert results_of(lambda _: result, [0]) == [result]


def test_results_are_taken_in_the_thread_that_called():
    takers = []

    run_on_threads(lambda n: n, range(5), threads=3, take=lambda _: takers.append(get_ident()), stop=Event())

    assert set(takers) == {get_ident()}


def test_tasks_run_in_other_threads():
    workers = results_of(lambda _: get_ident(), range(5))

    assert get_ident() not in workers


def test_a_result_is_taken_while_others_still_run():
    first_taken = Event()

    def wait_for_the_first(number):
        assert number == 0 or first_taken.wait(SOON_S)
        return number

    taken = []

    def take(number):
        taken.append(number)
        first_taken.set()

    run_on_threads(wait_for_the_first, [0, 1], threads=2, take=take, stop=Event())

    assert taken == [0, 1]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_as_many_tasks_run_at_once_as_there_are_threads(threads):
    together = Barrier(threads)

    taken = results_of(lambda number: together.wait(SOON_S) >= 0, range(4 * threads), threads=threads)

    assert taken == [True] * (4 * threads)


@pytest.mark.parametrize("threads", [1, 2])
def test_no_more_tasks_run_at_once_than_there_are_threads(threads):
    running, most, lock = set(), [], Lock()

    def count(number):
        with lock:
            running.add(number)
            most.append(len(running))
        with lock:
            running.remove(number)

    results_of(count, range(50), threads=threads)

    assert max(most) <= threads


class BrokenTaskError(Exception):
    """Raised by a task that fails."""


def test_the_error_of_a_task_is_raised_and_stop_is_set():
    stop = Event()

    def fail(number):
        raise BrokenTaskError(number)

    with pytest.raises(BrokenTaskError):
        run_on_threads(fail, range(5), threads=2, take=lambda _: None, stop=stop)

    assert stop.is_set()


def test_tasks_that_run_have_ended_when_the_error_is_raised():
    stop, begun, ended = Event(), Event(), Event()

    def task(number):
        if number == 0:
            assert begun.wait(SOON_S)
            raise BrokenTaskError
        begun.set()
        assert stop.wait(SOON_S)  # as the tasks of a run do, between two blocks
        ended.set()

    with pytest.raises(BrokenTaskError):
        run_on_threads(task, [0, 1], threads=2, take=lambda _: None, stop=stop)

    assert ended.is_set()


def test_after_an_error_no_other_task_begins():
    ran = []

    def fail_at_the_second(number):
        ran.append(number)
        if number == ran[0] and len(ran) == 1:
            return
        raise BrokenTaskError

    with pytest.raises(BrokenTaskError):
        run_on_threads(fail_at_the_second, range(100), threads=1, take=lambda _: None, stop=Event())

    assert len(ran) <= 3  # one more may have been handed to the thread before the error was seen


def test_after_an_error_no_other_wave_begins(monkeypatch):
    monkeypatch.setattr(runner, "_WAVE", 2)
    ran = []

    def fail(number):
        ran.append(number)
        raise BrokenTaskError

    with pytest.raises(BrokenTaskError):
        run_on_threads(fail, range(10), threads=1, take=lambda _: None, stop=Event())

    assert set(ran) <= {0, 1}


@pytest.mark.parametrize("error", [BrokenTaskError, KeyboardInterrupt])
def test_an_error_of_the_taker_ends_the_run(error):
    stop = Event()

    def refuse(_):
        raise error

    with pytest.raises(error):
        run_on_threads(lambda number: number, range(20), threads=2, take=refuse, stop=stop)

    assert stop.is_set()


def test_stop_stays_unset_when_all_goes_well():
    stop = Event()

    run_on_threads(lambda number: number, range(5), threads=2, take=lambda _: None, stop=stop)

    assert not stop.is_set()


def test_threads_are_gone_afterwards():
    code = (
        "import json, sys, threading\n"
        "from softmax_dask_pipelines.runner import run_on_threads\n"
        "run_on_threads(abs, range(9), threads=3, take=lambda _: None, stop=threading.Event())\n"
        "print(json.dumps([len(threading.enumerate()), 'distributed' in sys.modules]))"
    )

    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert json.loads(process.stdout) == [1, False]
