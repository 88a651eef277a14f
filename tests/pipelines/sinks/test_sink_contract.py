"""What every sink promises, for every kind of output."""

import dataclasses
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from numcodecs import VLenUTF8, Zstd
from numpy.testing import assert_array_equal

from softmax_dask.columns import COLUMNS
from softmax_dask_pipelines import disk, storage
from softmax_dask_pipelines.errors import ConfigError, DiskFullError, OutputExistsError, SchemaMismatchError
from softmax_dask_pipelines.sinks import CarriedColumn, OutputSpec
from softmax_dask_pipelines.sinks.carried import carried_texts, with_lengths
from softmax_dask_pipelines.sinks.zarr_codecs import encode_string_runs, encode_strings
from tests.pipelines.sinks.outputs import SPECS, files_under, opened, values_of, write, write_partition


@pytest.fixture(params=["zarr", "parquet"])
def file_format(request):
    return request.param


@pytest.fixture(params=SPECS)
def spec(request, file_format, tmp_path) -> OutputSpec:
    return _at(tmp_path, file_format, SPECS[request.param])


@pytest.fixture
def wide(file_format, tmp_path) -> OutputSpec:
    return _at(tmp_path, file_format, SPECS["wide float32"])


@pytest.fixture
def small(file_format, tmp_path) -> OutputSpec:
    """Two partitions, for tests that write dozens of outputs."""
    spec = dataclasses.replace(SPECS["narrow"], rows=20, columns=("label", "probabilities"))
    return _at(tmp_path, file_format, spec)


def test_output_is_absent_until_it_is_published(spec):
    write(spec)

    assert not _opens(spec)


@pytest.mark.parametrize("step", [1, 3, 8, 1000])
def test_output_holds_the_values_handed_in(spec, step):
    values = values_of(spec)

    write(spec, values=values, step=step).publish()

    found = _read(spec)
    for name in spec.columns:
        if name != "label_name":
            assert_array_equal(found[name], values.columns[name], strict=True, err_msg=name)


def test_output_holds_what_is_carried_and_targets_and_names(spec):
    values = values_of(spec)

    write(spec).publish()

    found = _read(spec)
    for column in spec.carried:
        assert list(found[column.name]) == _as_stored(spec, column, values.carried[column.source_name].to_pylist())
    if spec.has_targets:
        assert_array_equal(found["target"], values.targets)
    if "label_name" in spec.columns:
        missing = "" if spec.format == "zarr" else None
        assert list(found["label_name"]) == [name or missing for name in values.label_names(spec.class_names)]


def test_output_holds_nothing_else(spec):
    write(spec).publish()

    output = Path(spec.path)
    assert files_under(output) == _expected_files(spec)
    assert list(output.parent.iterdir()) == [output]


def test_what_a_partition_stored_is_there_with_that_size(spec):
    output = opened(spec)
    output.sink.prepare()
    if spec.rows == 0:
        return

    stored = write_partition(output.sink, spec, 0, values_of(spec))

    output.publish()
    for item in stored:
        assert (Path(spec.path) / item.key).stat().st_size == item.size_bytes


def test_publishing_twice_changes_nothing(spec):
    output = write(spec)
    output.publish()
    before = _contents(spec)

    output.publish()

    assert _contents(spec) == before


def test_equal_plans_give_equal_bytes(file_format, tmp_path):
    one, other = (_at(tmp_path / name, file_format, SPECS["everything"]) for name in ("a", "b"))

    write(one, step=3).publish()
    write(other, step=1000).publish()

    assert _contents(one) == _contents(other)


def test_a_sink_can_be_sent_to_another_process(wide):
    output = opened(wide)
    output.sink.prepare()

    sent = pickle.loads(pickle.dumps(output.sink))

    for number in range(4):
        write_partition(sent, wide, number, values_of(wide))
    output.publish()
    assert_array_equal(_read(wide)["label"], values_of(wide).columns["label"])


