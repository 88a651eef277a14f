"""`link: sigmoid`: one logit a row, read as two."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import zarr

from softmax_dask import softmax
from softmax_dask_pipelines import open_logits
from softmax_dask_pipelines.errors import ColumnNotFoundError, ConfigError, MissingChunkError, SourceFormatError
from softmax_dask_pipelines.sources import Source, SourceRequest, open_source
from tests.pipelines import dumps

Z = np.array([0.0, 1.5, -3.0, 40.0, -700.0, 745.0, np.nan, -np.inf])


def _open(path: Path, **request: Any) -> Source:
    return open_source(SourceRequest(str(path), **{"link": "sigmoid", **request}))


def _file(path: Path, columns: dict[str, Any]) -> Path:
    return dumps.parquet_file(path / "dump.parquet", pa.table(columns))


LAYOUTS = {
    "scalars": lambda z: pa.array(z),
    "lists": lambda z: dumps.lists(z[:, None]),
    "fixed-size lists": lambda z: dumps.fixed_lists(z[:, None]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_row_is_zero_and_its_logit(tmp_path: Path, layout: str, dtype: str) -> None:
    stored = Z.clip(-100, 100).astype(dtype)
    source = _open(_file(tmp_path, {"z": LAYOUTS[layout](stored)}), column="z")

    block = next(source.read(0, 8)).logits

    assert (source.facts.classes, source.facts.dtype.name, source.facts.name) == (2, dtype, "z")
    assert block.dtype == dtype
    assert block.tobytes() == np.stack([np.zeros_like(stored), stored], axis=1).tobytes()


def test_softmax_of_it_is_the_sigmoid(tmp_path: Path) -> None:
    path = _file(tmp_path, {"z": pa.array(Z)})

    found = softmax(open_logits(path, column="z", link="sigmoid")).compute()

    with np.errstate(over="ignore"):
        expected = np.stack([1 / (1 + np.exp(Z)), 1 / (1 + np.exp(-Z))], axis=1)
    # 1e-14: the rounding of the plain formula here, a few float64 eps; 1e-300: where it overflows to 0.
    np.testing.assert_allclose(found, expected, rtol=1e-14, atol=1e-300)


def test_the_only_column_of_floats_is_found(tmp_path: Path) -> None:
    path = _file(tmp_path, {"id": pa.array(["a"]), "z": pa.array([1.0]), "age": pa.array([3])})

    assert _open(path).facts.name == "z"


def test_several_columns_of_floats_are_listed(tmp_path: Path) -> None:
    path = _file(tmp_path, {"a": pa.array([1.0]), "b": pa.array([1.0])})

    with pytest.raises(ColumnNotFoundError, match=r"dump\.parquet: a, b may all be logits.*Name the column"):
        _open(path)


def test_targets_are_one_or_zero_and_class_names_two(tmp_path: Path) -> None:
    path = _file(tmp_path, {"z": pa.array([1.0, 2.0, 3.0]), "target": pa.array([1, 0, None])})

    source = _open(path, class_names=("ham", "spam"))
    block = next(source.read(0, 3))

    assert source.facts.class_names == ("ham", "spam")
    assert block.targets is not None
    assert block.targets.tolist() == [1, 0, -1]


def test_a_null_can_abstain(tmp_path: Path) -> None:
    path = _file(tmp_path, {"z": pa.array([1, None, 3], pa.int8())})

    block = next(_open(path, column="z", nulls="abstain").read(0, 3)).logits

    np.testing.assert_array_equal(block, np.array([[0, 1], [0, np.nan], [0, 3]], "f4"))


@pytest.mark.parametrize("columns", [{"logits": dumps.lists(dumps.logits())}, dumps.wide(dumps.logits())])
def test_more_than_one_logit_a_row_is_refused(tmp_path: Path, columns: dict[str, Any]) -> None:
    path = _file(tmp_path, columns)

    with pytest.raises(ConfigError, match=r"link: is 'sigmoid', but .*dump\.parquet: logit.* has 5 logits.*Leave link"):
        _open(path)


def test_a_single_number_is_no_row_of_classes_without_it(tmp_path: Path) -> None:
    path = _file(tmp_path, {"z": pa.array([1.0])})

    with pytest.raises(SourceFormatError, match=r"column 'z' is double; expected lists of numbers.*link: sigmoid"):
        _open(path, column="z", link="softmax")


def test_a_pickled_source_reads_the_same(tmp_path: Path) -> None:
    source = _open(_file(tmp_path, {"z": pa.array(Z)}))

    copy = pickle.loads(pickle.dumps(source))

    assert copy.facts == source.facts
    assert next(copy.read(2, 5)).logits.tobytes() == next(source.read(2, 5)).logits.tobytes()


def one_axis_npy(path, z):
    np.save(path / "z.npy", z)
    return path / "z.npy"


def one_axis_zarr(path, z, **layout):
    zarr.create_array(path / "z.zarr", data=z, **layout)
    return path / "z.zarr"


ONE_AXIS = {
    "npy": one_axis_npy,
    "zarr": lambda path, z: one_axis_zarr(path, z, chunks=(30,)),
    "zarr v2": lambda path, z: one_axis_zarr(path, z, chunks=(30,), zarr_format=2),
    "zarr sharded": lambda path, z: one_axis_zarr(path, z, chunks=(10,), shards=(40,)),
}


@pytest.mark.parametrize("layout", ONE_AXIS)
def test_an_array_with_one_axis_has_one_logit_a_row(tmp_path, layout):
    z = np.random.default_rng(0).normal(size=103).astype(np.float32)
    path = ONE_AXIS[layout](tmp_path, z)

    source = open_source(SourceRequest(path=str(path), link="sigmoid"))

    assert (source.facts.rows, source.facts.classes) == (103, 2)
    found = np.concatenate([block.logits for block in source.read(5, 98)])
    np.testing.assert_array_equal(found, np.stack([np.zeros(93, np.float32), z[5:98]], axis=1))


@pytest.mark.parametrize("layout", ONE_AXIS)
def test_an_array_with_one_axis_is_refused_without_the_link(tmp_path, layout):
    path = ONE_AXIS[layout](tmp_path, np.zeros(103, np.float32))

    with pytest.raises(SourceFormatError, match="expected 2 axes"):
        open_source(SourceRequest(path=str(path)))


def test_a_missing_chunk_of_one_axis_is_named(tmp_path):
    path = one_axis_zarr(tmp_path, np.ones(103, np.float32), chunks=(30,))
    (path / "c" / "1").unlink()

    with pytest.raises(MissingChunkError, match="c/1"):
        list(open_source(SourceRequest(path=str(path), link="sigmoid")).read(0, 103))
