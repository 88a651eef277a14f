"""Writes are whole or absent, and say what to do when they fail."""

import errno
import os
import pickle
import re
from pathlib import Path

import pytest

from softmax_dask_pipelines import disk, storage
from softmax_dask_pipelines.errors import ConfigError, DiskFullError, PermissionDeniedError, StorageFailedError


@pytest.fixture(params=[True, False], ids=["renameat2", "three renames"])
def exchange(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(disk, "_renameat2_exchange", lambda one, other: False)
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
    monkeypatch.setattr(disk.os, "fsync", lambda descriptor: names_when_synced.extend(os.listdir(tmp_path)))

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
    monkeypatch.setattr(disk.os, "fsync", _raising(KeyboardInterrupt()))

    with pytest.raises(KeyboardInterrupt):
        storage.put(tmp_path / "chunk", [b"bytes"])

    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("operation", ["fsync", "replace"])
def test_a_full_disk_is_a_disk_full_error(tmp_path, monkeypatch, code, operation):
    monkeypatch.setattr(disk.os, operation, _raising(OSError(code, "full")))

    with pytest.raises(DiskFullError, match=r"chunk: no space left.*run the same command again"):
        storage.put(tmp_path / "chunk", [b"bytes"])

    assert os.listdir(tmp_path) == []


def test_a_full_device_is_a_disk_full_error():
    with pytest.raises(DiskFullError), storage.plain_errors(Path("/dev/full")):
        Path("/dev/full").write_bytes(b"bytes")


def test_a_path_without_permission_is_a_permission_denied_error(tmp_path, monkeypatch):
    monkeypatch.setattr(disk.os, "replace", _raising(PermissionError(errno.EACCES, "no")))

    with pytest.raises(PermissionDeniedError, match="chunk: cannot be written; expected"):
        storage.put(tmp_path / "chunk", [b"bytes"])


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (errno.EROFS, PermissionDeniedError),
        (errno.ENAMETOOLONG, ConfigError),
        (errno.EIO, StorageFailedError),
        (errno.ESTALE, StorageFailedError),
        (errno.ESPIPE, ConfigError),  # as `rclone mount` answers who appends
        (errno.EOPNOTSUPP, ConfigError),
    ],
)
def test_what_a_file_system_says_is_an_error_of_ours(tmp_path, code, error):
    with pytest.raises(error, match=re.escape(str(tmp_path))), storage.plain_errors(tmp_path):
        raise OSError(code, "no")


def test_a_failure_of_the_storage_comes_with_what_the_system_said(tmp_path):
    with pytest.raises(StorageFailedError, match=r"failed \(Stale file handle\); "), storage.plain_errors(tmp_path):
        raise OSError(errno.ESTALE, "Stale file handle")


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


@pytest.mark.parametrize("what", ["another file", "one file less"])
def test_remove_takes_a_folder_that_a_worker_still_writes_into(tmp_path, monkeypatch, what):
    folder, rmtree = tmp_path / "scratch", disk.shutil.rmtree
    folder.mkdir()
    (folder / "chunk").touch()
    left = [1, 1]

    def meets_a_worker(path):
        if left and what == "another file":
            left.pop()
            os.rmdir(path)  # not empty
        elif left:
            left.pop()
            os.unlink(path / "moved")  # not there
        rmtree(path)

    monkeypatch.setattr(disk.shutil, "rmtree", meets_a_worker)

    storage.remove(folder)

    assert not folder.exists()


def test_remove_gives_up_where_somebody_writes_all_the_time(tmp_path, monkeypatch):
    (tmp_path / "chunk").touch()
    monkeypatch.setattr(disk, "_REMOVAL_WAITS_S", (0.0, 0.0))
    monkeypatch.setattr(disk.shutil, "rmtree", os.rmdir)

    with pytest.raises(StorageFailedError, match=r"cannot be removed, for somebody still writes into it; .* again\.$"):
        storage.remove(tmp_path)


def test_remove_if_empty_keeps_a_folder_with_files(tmp_path):
    storage.make_folder(tmp_path / "empty")
    storage.make_folder(tmp_path / "full" / "inner")

    for name in ("empty", "full", "nothing"):
        storage.remove_if_empty(tmp_path / name)

    assert os.listdir(tmp_path) == ["full"]