def test_a_partition_may_be_written_twice(wide):
    output = write(wide)

    write_partition(output.sink, wide, 1, values_of(wide), step=5)

    output.publish()
    assert files_under(Path(wide.path)) == _expected_files(wide)


def test_an_attempt_that_died_leaves_nothing_in_the_output(wide):
    output = write(wide)
    (output.place.scratch / "c.0.0.0123abcd.tmp").write_bytes(b"half")

    output.publish()

    assert files_under(Path(wide.path)) == _expected_files(wide)


def test_an_attempt_that_failed_leaves_no_partition(wide):
    output = opened(wide)
    output.sink.prepare()
    writer = output.sink.writer(0)
    writer.reserve(3)
    writer.advance(3, {}, None)

    with pytest.raises(AssertionError, match="3 of 16 rows"):
        writer.close()

    assert not [name for name in files_under(Path(wide.path).parent) if "part" in name or "c.0" in name]


def test_replace_shows_the_old_output_until_it_is_published(spec):
    write(spec).publish()
    before = _contents(spec)
    newer = values_of(spec, seed=1)

    output = write(spec, values=newer, replace=True)

    assert _contents(spec) == before
    output.publish()
    for name in spec.columns:
        if name != "label_name":
            assert_array_equal(_read(spec)[name], newer.columns[name])
    assert list(Path(spec.path).parent.iterdir()) == [Path(spec.path)]


def test_replace_works_where_there_is_nothing_to_replace(wide):
    write(wide, replace=True).publish()

    assert _opens(wide)


def test_replace_takes_the_place_of_a_file(wide):
    Path(wide.path).parent.mkdir(exist_ok=True)
    Path(wide.path).write_text("not a folder")

    write(wide, replace=True).publish()

    assert _opens(wide)


@pytest.mark.parametrize("renameat2", [True, False])
def test_replace_completes_after_a_crash_at_any_step(small, renameat2, monkeypatch):
    if not renameat2:
        monkeypatch.setattr(disk, "_renameat2_exchange", lambda one, other: False)
    newer = values_of(small, seed=1)

    for step in range(100):
        storage.remove(Path(small.path))
        write(small).publish()
        output = write(small, values=newer, replace=True)
        output.sink.seal()
        made = output.place.made()
        if not _crashes_at(step, lambda: output.publish_sealed(made)):  # noqa: B023
            break
        opened(small, replace=True).publish_sealed(made)
        assert_array_equal(_read(small)["label"], newer.columns["label"])
        assert list(Path(small.path).parent.iterdir()) == [Path(small.path)]
    assert step > 3


def test_publish_completes_after_a_crash_at_any_step(small):
    for step in range(100):
        storage.remove(Path(small.path))
        output = write(small)
        output.sink.seal()
        made = output.place.made()
        if not _crashes_at(step, lambda: output.publish_sealed(made)):  # noqa: B023
            break
        opened(small).publish_sealed(made)
        assert_array_equal(_read(small)["label"], values_of(small).columns["label"])
        assert list(Path(small.path).parent.iterdir()) == [Path(small.path)]
    assert step > 1


def test_an_increment_completes_after_a_crash_at_any_step(small):
    longer, values = _grown(small), values_of(dataclasses.replace(small, rows=40))

    for step in range(100):
        storage.remove(Path(small.path))
        write(small, values=values).publish()
        output = write(longer, values=_of_increment(longer, values))
        output.sink.seal()
        if not _crashes_at(step, lambda: output.publish_sealed(None)):  # noqa: B023
            break
        opened(longer).publish_sealed(None)
        assert_array_equal(_read(small)["label"], values.columns["label"])
        assert_array_equal(_read(small)["probabilities"], values.columns["probabilities"])
    assert step > 1


