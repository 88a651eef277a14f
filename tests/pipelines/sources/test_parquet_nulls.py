"""`nulls: abstain`: a null makes its own row undecidable, and moves no other row."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest

from softmax_dask_pipelines.errors import ConfigError, NullRowsError, RaggedRowsError, SourceFormatError
from softmax_dask_pipelines.sources import SourceRequest, blocks, open_source
from tests.pipelines import dumps

NAN = float("nan")
FLOAT = pa.float32()
KINDS = {
    "list": pa.list_(FLOAT),
    "large list": pa.large_list(FLOAT),
    "fixed-size list": pa.list_(FLOAT, 2),
    "half": pa.list_(pa.float16(), 2),
    "double": pa.list_(pa.float64()),
}
ROWS = [[1.0, 2.0], None, [3.0, 4.0], [None, 5.0], None, [6.0, 7.0], [8.0, 9.0]]
EXPECTED = [[1, 2], [NAN, NAN], [3, 4], [NAN, NAN], [NAN, NAN], [6, 7], [8, 9]]


def _read(path: Path, start: int = 0, stop: int | None = None, **request: Any) -> Any:
    source = open_source(SourceRequest(str(path), **{"nulls": "abstain", **request}))
    found = list(source.read(start, source.facts.rows if stop is None else stop))
    assert all(block.logits.dtype == source.facts.dtype and block.logits.flags.c_contiguous for block in found)
    return np.concatenate([block.logits for block in found])


def _file(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    return dumps.parquet_file(path / "dump.parquet", pa.table(columns), **options)


def _same(found: Any, expected: Any) -> None:
    np.testing.assert_array_equal(found.astype("f8"), np.array(expected, "f8"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group_rows", [100, 3, 1])
@pytest.mark.parametrize("read_bytes", [2**20, 16, 1])
def test_a_row_with_a_null_is_nan_and_others_keep_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, group_rows: int, read_bytes: int
) -> None:
    monkeypatch.setattr(blocks, "READ_BYTES", read_bytes)
    path = _file(tmp_path, {"logits": pa.array(ROWS, KINDS[kind])}, row_group_size=group_rows)

    _same(_read(path), EXPECTED)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("start", "stop"), [(1, 2), (2, 6), (4, 7), (3, 4)])
def test_any_range_of_rows_is_right(tmp_path: Path, kind: str, start: int, stop: int) -> None:
    path = _file(tmp_path, {"logits": pa.array(ROWS, KINDS[kind])})

    _same(_read(path, start, stop), EXPECTED[start:stop])


def test_bytes_may_be_null(tmp_path: Path) -> None:
    values = [None if row is None else np.array(row, "f4").tobytes() for row in [*EXPECTED[:1], None, *EXPECTED[5:]]]
    path = _file(tmp_path, {"logits": pa.array(values, pa.binary(8))})

    _same(_read(path), [[1, 2], [NAN, NAN], [6, 7], [8, 9]])


def test_a_null_in_a_wide_column_makes_its_row_nan(tmp_path: Path) -> None:
    path = _file(tmp_path, {"logit_0": pa.array([1.0, 2.0, 3.0]), "logit_1": pa.array([1.0, None, 3.0])})

    _same(_read(path), [[1, 1], [NAN, NAN], [3, 3]])


def test_members_of_a_null_struct_are_null(tmp_path: Path) -> None:
    rows = [{"logits": [1, 2]}, None, {"logits": None}, {"logits": [3, 4]}]
    path = _file(tmp_path, {"outputs": pa.array(rows, pa.struct([("logits", pa.list_(FLOAT, 2))]))})

    _same(_read(path), [[1, 2], [NAN, NAN], [NAN, NAN], [3, 4]])


def test_ids_and_targets_stay_with_their_rows(tmp_path: Path) -> None:
    columns = {"logits": pa.array(ROWS, KINDS["list"]), "id": pa.array(range(7)), "target": pa.array([0, 1] * 3 + [0])}

    block = next(open_source(SourceRequest(str(_file(tmp_path, columns)), nulls="abstain")).read(0, 7))

    assert block.carried["id"].to_pylist() == list(range(7))
    assert block.targets is not None
    assert block.targets.tolist() == [0, 1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize(("stored", "read"), [("int8", "f4"), ("uint16", "f4"), ("int32", "f8"), ("uint32", "f8")])
def test_integers_become_the_floats_that_hold_them(tmp_path: Path, stored: str, read: str) -> None:
    kind = pa.list_(pa.from_numpy_dtype(stored))
    path = _file(tmp_path, {"logits": pa.array([[1, 2], None, [3, np.iinfo(stored).max]], kind)})

    found = _read(path)

    assert found.dtype == read
    _same(found, [[1, 2], [NAN, NAN], [3, np.iinfo(stored).max]])


def test_bfloat16_has_nan(tmp_path: Path) -> None:
    bits = np.array([1, 2], ml_dtypes.bfloat16).view("uint16").tolist()
    path = _file(tmp_path, {"logits": pa.array([bits, None], pa.list_(pa.uint16()))})

    _same(_read(path, dtype="bfloat16"), [[1, 2], [NAN, NAN]])


def test_the_first_rows_may_be_null(tmp_path: Path) -> None:
    path = _file(tmp_path, {"logits": pa.array([None] * 3000 + [[1, 2]], KINDS["list"])})

    assert np.isnan(_read(path)).all(axis=1).tolist() == [True] * 3000 + [False]


def test_only_null_rows_have_no_known_classes(tmp_path: Path) -> None:
    path = _file(tmp_path, {"logits": pa.array([None, None], KINDS["list"])})

    with pytest.raises(SourceFormatError, match=r"dump\.parquet: no row says how many classes.*fixed_size_list"):
        _read(path)


def test_rows_of_unequal_length_are_still_refused(tmp_path: Path) -> None:
    path = _file(tmp_path, {"logits": pa.array([[1, 2], None, [3]], KINDS["list"])})

    with pytest.raises(RaggedRowsError, match="row 2 has 1 logits; expected 2"):
        _read(path)


def test_nulls_are_an_error_unless_asked_for(tmp_path: Path) -> None:
    path = _file(tmp_path, {"logits": pa.array(ROWS, KINDS["list"])})

    with pytest.raises(NullRowsError, match=r"dump\.parquet: column 'logits': row 1 is null.*nulls: abstain"):
        _read(path, nulls="error")


def test_zarr_has_no_nulls(tmp_path: Path) -> None:
    path = dumps.zarr_array(tmp_path / "a.zarr", dumps.logits())

    with pytest.raises(ConfigError, match=r"nulls: is 'abstain', but .*a\.zarr is zarr"):
        _read(path)
