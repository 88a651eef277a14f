"""A store that spoils any of its answers, at random: the output is right, or not there."""

import pytest

from tests.pipelines.faults.stores import FAULTS, impatient, spoilt


@pytest.mark.parametrize(
    "fault", ["short body", *(pytest.param(name, marks=pytest.mark.long) for name in ("404", "connection reset"))]
)
def test_answers_that_are_spoilt_at_random_give_no_wrong_result(fault, bucket, proxy, tmp_path):
    with impatient():
        found = spoilt(bucket, proxy, fault, tmp_path, at_least=6)

    assert found["tried"] >= 6
    assert found["violations"] == []


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS)
def test_many_of_each_kind_give_no_wrong_result(fault, bucket, proxy, tmp_path):
    with impatient():
        found = spoilt(bucket, proxy, fault, tmp_path, at_least=40)

    assert found["violations"] == []
