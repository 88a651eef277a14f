"""What partitions have counted is added up in threads of its own, and errors wait for the end."""

from threading import Event, Timer

import numpy as np
import pytest

from softmax_dask import Metrics, metrics_to_bytes
from softmax_dask_pipelines.ledger.summing import Summing

CLASSES = 4
PART = Metrics.of(
    {name: np.zeros(3, np.int32 if name == "label" else np.float32) for name in ("label", "confidence", "entropy")},
    classes=CLASSES,
)


def stored(number, take):
    take(metrics_to_bytes(PART))


def summing(add=stored, *, at_a_time=1):
    return Summing(Metrics.none(CLASSES), add, at_a_time=at_a_time)


@pytest.mark.parametrize("at_a_time", [1, 16])
@pytest.mark.parametrize("parts", [0, 1, 100])
def test_it_is_the_sum_of_all(parts, at_a_time):
    found = summing(at_a_time=at_a_time)

    for number in range(parts):
        found.add(number)

    assert found.finish().rows == 3 * parts


def test_who_adds_does_not_wait_for_what_is_read():
    may_read = Event()

    def slow(number, take):
        assert may_read.wait(20)
        stored(number, take)

    found = summing(slow)
    for number in range(10):
        found.add(number)
    may_read.set()

    assert found.finish().rows == 30


def test_the_first_error_is_raised_at_the_end_and_nothing_is_read_after_it():
    read = []

    def failing(number, take):
        read.append(number)
        if number == 2:
            raise OSError("the third is not there")
        stored(number, take)

    found = summing(failing)
    for number in range(5):
        found.add(number)

    with pytest.raises(OSError, match="the third is not there"):
        found.finish()
    assert read == [0, 1, 2]


def test_what_is_abandoned_reads_no_more():
    began, may_end, read = Event(), Event(), []

    def slow(number, take):
        read.append(number)
        began.set()
        assert may_end.wait(20)

    found = summing(slow)
    for number in range(5):
        found.add(number)
    assert began.wait(20)
    Timer(0.2, may_end.set).start()
    found.abandon()

    assert read == [0]
