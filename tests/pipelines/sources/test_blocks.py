"""Block sizes are integer arithmetic: any chunk, any group, any row."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softmax_dask_pipelines.sources.blocks import READ_BYTES, aligned, rows_per_read


@given(unit=st.integers(1, 10**6), units=st.integers(1, 10**6), row_bytes=st.integers(1, 10**6))
def test_a_read_is_whole_units_and_fits_where_a_unit_does(unit: int, units: int, row_bytes: int) -> None:
    rows = rows_per_read(unit_rows=unit, group_rows=unit * units, row_bytes=row_bytes)

    assert rows % unit == 0
    assert rows == unit or rows * row_bytes <= READ_BYTES


@pytest.mark.parametrize(
    ("group_rows", "expected"),
    [(100, 10_400), (1_000_000, 10_000), (10_485, 10_485), (10_488, 5_244), (1_000_003, 10_417)],
)
def test_reads_fit_row_groups(group_rows: int, expected: int) -> None:
    """100 float32 classes: at most 10,485 rows; groups are divided where they can be, else shared equally."""
    rows = rows_per_read(unit_rows=1, group_rows=group_rows, row_bytes=400)

    assert rows == expected


@given(start=st.integers(0, 500), length=st.integers(0, 500), step=st.integers(1, 100))
def test_aligned_ranges_cover_the_rows_and_end_at_multiples(start: int, length: int, step: int) -> None:
    parts = list(aligned(start, start + length, step))

    assert [row for part in parts for row in part] == list(range(start, start + length))
    assert all(part.stop % step == 0 for part in parts[:-1])
