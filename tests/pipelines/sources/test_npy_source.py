"""`.npy`: files that are not as they should be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softmax_dask.errors import ClassAxisError, DtypeError
from softmax_dask_pipelines.errors import ColumnNotFoundError, ConfigError, CorruptFileError, SourceFormatError
from softmax_dask_pipelines.sources import Source, SourceRequest, open_source
from tests.pipelines import dumps


def _open(path: Path, **request: Any) -> Source:
    return open_source(SourceRequest(str(path), **request))


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([[{}]], object), allow_pickle=True)

    with pytest.raises(SourceFormatError, match=r"pickles; expected numbers\. Nothing was opened"):
        _open(path)


def test_records_are_refused(tmp_path: Path) -> None:
    path = dumps.npy(tmp_path / "a.npy", np.zeros((2, 2), "f4,f4"))

    with pytest.raises(SourceFormatError, match="holds records"):
        _open(path)


def test_a_file_cut_short_is_corrupt(tmp_path: Path) -> None:
    path = dumps.npy(tmp_path / "a.npy", dumps.logits())
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(CorruptFileError, match=r"has 2187 bytes; expected 2188"):
        _open(path)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"\x93NUMPY\x09\x00v\x00{}", b"\x93NUMPY\x01\x00\x02\x00{}"])
def test_a_header_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(content)

    with pytest.raises(SourceFormatError, match=r"is no \.npy file that can be read"):
        _open(path)


@pytest.mark.parametrize("key", ["id", "target"])
def test_there_are_no_ids_or_targets(tmp_path: Path, key: str) -> None:
    path = dumps.npy(tmp_path / "a.npy", dumps.logits())

    with pytest.raises(ColumnNotFoundError, match=rf"has no {key}s"):
        _open(path, **{key: "x"})


def test_an_array_name_is_a_config_error(tmp_path: Path) -> None:
    path = dumps.npy(tmp_path / "a.npy", dumps.logits())

    with pytest.raises(ConfigError, match="is npy; expected no array"):
        _open(path, array="x")


def test_other_dtypes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DtypeError, match="int64"):
        _open(dumps.npy(tmp_path / "a.npy", np.zeros((2, 2), "i8")))


def test_two_bytes_without_a_type_may_be_bfloat16(tmp_path: Path) -> None:
    with pytest.raises(DtypeError, match="dtype bfloat16"):
        _open(dumps.npy(tmp_path / "a.npy", dumps.logits(dtype="bfloat16")))


def test_no_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ClassAxisError, match="at least 1 class"):
        _open(dumps.npy(tmp_path / "a.npy", np.zeros((2, 0), "f4")))


def test_no_rows_are_legal(tmp_path: Path) -> None:
    assert list(_open(dumps.npy(tmp_path / "a.npy", np.zeros((0, 2), "f4"))).read(0, 0)) == []


def test_npy_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    path = dumps.npy(tmp_path / "a.npy", dumps.logits())
    path.rename(tmp_path / "a.bin")

    facts = _open(tmp_path / "a.bin").facts

    assert (facts.format, facts.layout, facts.codec) == ("npy", "C order, memory-mapped", "uncompressed, no checksum")