def test_an_increment_is_invisible_until_it_is_published(small):
    longer, values = _grown(small), values_of(dataclasses.replace(small, rows=40))
    write(small, values=values).publish()
    before = _read(small)["label"].tolist()

    output = write(longer, values=_of_increment(longer, values))
    output.sink.seal()

    assert _read(small)["label"].tolist() == before
    assert not [name for name in files_under(Path(small.path)) if name.endswith(".tmp")]


@pytest.mark.parametrize("replace", [True, False])
def test_a_run_after_a_crash_while_the_place_was_made_is_whole(small, replace):
    for step in range(100):
        storage.remove(Path(small.path))
        if not _crashes_at(step, opened(small, replace=replace).sink.prepare):
            break
        write(small).publish()
        assert _read(small)["label"].tolist() == values_of(small).columns["label"].tolist()
        assert list(Path(small.path).parent.iterdir()) == [Path(small.path)]
    assert step > 1


def test_preparing_again_keeps_what_is_written(wide):
    write(wide)

    output = opened(wide)
    output.sink.prepare()

    output.publish()
    assert_array_equal(_read(wide)["label"], values_of(wide).columns["label"])


def test_what_a_partition_stored_is_found_before_it_is_published(wide):
    output = opened(wide)
    output.sink.prepare()

    stored = write_partition(output.sink, wide, 1, values_of(wide))

    assert [output.sink.find(1, item.key).stat().st_size for item in stored] == [item.size_bytes for item in stored]


def test_clearing_a_place_leaves_nothing_of_it(spec):
    output = write(spec)

    output.place.clear()

    assert files_under(Path(spec.path).parent) == set()


def test_clearing_the_place_of_a_replacement_leaves_the_old_output(wide):
    write(wide).publish()
    before = _contents(wide)

    write(wide, replace=True).place.clear()

    assert _contents(wide) == before


def test_publishing_refuses_what_appeared_at_the_path(wide):
    output = write(wide)
    output.sink.seal()
    Path(wide.path).mkdir()
    (Path(wide.path) / "photo.jpg").touch()

    with pytest.raises(OutputExistsError, match="is there already"):
        output.place.publish(output.place.made())

    assert files_under(Path(wide.path)) == {"photo.jpg"}


def test_a_full_disk_is_a_temporary_error(wide, monkeypatch):
    output = opened(wide)
    output.sink.prepare()
    monkeypatch.setattr(disk.os, "fsync", _no_space)

    with pytest.raises(DiskFullError, match="no space left"):
        write_partition(output.sink, wide, 0, values_of(wide))

    assert not [name for name in files_under(Path(wide.path).parent) if name.endswith(".tmp")]


@pytest.mark.parametrize("name", ["label", "target", "class", "commit", "..", "", "a/b", "a\0"])
def test_ids_cannot_have_the_name_of_a_column_or_of_no_folder(wide, name):
    ids = CarriedColumn(name, "meta/id", pa.string(), is_id=True)

    with pytest.raises(ConfigError, match=r"id: is .*; expected a name that no column .* --rename meta/id=NEW\.$"):
        opened(dataclasses.replace(wide, carried=(ids,)))


def test_a_key_cannot_have_the_name_of_the_ids(wide):
    ids, key = (CarriedColumn("day", source, pa.string(), is_id=source == "id") for source in ("id", "day"))

    with pytest.raises(ConfigError, match=r"Hive key: is 'day'; .* --rename day=NEW"):
        opened(dataclasses.replace(wide, carried=(ids, key)))


def test_a_key_cannot_be_called_row_where_rows_are_numbered(tmp_path):
    spec = _at(tmp_path, "parquet", SPECS["narrow"])
    key = CarriedColumn("row", "row", pa.string())

    with pytest.raises(ConfigError, match="Hive key: is 'row'"):
        opened(dataclasses.replace(spec, carried=(key,)))


