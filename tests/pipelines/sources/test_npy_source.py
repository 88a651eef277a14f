"""`.npy`: files that are not as they should be."""

import struct
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


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_header_is_read(tmp_path: Path, version: tuple[int, int]) -> None:
    data = dumps.logits()
    with open(tmp_path / "a.npy", "wb") as file:
        np.lib.format.write_array(file, data, version=version)

    source = _open(tmp_path / "a.npy")

    assert np.concatenate([block.logits for block in source.read(0, 103)]).tobytes() == data.tobytes()


def test_records_with_names_beyond_latin_letters_are_refused(tmp_path: Path) -> None:
    with open(tmp_path / "a.npy", "wb") as file:
        np.lib.format.write_array(file, np.zeros((2, 2), [("ключ", "f4"), ("键", "f4")]), version=(3, 0))

    with pytest.raises(SourceFormatError, match="holds records"):
        _open(tmp_path / "a.npy")


@pytest.mark.parametrize(("version", "field"), [(1, "H"), (2, "I"), (3, "I")])
def test_a_header_that_is_too_long_is_not_evaluated(tmp_path: Path, version: int, field: str) -> None:
    header = b"(" * 20_000 + b")" * 20_000
    length = struct.pack("<" + field, len(header))
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY" + bytes([version, 0]) + length + header)

    with pytest.raises(SourceFormatError, match=r"Header info length .* is large"):
        _open(tmp_path / "a.npy")


@pytest.mark.parametrize("version", [2, 3])
def test_a_header_that_says_that_it_has_gigabytes_is_refused(tmp_path: Path, version: int) -> None:
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY" + bytes([version, 0]) + b"\xff\xff\xff\xff{}")

    with pytest.raises(SourceFormatError, match=r"is no \.npy file that can be read"):
        _open(tmp_path / "a.npy")


@pytest.mark.parametrize("shape", ["(-1, 5)", "(-4, -5)", "5", "(1.5, 5)", "(4611686018427387904, 5)"])
def test_a_shape_that_cannot_be_is_refused(tmp_path: Path, shape: str) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(200))

    with pytest.raises((SourceFormatError, CorruptFileError)):
        _open(tmp_path / "a.npy")


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
