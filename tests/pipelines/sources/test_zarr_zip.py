"""Zip files that are cut, damaged, encrypted or lie: refused with one line, in little memory."""

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softmax_dask_pipelines.errors import (
    CorruptChunkError,
    CorruptFileError,
    MetadataLimitError,
    PipelineError,
    SourceFormatError,
)
from softmax_dask_pipelines.sources import SourceRequest, open_source, zarr_zip
from tests.pipelines import dumps
from tests.pipelines.command import softmax_dask

DATA = 3
FLAGS, METHOD, PACKED, SIZE, PLACE = (8, "H"), (10, "H"), (20, "L"), (24, "L"), (42, "L")
"""Fields of an entry of the directory: where, and of which type."""
_END = struct.Struct("<4s4H2LH")
_ENTRY_BYTES = 46
_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")


def _zip(folder: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    return dumps.zipped(dumps.zarr_group(folder / "dump", dumps.logits(), chunks=(30, 5)), compression=compression)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A group in a zip file: `logits`, `id` and `target`."""
    return _zip(tmp_path)


def _read(path: Path) -> list[Any]:
    """All that a source tells and holds."""
    source = open_source(SourceRequest(str(path)))
    blocks = list(source.read(0, source.facts.rows))
    carried = [{name: values.to_pylist() for name, values in block.carried.items()} for block in blocks]
    targets = [None if block.targets is None else block.targets.tolist() for block in blocks]
    return [np.concatenate([block.logits for block in blocks]).tobytes(), carried, targets, source.facts.class_names]


def _directory_start(path: Path) -> int:
    with zipfile.ZipFile(path) as archive:
        return archive.start_dir


def _set(path: Path, name: str, field: tuple[int, str], value: int) -> None:
    """Change what the directory says of an entry."""
    data = bytearray(path.read_bytes())
    at = data.index(name.encode(), _directory_start(path)) - _ENTRY_BYTES
    struct.pack_into("<" + field[1], data, at + field[0], value)
    path.write_bytes(data)


def _with_directory(path: Path, directory: bytes, *, entries: int) -> None:
    """Put another directory in the place of that of a zip file."""
    files = path.read_bytes()[: _directory_start(path)]
    end = _END.pack(b"PK\5\6", 0, 0, entries & 0xFFFF, entries & 0xFFFF, len(directory), len(files), 0)
    path.write_bytes(files + directory + end)


def _entry(name: bytes, place: int) -> bytes:
    """An entry of the directory, of a file of no bytes."""
    return struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0, 0, 0, 0, 0, place) + name


@pytest.mark.parametrize("part", range(1, 24))
def test_a_zip_that_is_cut_anywhere_is_refused_with_one_line(source: Path, tmp_path: Path, part: int) -> None:
    data = source.read_bytes()
    source.write_bytes(data[: len(data) * part // 24])

    outcome = softmax_dask("score", source, tmp_path / "out.zarr")

    assert outcome.code == DATA
    assert outcome.err.startswith(f"Error: {source}: is not a whole zip file (")
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("length", [0, 1, 3])
def test_what_does_not_begin_as_a_zip_is_none(source: Path, tmp_path: Path, length: int) -> None:
    source.write_bytes(source.read_bytes()[:length])

    outcome = softmax_dask("score", source, tmp_path / "out.zarr")

    assert outcome.code == DATA
    assert outcome.err.startswith(f"Error: {source}: is a file that is not Parquet, .npy or zip; expected logits.")
    assert outcome.err.count("\n") == 1


@pytest.fixture(scope="module", params=[zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, list[Any]]:
    """A zip file, its bytes and what is read of it."""
    path = _zip(tmp_path_factory.mktemp("whole"), request.param)
    return path, path.read_bytes(), _read(path)


@settings(max_examples=150)
@given(place=st.integers(0, 10**9), bit=st.integers(0, 7))
def test_a_flipped_bit_of_the_directory_changes_nothing_unseen(
    whole: tuple[Path, bytes, list[Any]], place: int, bit: int
) -> None:
    path, data, expected = whole
    start = data.index(b"PK\1\2")
    damaged = bytearray(data)
    damaged[start + place % (len(data) - start)] ^= 1 << bit
    other = path.with_name("damaged.zip")
    other.write_bytes(damaged)

    found = _read_or_error(other)

    assert found == expected or (isinstance(found, str) and str(other) in found)


def _read_or_error(path: Path) -> list[Any] | str:
    try:
        return _read(path)
    except PipelineError as error:
        return str(error)


@pytest.mark.parametrize("flag", [1, 0x40])
def test_an_encrypted_zip_is_refused_with_one_line(source: Path, tmp_path: Path, flag: int) -> None:
    _set(source, "logits/c/3/0", FLAGS, flag)

    outcome = softmax_dask("score", source, tmp_path / "out.zarr")

    assert outcome.code == DATA
    assert outcome.err == (
        f"Error: {source}: logits/c/3/0 is encrypted; expected plain files. Pack it again without a password.\n"
    )


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_are_not_inflated_in_steps_are_refused(tmp_path: Path, method: int) -> None:
    path = _zip(tmp_path, method)

    with pytest.raises(SourceFormatError, match=rf"is packed by method {method}; expected stored or deflated"):
        _read(path)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        (PLACE, 0, "names files that overlap"),
        (PLACE, 1 << 30, "or that are not in it"),
        (PACKED, 1 << 30, "or that are not in it"),
        (SIZE, 7, "gives logits/c/3/0 two sizes"),
    ],
)
def test_a_directory_that_contradicts_itself_is_refused(
    source: Path, field: tuple[int, str], value: int, said: str
) -> None:
    _set(source, "logits/c/3/0", field, value)

    with pytest.raises(CorruptFileError, match=rf"{source}: is not a whole zip file \(its directory .*{said}"):
        _read(source)


def test_an_array_that_the_directory_gives_another_name_is_missed(source: Path) -> None:
    data = source.read_bytes()
    start = _directory_start(source)
    source.write_bytes(data[:start] + data[start:].replace(b"target/zarr.json", b"targen/zarr.json"))

    with pytest.raises(CorruptFileError, match=r"File name in directory 'targen/zarr\.json'"):
        _read(source)


def test_a_directory_that_is_too_long_is_refused(source: Path) -> None:
    count = zarr_zip.DIRECTORY_BYTES // (_ENTRY_BYTES + 4) + 1
    _with_directory(source, b"".join(_entry(b"%04d" % (i % 1000), i) for i in range(count)), entries=count)

    with pytest.raises(MetadataLimitError, match=rf"{source}: has a directory of \d+ bytes; expected at most 8388608"):
        _read(source)


def test_a_directory_of_two_gigabytes_is_not_read(source: Path) -> None:
    size = 2 << 30
    with open(source, "r+b") as file:
        file.truncate(size)
        file.seek(size)
        file.write(_END.pack(b"PK\5\6", 0, 0, 1, 1, size - 100, 100, 0))

    with pytest.raises(MetadataLimitError, match=r"has a directory of 2147483548 bytes"):
        _read(source)


@pytest.mark.parametrize("size", [1 << 40, 1 << 62, (1 << 64) - 1])
def test_a_zip64_record_that_lies_is_refused(source: Path, size: int) -> None:
    data = source.read_bytes()
    start = _directory_start(source)
    record = _END_64.pack(b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, size, start)
    end = _END.pack(b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    source.write_bytes(data[: -_END.size] + record + _LOCATOR.pack(b"PK\6\7", 0, len(data) - _END.size, 1) + end)

    with pytest.raises(CorruptFileError, match=rf"{source}: is not a whole zip file \((Bad offset|Corrupt zip64)"):
        _read(source)


def _packed(folder: Path, name: str, content: bytes, said: Callable[[int], int]) -> Path:
    """The dump, of which one file has been inflated to `content`; the directory says `said` of its length."""
    path = _zip(folder)
    with zipfile.ZipFile(path) as archive:
        files = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for each, data in (files | {name: content}).items():
            archive.writestr(each, data, zipfile.ZIP_DEFLATED if each == name else zipfile.ZIP_STORED)
    _set(path, name, SIZE, said(len(content)))
    return path


@pytest.mark.parametrize("name", ["logits/c/0/0", "id/c/1", "target/c/0"])
def test_a_chunk_that_is_inflated_beyond_its_limit_is_refused_before(tmp_path: Path, name: str) -> None:
    path = _packed(tmp_path, name, bytes(4 << 20), lambda size: size)

    with pytest.raises(CorruptChunkError, match=rf"{name} has 4194304 bytes"):
        _read(path)


@pytest.mark.parametrize("name", ["logits/c/0/0", "id/c/1", "target/c/0"])
def test_a_chunk_of_which_the_directory_says_less_is_refused(tmp_path: Path, name: str) -> None:
    path = _packed(tmp_path, name, bytes(4 << 20), lambda size: 600)

    with pytest.raises(CorruptChunkError, match=rf"Bad CRC-32 for file '{name}'"):
        _read(path)


def test_a_file_of_which_the_directory_says_more_is_refused(source: Path) -> None:
    path = _packed(source.parent, "logits/zarr.json", b'{"node_type": "array"}', lambda size: size + 1)

    with pytest.raises(CorruptFileError, match=r"logits/zarr\.json is shorter than the directory says"):
        _read(path)


def test_metadata_are_not_inflated_beyond_their_limit(source: Path) -> None:
    path = _packed(source.parent, "logits/zarr.json", b" " * (17 << 20), lambda size: size)

    with pytest.raises(MetadataLimitError, match=r"logits/zarr\.json: has 17825792 bytes"):
        _read(path)


def test_a_damaged_chunk_is_named(source: Path) -> None:
    data = bytearray(source.read_bytes())
    data[data.index(b"logits/c/3/0") + 20] ^= 1
    source.write_bytes(data)

    with pytest.raises(CorruptChunkError, match=r"chunk logits/c/3/0 does not decode \(Bad CRC-32"):
        _read(source)


def test_one_directory_serves_all_arrays(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(zipfile.ZipFile, "__init__", _recorded(opened))

    _read(source)

    assert len(opened) == 1


def _recorded(calls: list[Any], original: Any = zipfile.ZipFile.__init__) -> Any:
    def recorded(self: Any, *arguments: Any, **options: Any) -> None:
        calls.append(arguments)
        original(self, *arguments, **options)

    return recorded