def test_missing_ids_are_null_in_parquet_and_empty_text_in_zarr(file_format, tmp_path):
    spec = _at(tmp_path, file_format, dataclasses.replace(SPECS["text ids"], rows=3))
    values = dataclasses.replace(values_of(spec), carried={"meta/id": pa.array(["a", None, "c"])})

    write(spec, values=values).publish()

    assert list(_read(spec)["id"]) == ["a", "" if file_format == "zarr" else None, "c"]


def test_missing_integer_ids_are_refused_by_zarr(tmp_path):
    spec = _at(tmp_path, "zarr", dataclasses.replace(SPECS["integer ids"], rows=3))
    values = dataclasses.replace(values_of(spec), carried={"meta/image": pa.array([1, None, 3], pa.int32())})

    with pytest.raises(SchemaMismatchError, match="image: 1 ids are missing; expected"):
        write(spec, values=values)


def test_runs_of_texts_are_encoded_as_the_texts_one_by_one():
    texts = with_lengths(pa.array(["é", "é", "b", None, ""]))

    encoded = encode_string_runs([("é", 2), ("x", 0), ("b", 1), ("", 3)])

    assert encoded == encode_strings([texts], 6)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_texts_are_encoded_as_by_numcodecs(kind):
    texts = ["", "é", None, "a\0b", "日本語", "x" * 300, None]
    chunks = pa.chunked_array([pa.array(texts, kind).slice(1), pa.array([], kind), pa.array(texts, kind)])

    encoded = encode_strings(carried_texts(chunks, "id"), 15)

    expected = np.array([text or "" for text in [*texts[1:], *texts, None, None]], dtype=object)
    assert Zstd().decode(encoded[0]) == VLenUTF8().encode(expected)


def test_text_that_is_no_utf_8_is_refused():
    ends = pa.py_buffer(np.array([0, 2, 4], np.int32))
    texts = pa.Array.from_buffers(pa.string(), 2, [None, ends, pa.py_buffer(b"ok\xff\xfe")])

    with pytest.raises(SchemaMismatchError, match="id: holds text that is not UTF-8; expected"):
        carried_texts(pa.chunked_array([texts]), "id")


def test_views_end_where_the_chunk_ends(wide):
    output = opened(wide)
    output.sink.prepare()
    writer = output.sink.writer(0)

    lengths = []
    for _ in range(4):
        views = writer.reserve(5)
        lengths.append({len(view) for view in views.values()})
        writer.advance(len(views["label"]), {}, None)

    assert lengths == [{5}, {3}, {5}, {3}]


def test_a_partition_that_is_abandoned_leaves_no_half_file_and_is_written_again(wide):
    threads = set(threading.enumerate())
    output = opened(wide)
    output.sink.prepare()
    writer = output.sink.writer(0)
    for _ in range(3):
        views = writer.reserve(5)
        for view in views.values():
            view[:] = 0
        writer.advance(len(views["label"]), {}, None)

    writer.abandon()

    assert files_under(output.place.scratch) == set()
    assert set(threading.enumerate()) <= threads
    assert write_partition(output.sink, wide, 0, values_of(wide)) == write_partition(
        opened(wide).sink, wide, 0, values_of(wide)
    )


def _at(folder: Path, file_format: Any, spec: OutputSpec) -> OutputSpec:
    folder.mkdir(exist_ok=True)
    return dataclasses.replace(spec, format=file_format, path=str(folder / f"scores.{file_format}"))


def _opens(spec: OutputSpec) -> bool:
    if spec.format == "parquet":
        return Path(spec.path).is_dir()
    try:
        zarr.open_group(spec.path, mode="r")
    except FileNotFoundError:
        return False
    return True


def _read(spec: OutputSpec) -> dict[str, Any]:
    """All columns as NumPy arrays; null is -1, None for texts."""
    if spec.format == "zarr":
        group = zarr.open_group(spec.path, mode="r")
        return {name: group[name][:] for name in group.array_keys()}
    table = pq.read_table(spec.path, partitioning=None)
    return {name: _parquet_values(spec, name, table[name].combine_chunks()) for name in table.column_names}