def test_a_temporary_file_stands_in_the_scratch_folder(tmp_path, monkeypatch):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "output").mkdir()
    seen = []
    monkeypatch.setattr(disk.os, "fsync", lambda descriptor: seen.append(os.listdir(tmp_path / "scratch")))

    storage.put(tmp_path / "output" / "chunk", [b"bytes"], scratch=tmp_path / "scratch")

    assert [len(names) for names in seen] == [1]
    assert (os.listdir(tmp_path / "scratch"), os.listdir(tmp_path / "output")) == ([], ["chunk"])


def test_put_without_durability_syncs_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(disk.os, "fsync", _raising(AssertionError("synced")))

    storage.put(tmp_path / "chunk", [b"bytes"], durable=False)

    assert (tmp_path / "chunk").read_bytes() == b"bytes"


def test_what_is_begun_has_its_bytes_and_no_name_until_it_is_finished(tmp_path):
    data = bytearray(b"logits at rest")
    begun = storage.begin(tmp_path / "chunk", [data])
    data[:] = bytes(len(data))  # who wrote it uses the memory again

    [temporary] = os.listdir(tmp_path)
    assert temporary.endswith(".tmp")
    assert begun.finish() == 14
    assert os.listdir(tmp_path) == ["chunk"]
    assert (tmp_path / "chunk").read_bytes() == b"logits at rest"


def test_what_is_begun_is_synced_by_who_finishes_it(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(disk.os, "fsync", synced.append)

    begun = storage.begin(tmp_path / "chunk", [b"bytes"])

    assert synced == []
    begun.finish()
    assert len(synced) == 1


@pytest.mark.parametrize("finish", [False, True])
def test_what_is_dropped_leaves_nothing_unless_it_was_finished(tmp_path, finish):
    begun = storage.begin(tmp_path / "chunk", [b"bytes"])
    if finish:
        begun.finish()

    begun.drop()
    begun.drop()

    assert os.listdir(tmp_path) == finish * ["chunk"]


def test_a_begun_file_that_does_not_reach_the_disk_is_a_plain_error_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(disk.os, "fsync", _raising(OSError(errno.ENOSPC, "full")))
    begun = storage.begin(tmp_path / "chunk", [b"bytes"])

    with pytest.raises(DiskFullError, match="chunk: no space left"):
        begun.finish()
    begun.drop()

    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("links", [True, False])
def test_put_new_writes_a_file_once(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(disk.os, "link", _raising(OSError(errno.EPERM, "no links here")))

    answers = [storage.put_new(tmp_path / "commit", [text]) for text in (b"first", b"second")]

    assert answers == [True, False]
    assert (tmp_path / "commit").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["commit"]


def test_put_new_syncs_the_file_and_then_its_name(tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr(disk.os, "fsync", lambda descriptor: events.append(sorted(os.listdir(tmp_path))))

    storage.put_new(tmp_path / "commit", [b"decision"])

    assert [["commit" in names for names in events], len(events)] == [[False, True], 2]


def test_a_log_keeps_what_was_appended_before(tmp_path):
    for line in (b"one\n", b"two\n"):
        log = disk.Log(tmp_path / "journal")
        log.append(line)
        log.sync()
        log.close()

    assert (tmp_path / "journal").read_bytes() == b"one\ntwo\n"


def test_a_log_on_a_full_disk_is_a_disk_full_error(tmp_path, monkeypatch):
    log = disk.Log(tmp_path / "journal")
    monkeypatch.setattr(disk.os, "write", _raising(OSError(errno.ENOSPC, "full")))

    with pytest.raises(DiskFullError, match="journal: no space left"):
        log.append(b"line")
    log.close()


def test_parts_are_written_whole_where_the_system_takes_a_few_bytes_at_a_time(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(disk.os, "write", lambda descriptor, data: write(descriptor, data[:3]))

    storage.put(tmp_path / "chunk", [b"logits", memoryview(b" at rest")])

    assert (tmp_path / "chunk").read_bytes() == b"logits at rest"


def _write_half(path):
    with storage.writing(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError


def _raising(error):
    def operation(*arguments, **named):
        raise error

    return operation
