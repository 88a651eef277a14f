"""Which files a pattern or a folder stands for, and what the names of folders carry."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from softmax_dask_pipelines.errors import (
    BadTargetError,
    ColumnNotFoundError,
    ConfigError,
    SchemaMismatchError,
    SourceFormatError,
    SourceNotFoundError,
)
from softmax_dask_pipelines.sources import Source, SourceRequest, open_source
from tests.pipelines import dumps


def _open(path: Path | str, **request: Any) -> Source:
    return open_source(SourceRequest(str(path), **request))


def _read(path: Path | str, **request: Any) -> Any:
    source = _open(path, **request)
    return next(source.read(0, source.facts.rows))


def _rows(path: Path, start: int, rows: int, **columns: Any) -> Path:
    """A file whose row i holds i, 0."""
    data = np.stack([np.arange(start, start + rows), np.zeros(rows)], axis=1).astype("f4")
    return dumps.parquet_file(path, pa.table({"logits": dumps.lists(data), **columns}))


def _numbers(path: Path | str, **request: Any) -> list[int]:
    return [int(row[0]) for row in _read(path, **request).logits]


class TestPatterns:
    def test_matches_come_in_natural_order(self, tmp_path: Path) -> None:
        for start in (10, 2, 0):
            _rows(tmp_path / f"part-{start}.parquet", start, 1)

        assert _numbers(tmp_path / "part-*.parquet") == [0, 2, 10]

    def test_two_stars_match_at_any_depth_and_once(self, tmp_path: Path) -> None:
        _rows(tmp_path / "a.parquet", 0, 1)
        _rows(tmp_path / "b" / "c" / "d.parquet", 1, 1)

        assert _numbers(tmp_path / "**") == [0, 1]
        assert _numbers(tmp_path / "**" / "*.parquet") == [0, 1]

    def test_a_folder_that_matches_stands_for_its_files(self, tmp_path: Path) -> None:
        _rows(tmp_path / "day=1" / "part-0.parquet", 1, 1)
        _rows(tmp_path / "day=2" / "part-0.parquet", 2, 1)
        _rows(tmp_path / "month=1" / "part-0.parquet", 3, 1)

        assert _numbers(tmp_path / "day=*") == [1, 2]

    def test_files_of_any_name_match_if_they_are_parquet(self, tmp_path: Path) -> None:
        _rows(tmp_path / "part-0", 1, 1)
        (tmp_path / "part-0.crc").write_bytes(b"crc")
        (tmp_path / "_SUCCESS").touch()

        assert _numbers(tmp_path / "*") == [1]

    def test_private_and_hidden_folders_are_not_data(self, tmp_path: Path) -> None:
        _rows(tmp_path / "a.parquet", 0, 1)
        _rows(tmp_path / "_staging" / "b.parquet", 1, 1)

        assert _numbers(tmp_path / "**" / "*.parquet") == [0]

    def test_a_name_with_brackets_that_is_there_is_itself(self, tmp_path: Path) -> None:
        _rows(tmp_path / "dump[1].parquet", 0, 1)
        _rows(tmp_path / "dump1.parquet", 1, 1)

        assert _numbers(tmp_path / "dump[1].parquet") == [0]

    def test_a_folder_with_brackets_may_stand_above_a_pattern(self, tmp_path: Path) -> None:
        _rows(tmp_path / "run[1]" / "a.parquet", 0, 1)

        assert _numbers(tmp_path / "run[1]" / "*.parquet") == [0]

    @pytest.mark.parametrize("pattern", ["*.parquet", "nowhere/*.parquet", "**/x-?.parquet"])
    def test_a_pattern_that_matches_nothing_is_named(self, tmp_path: Path, pattern: str) -> None:
        (tmp_path / "notes.txt").touch()

        with pytest.raises(
            SourceNotFoundError, match=r"matches no Parquet file; expected at least one\. Check"
        ) as caught:
            _open(tmp_path / pattern)

        assert pattern in str(caught.value)

    def test_zarr_under_a_pattern_is_no_parquet(self, tmp_path: Path) -> None:
        dumps.zarr_array(tmp_path / "a.zarr", dumps.logits())

        with pytest.raises(SourceNotFoundError, match=r"\*\.zarr: matches no Parquet file"):
            _open(tmp_path / "*.zarr")

    def test_other_formats_have_no_patterns(self, tmp_path: Path) -> None:
        _rows(tmp_path / "a.parquet", 0, 1)

        with pytest.raises(SourceFormatError, match=r"\*\.parquet: is a pattern, and zarr was asked for.*Leave"):
            _open(tmp_path / "*.parquet", format="zarr")


class TestFolders:
    def test_links_to_folders_are_followed(self, tmp_path: Path) -> None:
        _rows(tmp_path / "elsewhere" / "a.parquet", 0, 1)
        _rows(tmp_path / "dump" / "b.parquet", 1, 1)
        (tmp_path / "dump" / "a").symlink_to(tmp_path / "elsewhere")

        assert _numbers(tmp_path / "dump") == [0, 1]

    def test_links_in_a_circle_are_followed_once(self, tmp_path: Path) -> None:
        _rows(tmp_path / "dump" / "b" / "b.parquet", 1, 1)
        (tmp_path / "dump" / "b" / "c").symlink_to(tmp_path / "dump")

        assert _numbers(tmp_path / "dump") == [1]

    def test_part_1_and_part_01_have_a_fixed_order(self, tmp_path: Path) -> None:
        _rows(tmp_path / "part-1.parquet", 1, 1)
        _rows(tmp_path / "part-01.parquet", 0, 1)

        assert _numbers(tmp_path) == [0, 1]

    def test_a_name_too_long_for_a_path_is_not_there(self, tmp_path: Path) -> None:
        # Python 3.14 says of such a name that nothing is there.
        with pytest.raises(SourceNotFoundError, match=r"is no path.*Check it|there is no '.*Check the path"):
            _open(tmp_path / ("x" * 5000))


class TestHive:
    def _folder(self, path: Path, *values: str) -> Path:
        for number, value in enumerate(values):
            _rows(path / "dump" / f"day={value}" / "part-0.parquet", 2 * number, 2)
        return path / "dump"

    def test_a_key_can_be_the_id(self, tmp_path: Path) -> None:
        path = self._folder(tmp_path, "1", "2", "10")

        source = _open(path, id="day")
        block = next(source.read(0, 6))

        assert (source.facts.id.name, source.facts.id.type.value_type) == ("day", pa.int64())
        assert block.carried["day"].to_pylist() == [1, 1, 2, 2, 10, 10]

    def test_a_key_that_is_no_plain_number_is_text(self, tmp_path: Path) -> None:
        path = self._folder(tmp_path, "007", "8", "caf%C3%A9 x", "__HIVE_DEFAULT_PARTITION__")

        block = _read(path, id="day")

        assert sorted(block.carried["day"].to_pylist(), key=str) == [
            "007",
            "007",
            "8",
            "8",
            None,
            None,
            "café x",
            "café x",
        ]

    def test_a_key_can_be_the_target(self, tmp_path: Path) -> None:
        path = self._folder(tmp_path, "0", "1")

        assert _read(path, target="day").targets.tolist() == [0, 0, 1, 1]

    def test_a_target_outside_the_classes_is_named(self, tmp_path: Path) -> None:
        path = self._folder(tmp_path, "0", "2")

        with pytest.raises(BadTargetError, match="day: row 2 has target 2; expected 0 to 1"):
            _read(path, target="day")

    def test_keys_are_no_ids_unless_named(self, tmp_path: Path) -> None:
        _rows(tmp_path / "dump" / "id=3" / "a.parquet", 0, 1)

        assert _open(tmp_path / "dump").facts.id is None

    def test_a_column_of_that_name_comes_first(self, tmp_path: Path) -> None:
        _rows(tmp_path / "dump" / "day=3" / "a.parquet", 0, 1, day=pa.array([4]))

        assert _read(tmp_path / "dump", id="day").carried["day"].to_pylist() == [4]

    def test_the_key_comes_first_where_that_name_is_not_named(self, tmp_path: Path) -> None:
        _rows(tmp_path / "dump" / "day=3" / "a.parquet", 0, 1, day=pa.array([4]))

        assert _read(tmp_path / "dump").carried["day"].to_pylist() == [3]

    def test_every_key_is_carried_in_the_order_of_the_path(self, tmp_path: Path) -> None:
        _rows(tmp_path / "dump" / "b=1" / "a=x" / "part-0.parquet", 0, 2, id=pa.array(["p", "q"]))

        source = _open(tmp_path / "dump")
        block = next(source.read(0, 2))

        assert [(column.name, column.is_id) for column in source.facts.carried] == [
            ("id", True),
            ("b", False),
            ("a", False),
        ]
        assert {name: values.to_pylist() for name, values in block.carried.items()} == {
            "id": ["p", "q"],
            "b": [1, 1],
            "a": ["x", "x"],
        }

    def test_a_block_holds_each_value_of_a_key_once(self, tmp_path: Path) -> None:
        path = self._folder(tmp_path, "b", "c", "__HIVE_DEFAULT_PARTITION__")

        source = _open(path)
        values = next(source.read(0, 6)).carried["day"]

        assert values.type == source.facts.carried[0].type == pa.dictionary(pa.int32(), pa.string())
        assert sorted(values.dictionary.to_pylist()) == ["b", "c"]
        assert sorted(values.to_pylist(), key=str) == [None, None, "b", "b", "c", "c"]

    def test_folders_of_different_keys_have_nulls(self, tmp_path: Path) -> None:
        _rows(tmp_path / "dump" / "day=1" / "a.parquet", 0, 1)
        _rows(tmp_path / "dump" / "month=2" / "a.parquet", 1, 1)

        block = _read(tmp_path / "dump")

        assert (block.carried["day"].to_pylist(), block.carried["month"].to_pylist()) == ([1, None], [None, 2])

    def test_a_misspelt_key_comes_with_the_nearest(self, tmp_path: Path) -> None:
        path = self._folder(tmp_path, "1")

        with pytest.raises(ColumnNotFoundError, match=r"no column 'dya'.*Did you mean 'day'"):
            _open(path, id="dya")

    def test_keys_of_a_pattern_are_known(self, tmp_path: Path) -> None:
        self._folder(tmp_path, "1", "2")

        assert _read(tmp_path / "dump" / "day=*" / "*.parquet", id="day").carried["day"].to_pylist() == [1, 1, 2, 2]

    def test_a_file_outside_the_folders_is_named(self, tmp_path: Path) -> None:
        path = self._folder(tmp_path, "1")
        _rows(path / "z.parquet", 0, 1)

        with pytest.raises(SchemaMismatchError, match=r"z\.parquet is in no folder 'day=\.\.\.'.*Move it"):
            _open(path, id="day")


class TestMixtures:
    def test_wide_beside_lists_names_both_files(self, tmp_path: Path) -> None:
        data = dumps.logits(3)
        dumps.parquet_file(tmp_path / "a.parquet", pa.table(dumps.wide(data)))
        dumps.parquet_file(tmp_path / "b.parquet", pa.table({"logits": dumps.lists(data)}))

        with pytest.raises(SchemaMismatchError, match=r"b\.parquet: no column.* But .*a\.parquet has columns logit_\*"):
            _open(tmp_path)

    def test_lists_and_fixed_size_lists_may_stand_together(self, tmp_path: Path) -> None:
        data = dumps.logits(6)
        dumps.parquet_file(tmp_path / "a.parquet", pa.table({"logits": dumps.fixed_lists(data[:3])}))
        dumps.parquet_file(tmp_path / "b.parquet", pa.table({"logits": dumps.large_lists(data[3:])}))

        assert _read(tmp_path).logits.tobytes() == data.tobytes()

    def test_wide_columns_may_stand_in_another_order(self, tmp_path: Path) -> None:
        data = dumps.logits(4)
        columns = {f"p_{name}": pa.array(data[:, k]) for k, name in enumerate(dumps.CLASS_NAMES)}
        table = pa.table(columns)
        dumps.parquet_file(tmp_path / "a.parquet", table.slice(0, 2))
        dumps.parquet_file(tmp_path / "b.parquet", table.slice(2).select(sorted(columns, reverse=True)))

        source = _open(tmp_path, column_prefix="p_")

        assert source.facts.class_names == dumps.CLASS_NAMES
        assert next(source.read(0, 4)).logits.tobytes() == data.tobytes()

    def test_an_empty_file_without_types_is_skipped(self, tmp_path: Path) -> None:
        data = dumps.logits(4)
        dumps.parquet_file(tmp_path / "a.parquet", pa.table({"id": pa.nulls(0), "logits": pa.nulls(0)}))
        dumps.parquet_file(
            tmp_path / "b.parquet", pa.table({"id": pa.nulls(0), "logits": pa.array([], pa.list_(pa.null()))})
        )
        dumps.parquet_file(tmp_path / "c.parquet", pa.table({"id": dumps.ids(4), "logits": dumps.lists(data)}))

        block = _read(tmp_path)

        assert block.logits.tobytes() == data.tobytes()
        assert block.carried["id"].to_pylist() == dumps.ids(4)

    def test_two_columns_of_one_name_are_refused(self, tmp_path: Path) -> None:
        lists = dumps.lists(dumps.logits(3))
        path = dumps.parquet_file(tmp_path / "a.parquet", pa.table([lists, lists], names=["logits", "logits"]))

        with pytest.raises(SchemaMismatchError, match=r"a\.parquet: two columns have the name 'logits'"):
            _open(path)


class TestNames:
    def test_ids_and_targets_may_be_members_of_structs(self, tmp_path: Path) -> None:
        rows = [{"key": f"é{i}", "truth": {"class": i % 2}} for i in range(4)]
        path = _rows(tmp_path / "a.parquet", 0, 4, meta=pa.array(rows))

        block = _read(path, id="meta.key", target="meta.truth.class")

        assert block.carried["meta.key"].to_pylist() == ["é0", "é1", "é2", "é3"]
        assert block.targets.tolist() == [0, 1, 0, 1]

    def test_a_wrong_member_comes_with_the_nearest(self, tmp_path: Path) -> None:
        path = dumps.parquet_file(tmp_path / "a.parquet", pa.table(dumps.struct(dumps.logits(3))))

        with pytest.raises(ColumnNotFoundError, match=r"'outputs\.logit'.*Did you mean 'outputs\.logits'\?"):
            _open(path, column="outputs.logit")

    def test_a_column_may_have_a_dot_in_its_name(self, tmp_path: Path) -> None:
        data = dumps.logits(3)
        path = dumps.parquet_file(tmp_path / "a.parquet", pa.table({"model.logits": dumps.lists(data)}))

        assert _read(path, column="model.logits").logits.tobytes() == data.tobytes()

    @pytest.mark.parametrize(
        "ids",
        [
            pa.array(["é", None, "é", "日本"]).dictionary_encode(),
            pa.array(["é", None, "é", "日本"], pa.large_string()),
            pa.array(["é", None, "é", "日本"]),
        ],
    )
    def test_ids_may_be_null_alike_and_of_any_script(self, tmp_path: Path, ids: Any) -> None:
        path = _rows(tmp_path / "a.parquet", 0, 4, id=ids)

        assert _read(path).carried["id"].to_pylist() == ["é", None, "é", "日本"]

    @pytest.mark.parametrize("key", [{"array": "logits"}, {"class_axis": 0}, {"missing_chunks": "fill"}])
    def test_what_is_said_of_other_formats_is_refused(self, tmp_path: Path, key: dict[str, Any]) -> None:
        path = _rows(tmp_path / "a.parquet", 0, 4)

        with pytest.raises(ConfigError, match=rf"{next(iter(key))}: is .*a\.parquet is parquet; expected no"):
            _open(path, **key)


class TestAmbiguity:
    def test_lists_beside_wide_columns_are_listed(self, tmp_path: Path) -> None:
        data = dumps.logits(3)
        columns = {"scores": dumps.lists(data), **dumps.wide(data, "p")}
        path = dumps.parquet_file(tmp_path / "a.parquet", pa.table(columns))

        with pytest.raises(ColumnNotFoundError, match=r"a\.parquet: scores, p\* may all be logits.*Name the column"):
            _open(path)

    def test_the_usual_name_decides(self, tmp_path: Path) -> None:
        data = dumps.logits(3)
        columns = {"embedding": dumps.lists(data), **dumps.wide(data, "Logit-")}
        path = dumps.parquet_file(tmp_path / "a.parquet", pa.table(columns))

        assert _open(path).facts.name == "Logit-"

    def test_numbered_columns_that_are_no_classes_do_not_count(self, tmp_path: Path) -> None:
        years = {"year2019": pa.array([1.0] * 3), "year2020": pa.array([1.0] * 3)}
        path = dumps.parquet_file(tmp_path / "a.parquet", pa.table({"scores": dumps.lists(dumps.logits(3)), **years}))

        assert _open(path).facts.name == "scores"

    def test_bytes_are_taken_by_their_name_only(self, tmp_path: Path) -> None:
        columns = {"uuid": pa.array([b"0" * 16], pa.binary(16)), "scores": dumps.lists(dumps.logits(1))}
        path = dumps.parquet_file(tmp_path / "a.parquet", pa.table(columns))

        assert _open(path).facts.name == "scores"
        assert _open(path, column="uuid").facts.layout.endswith("bytes read as float32")


class TestBytes:
    @pytest.mark.parametrize("dtype", ["float16", "float64", "int8"])
    def test_the_columns_metadata_may_name_a_dtype(self, tmp_path: Path, dtype: str) -> None:
        data = dumps.logits(3, dtype=dtype)
        rows = dumps.binaries(data)
        schema = pa.schema([pa.field("logits", rows.type, metadata={"dtype": dtype})])
        path = dumps.parquet_file(tmp_path / "a.parquet", pa.table([rows], schema=schema))

        block = _read(path)

        assert block.logits.dtype == dtype
        assert block.logits.tobytes() == data.tobytes()

    def test_bytes_that_are_no_whole_numbers_are_refused(self, tmp_path: Path) -> None:
        path = dumps.parquet_file(tmp_path / "a.parquet", pa.table({"logits": pa.array([b"123456"], pa.binary(6))}))

        with pytest.raises(SourceFormatError, match="has 6 bytes a row; expected whole float32"):
            _open(path)