def _as_stored(spec: OutputSpec, column: CarriedColumn, values: list[Any]) -> list[Any]:
    """Of Zarr, integers with nulls are text: the empty one is null."""
    if spec.format == "parquet" or not column.has_nulls:
        return values
    return ["" if value is None else str(value) for value in values]


def _parquet_values(spec: OutputSpec, name: str, array: Any) -> Any:
    column = COLUMNS.get(name)
    if column is not None and column.per == "member":
        return np.array([[*found, *[-1] * (spec.members - len(found))] for found in _lists(array)], np.int32).reshape(
            -1, spec.members
        )
    if column is not None and column.per != "row":
        tail = column.tail(spec.classes, spec.top_k)
        return array.values.to_numpy(zero_copy_only=False).reshape(-1, *tail)
    if name in ("correct", "accept"):
        return array.cast("int8").fill_null(-1).to_numpy()
    if name == "target":
        return array.fill_null(-1).to_numpy()
    if name in {"label_name", *(column.name for column in spec.carried)}:
        return array.to_pylist()
    return array.to_numpy()


def _lists(array: Any) -> list[list[int]]:
    return [found or [] for found in array.to_pylist()]


def _contents(spec: OutputSpec) -> dict[str, bytes]:
    output = Path(spec.path)
    return {name: (output / name).read_bytes() for name in files_under(output)}


def _expected_files(spec: OutputSpec) -> set[str]:
    partitions = -(-spec.rows // spec.partition_rows)
    if spec.format == "parquet":
        return {f"commit=000001/part-{number:05d}.parquet" for number in range(max(partitions, 1))}
    chunks = -(-spec.rows // spec.chunk_rows)
    files = {"zarr.json"}
    narrow = [name for name in spec.columns if COLUMNS[name].per == "row"]
    narrow += [column.name for column in spec.carried]
    narrow += ["target"] if spec.has_targets else []
    for name in narrow:
        files |= {f"{name}/zarr.json"} | {f"{name}/c.{number}" for number in range(partitions)}
    for name in (name for name in spec.columns if COLUMNS[name].per == "rank"):
        files |= {f"{name}/zarr.json"} | {f"{name}/c.{number}.0" for number in range(partitions)}
    for name in (name for name in spec.columns if COLUMNS[name].is_large):
        files |= {f"{name}/zarr.json"} | {f"{name}/c.{number}.0" for number in range(chunks)}
    return files | ({"class/zarr.json", "class/c.0"} if spec.class_names else set())


def _grown(spec: OutputSpec) -> OutputSpec:
    """What makes 40 rows of its 20: the rest of its last partition, and one more."""
    rows = 40 if spec.format == "zarr" else 20
    return dataclasses.replace(spec, rows=rows, visible_rows=20, commit=2)


def _of_increment(spec: OutputSpec, values: Any) -> Any:
    """The values by the numbers of the increment's own rows."""
    if spec.format == "zarr":
        return values
    columns = {name: column[20:] for name, column in values.columns.items()}
    return dataclasses.replace(values, columns=columns)


class _Crash(BaseException):
    """The process ends here."""


def _crashes_at(step: int, action: Any) -> bool:
    """Run `action` up to its storage operation number `step`; whether it got there."""
    operations = ("replace", "rename", "unlink", "rmdir", "fsync")
    count = 0

    def stopping(real: Any) -> Any:
        def operation(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            if count >= step:
                raise _Crash
            count += 1
            return real(*arguments, **named)

        return operation

    with pytest.MonkeyPatch.context() as patch:
        for name in operations:
            patch.setattr(disk.os, name, stopping(getattr(disk.os, name)))
        try:
            action()
        except _Crash:
            return True
    return False


def _no_space(descriptor: int) -> None:
    raise OSError(28, "No space left on device")
