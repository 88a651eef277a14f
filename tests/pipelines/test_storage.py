"""Writes are whole or absent, and say what to do when they fail."""

import errno
import os
import pickle
import re
from pathlib import Path

import pytest

from softmax_dask_pipelines import storage
from softmax_dask_pipelines.errors import ConfigError, DiskFullError, PermissionDeniedError, StorageFailedError


@pytest.fixture(params=[True, False], ids=["renameat2", "three renames"])
def exchange(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(storage, "_renameat2_exchange", lambda one, other: False)
    return storage.exchange


def test_put_writes_the_parts_one_after_the_other(tmp_path):
    size = storage.put(tmp_path / "chunk", [b"logits", bytearray(b" at "), memoryview(b"rest")])

    assert size == 14
    assert (tmp_path / "chunk").read_bytes() == b"logits at rest"


def test_put_replaces_a_file(tmp_path):
    storage.put(tmp_path / "chunk", [b"old and longer"])

    storage.put(tmp_path / "chunk", [b"new"])

    assert (tmp_path / "chunk").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["chunk"]


def test_put_syncs_the_file_before_it_has_its_name(tmp_path, monkeypatch):
    names_when_synced = []
    monkeypatch.setattr(storage.os, "fsync", lambda descriptor: names_when_synced.extend(os.listdir(tmp_path)))

    storage.put(tmp_path / "chunk", [b"bytes"])

    assert len(names_when_synced) == 1
    assert names_when_synced[0].endswith(".tmp")


def test_a_failing_write_leaves_the_old_file_and_no_temporary(tmp_path):
    storage.put(tmp_path / "chunk", [b"old"])

    with pytest.raises(RuntimeError):
        _write_half(tmp_path / "chunk")

    assert (tmp_path / "chunk").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["chunk"]


def test_a_write_that_is_interrupted_leaves_no_temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(storage.os, "fsync", _raising(KeyboardInterrupt()))

    with pytest.raises(KeyboardInterrupt):
        storage.put(tmp_path / "chunk", [b"bytes"])

    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("operation", ["fsync", "replace"])
def test_a_full_disk_is_a_disk_full_error(tmp_path, monkeypatch, code, operation):
    monkeypatch.setattr(storage.os, operation, _raising(OSError(code, "full")))

    with pytest.raises(DiskFullError, match=r"chunk: no space left.*run the same command again"):
        storage.put(tmp_path / "chunk", [b"bytes"])

    assert os.listdir(tmp_path) == []


def test_a_full_device_is_a_disk_full_error():
    with pytest.raises(DiskFullError), storage.plain_errors(Path("/dev/full")):
        Path("/dev/full").write_bytes(b"bytes")


def test_a_path_without_permission_is_a_permission_denied_error(tmp_path, monkeypatch):
    monkeypatch.setattr(storage.os, "replace", _raising(PermissionError(errno.EACCES, "no")))

    with pytest.raises(PermissionDeniedError, match="chunk: cannot be written; expected"):
        storage.put(tmp_path / "chunk", [b"bytes"])


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (errno.EROFS, PermissionDeniedError),
        (errno.ENAMETOOLONG, ConfigError),
        (errno.EIO, StorageFailedError),
        (errno.ESTALE, StorageFailedError),
    ],
)
def test_what_a_file_system_says_is_an_error_of_ours(tmp_path, code, error):
    with pytest.raises(error, match=re.escape(str(tmp_path))), storage.plain_errors(tmp_path):
        raise OSError(code, "no")


def test_a_folder_that_vanished_is_a_failure_of_the_storage(tmp_path):
    with pytest.raises(StorageFailedError, match="run the same command again"):
        storage.put(tmp_path / "missing" / "chunk", [b"bytes"])


def test_the_innermost_path_is_the_one_named(tmp_path):
    outer, inner = (storage.plain_errors(tmp_path / name) for name in ("outer", "inner"))

    with pytest.raises(PermissionDeniedError, match="inner"), outer, inner:
        raise PermissionError(errno.EACCES, "no")


def test_errors_survive_pickling(tmp_path):
    with pytest.raises(DiskFullError) as caught, storage.plain_errors(tmp_path):
        raise OSError(errno.ENOSPC, "full")

    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_exchange_swaps_two_folders(tmp_path, exchange):
    for name in ("one", "other"):
        storage.make_folder(tmp_path / name)
        storage.put(tmp_path / name / "file", [name.encode()])

    exchange(tmp_path / "one", tmp_path / "other", aside=tmp_path / "aside")

    assert (tmp_path / "one" / "file").read_bytes() == b"other"
    assert (tmp_path / "other" / "file").read_bytes() == b"one"
    assert sorted(os.listdir(tmp_path)) == ["one", "other"]


def test_exchange_swaps_a_folder_and_a_file(tmp_path, exchange):
    storage.make_folder(tmp_path / "one")
    storage.put(tmp_path / "other", [b"bytes"])

    exchange(tmp_path / "one", tmp_path / "other", aside=tmp_path / "aside")

    assert (tmp_path / "one").read_bytes() == b"bytes"
    assert (tmp_path / "other").is_dir()


def test_exchange_of_what_is_not_there_is_an_error(tmp_path, exchange):
    storage.make_folder(tmp_path / "one")

    with pytest.raises(StorageFailedError):
        exchange(tmp_path / "one", tmp_path / "other", aside=tmp_path / "aside")

    assert os.listdir(tmp_path) == ["one"]


def test_make_folder_makes_those_above_it(tmp_path):
    storage.make_folder(tmp_path / "a" / "b")
    storage.make_folder(tmp_path / "a" / "b")

    assert (tmp_path / "a" / "b").is_dir()


def test_rename_moves_between_folders(tmp_path):
    storage.make_folder(tmp_path / "a")
    storage.put(tmp_path / "a" / "file", [b"bytes"])

    storage.rename(tmp_path / "a" / "file", tmp_path / "file")

    assert (tmp_path / "file").read_bytes() == b"bytes"


def test_remove_takes_files_folders_links_and_nothing(tmp_path):
    storage.make_folder(tmp_path / "folder" / "inner")
    storage.put(tmp_path / "file", [b""])
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    storage.make_folder(tmp_path / "kept")

    for name in ("folder", "file", "link", "nothing"):
        storage.remove(tmp_path / name)

    assert os.listdir(tmp_path) == ["kept"]


def test_remove_if_empty_keeps_a_folder_with_files(tmp_path):
    storage.make_folder(tmp_path / "empty")
    storage.make_folder(tmp_path / "full" / "inner")

    for name in ("empty", "full", "nothing"):
        storage.remove_if_empty(tmp_path / name)

    assert os.listdir(tmp_path) == ["full"]


def test_remove_temporaries_keeps_whole_files(tmp_path):
    storage.put(tmp_path / "chunk", [b"bytes"])
    (tmp_path / "chunk.0123abcd.tmp").write_bytes(b"by")

    storage.remove_temporaries(tmp_path)

    assert os.listdir(tmp_path) == ["chunk"]


def _write_half(path):
    with storage.writing(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError


def _raising(error):
    def operation(*arguments, **named):
        raise error

    return operation
