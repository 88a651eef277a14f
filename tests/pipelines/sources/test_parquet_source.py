"""Parquet: choosing columns, what is carried, and files that are not as they should be."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest

from softmax_dask.errors import ClassAxisError, DtypeError
from softmax_dask_pipelines.errors import (
    BadTargetError,
    ColumnNotFoundError,
    CorruptFileError,
    NullRowsError,
    RaggedRowsError,
    SchemaMismatchError,
    SourceFormatError,
    SourceNotFoundError,
)
from softmax_dask_pipelines.sources import Source, SourceRequest, open_source
from tests.pipelines import dumps


def _open(path: Path, **request: Any) -> Source:
    return open_source(SourceRequest(str(path), **request))


def _read(path: Path, **request: Any) -> list[Any]:
    source = _open(path, **request)
    return list(source.read(0, source.facts.rows))


def _file(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    return dumps.parquet_file(path / "dump.parquet", pa.table(columns), **options)


class TestChoice:
    def test_the_only_list_of_numbers_is_taken(self, tmp_path: Path) -> None:
        tags = pa.array([["a"]] * 4)
        path = _file(tmp_path, {"tags": tags, "scores": dumps.lists(dumps.logits(4))})

        assert _open(path).facts.name == "scores"

    def test_logits_is_taken_among_several(self, tmp_path: Path) -> None:
        data = dumps.logits(4)
        path = _file(tmp_path, {"features": dumps.lists(data), "logits": dumps.lists(data)})

        assert _open(path).facts.name == "logits"

    def test_several_candidates_are_listed(self, tmp_path: Path) -> None:
        data = dumps.logits(4)
        path = _file(tmp_path, {"one": dumps.lists(data), "two": dumps.lists(data)})

        with pytest.raises(ColumnNotFoundError, match=r"one, two may all be logits.*Name the column"):
            _open(path)

    def test_a_wrong_name_comes_with_the_nearest(self, tmp_path: Path) -> None:
        path = _file(tmp_path, {"logits": dumps.lists(dumps.logits(4))})

        with pytest.raises(
            ColumnNotFoundError, match=r"no column 'logit'; expected one of logits. Did you mean 'logits'\?"
        ):
            _open(path, column="logit")

    def test_a_column_that_is_no_list_is_refused_with_its_type(self, tmp_path: Path) -> None:
        path = _file(tmp_path, {"a": pa.array([1.0])})

        with pytest.raises(SourceFormatError, match=r"column 'a' is double; expected lists"):
            _open(path, column="a")

    def test_nothing_that_can_be_logits_lists_the_columns(self, tmp_path: Path) -> None:
        path = _file(tmp_path, {"a": pa.array([1.0]), "b": pa.array(["x"])})

        with pytest.raises(SourceFormatError, match="There are: a double, b string"):
            _open(path)

    def test_wide_columns_come_in_the_order_of_their_numbers(self, tmp_path: Path) -> None:
        data = dumps.logits(4, 12)
        path = _file(tmp_path, dumps.wide(data))

        source = _open(path)

        assert source.facts.name == "logit_"
        assert next(source.read(0, 4)).logits.tolist() == data.tolist()

    def test_two_sets_of_wide_columns_are_ambiguous(self, tmp_path: Path) -> None:
        data = dumps.logits(4)
        path = _file(tmp_path, dumps.wide(data, "a") | dumps.wide(data, "b"))

        with pytest.raises(ColumnNotFoundError, match=r"a\*, b\* may all be logits.*prefix"):
            _open(path)

    def test_a_number_left_out_is_refused(self, tmp_path: Path) -> None:
        columns = dumps.wide(dumps.logits(4))
        del columns["logit_2"]

        with pytest.raises(SchemaMismatchError, match="logit_0 to logit_4 leave numbers out"):
            _open(_file(tmp_path, columns))

    def test_ends_that_are_no_numbers_are_class_names(self, tmp_path: Path) -> None:
        data = dumps.logits(4)
        columns = {f"p_{name}": pa.array(data[:, k]) for k, name in enumerate(dumps.CLASS_NAMES)}

        source = _open(_file(tmp_path, columns), column_prefix="p_")

        assert source.facts.class_names == dumps.CLASS_NAMES
        assert next(source.read(0, 4)).logits.tolist() == data.tolist()

    def test_a_prefix_of_no_column_is_refused(self, tmp_path: Path) -> None:
        path = _file(tmp_path, dumps.wide(dumps.logits(4)))

        with pytest.raises(ColumnNotFoundError, match="no column that begins with 'score_'"):
            _open(path, column_prefix="score_")

    def test_wide_columns_of_two_types_are_refused(self, tmp_path: Path) -> None:
        columns = dumps.wide(dumps.logits(4)) | {"logit_0": pa.array([0.0] * 4)}

        with pytest.raises(SchemaMismatchError, match="are double, float; expected one type"):
            _open(_file(tmp_path, columns))


class TestDtype:
    @pytest.mark.parametrize("stored", [pa.int64(), pa.uint64(), pa.bool_(), pa.string()])
    def test_others_are_refused_and_cast_is_advised(self, tmp_path: Path, stored: Any) -> None:
        path = _file(tmp_path, {"logits": pa.array([[1, 0]]).cast(pa.list_(pa.int8())).cast(pa.list_(stored))})

        with pytest.raises(DtypeError, match="Cast first"):
            _open(path)

    def test_sixteen_bit_integers_are_bfloat16_on_demand(self, tmp_path: Path) -> None:
        data = dumps.logits().astype(ml_dtypes.bfloat16)
        path = _file(tmp_path, {"logits": dumps.fixed_lists(data.view("uint16"))})

        block = _read(path, dtype="bfloat16")[0]

        assert block.logits.dtype == ml_dtypes.bfloat16
        assert block.logits.tobytes() == data.tobytes()

    def test_no_classes_are_refused(self, tmp_path: Path) -> None:
        path = _file(tmp_path, {"logits": pa.array([[], []], pa.list_(pa.float32()))})

        with pytest.raises(ClassAxisError, match="expected at least 1 class"):
            _open(path)

    def test_no_rows_of_fixed_size_lists_are_legal(self, tmp_path: Path) -> None:
        path = _file(tmp_path, {"logits": pa.array([], pa.list_(pa.float32(), 3))})

        assert _open(path).facts.classes == 3
        assert _read(path) == []

    def test_no_rows_of_lists_have_no_known_classes(self, tmp_path: Path) -> None:
        path = _file(tmp_path, {"logits": pa.array([], pa.list_(pa.float32()))})

        with pytest.raises(SourceFormatError, match=r"holds no rows.*Write a fixed_size_list"):
            _open(path)

    def test_tensors_of_fixed_shape_are_lists(self, tmp_path: Path) -> None:
        data = dumps.logits()
        tensors = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), [5]), dumps.fixed_lists(data))
        path = _file(tmp_path, {"logits": tensors})

        assert _read(path)[0].logits.tolist() == data.tolist()


class TestRows:
    @pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 2)])
    def test_a_null_row_is_named(self, tmp_path: Path, kind: Any) -> None:
        path = _file(tmp_path, {"logits": pa.array([[1, 2], [3, 4], None, [5, 6]], kind)})

        with pytest.raises(NullRowsError, match=r"dump\.parquet: column 'logits': row 2 is null.*Leave the row out"):
            _read(path)

    @pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 2)])
    def test_a_null_inside_a_row_is_named(self, tmp_path: Path, kind: Any) -> None:
        path = _file(tmp_path, {"logits": pa.array([[1, 2], [3, None]], kind)})

        with pytest.raises(NullRowsError, match="column 'logits': row 1 holds null"):
            _read(path)

    def test_a_null_in_a_wide_column_is_named(self, tmp_path: Path) -> None:
        path = _file(tmp_path, {"logit_0": pa.array([1.0, 2.0]), "logit_1": pa.array([1.0, None])})

        with pytest.raises(NullRowsError, match="column 'logit_1': row 1 is null"):
            _read(path)

    def test_an_unequal_row_is_named_with_its_file(self, tmp_path: Path) -> None:
        kind = pa.list_(pa.float32())
        table = pa.table({"logits": pa.array([[1, 2], [3, 4], [5, 6], [7, 8, 9]], kind)})
        path = dumps.parquet_folder(tmp_path / "d", table, [2])

        expected = r"part-5\.parquet: column 'logits': row 3 \(row 1 of this file\) has 3 logits; expected 2"
        with pytest.raises(RaggedRowsError, match=expected):
            _read(path)

    def test_rows_before_the_bad_one_can_be_read(self, tmp_path: Path) -> None:
        path = _file(tmp_path, {"logits": pa.array([[1, 2], [3, 4], None], pa.list_(pa.float32()))})

        assert next(_open(path).read(0, 2)).logits.tolist() == [[1, 2], [3, 4]]


class TestFiles:
    def test_files_come_in_the_natural_order_of_their_names(self, tmp_path: Path) -> None:
        data = dumps.logits(60)
        path = dumps.parquet_folder(tmp_path / "d", pa.table({"logits": dumps.lists(data)}), [20, 40])

        assert sorted(file.name for file in path.iterdir())[1] == "part-10.parquet"
        assert _read(path)[0].logits.tolist() == data.tolist()

    @pytest.mark.parametrize("make", [dumps.lists, dumps.fixed_lists])
    def test_another_number_of_classes_names_both_files(self, tmp_path: Path, make: Any) -> None:
        for number, classes in ((1, 5), (2, 4)):
            dumps.parquet_file(tmp_path / f"{number}.parquet", pa.table({"logits": make(dumps.logits(3, classes))}))

        with pytest.raises(SchemaMismatchError, match=r"2\.parquet holds .*lists of 4 .*1\.parquet holds .*lists of 5"):
            _open(tmp_path)

    def test_another_dtype_names_both_files(self, tmp_path: Path) -> None:
        for number, dtype in ((1, "f4"), (2, "f8")):
            table = pa.table({"logits": dumps.lists(dumps.logits(3, dtype=dtype))})
            dumps.parquet_file(tmp_path / f"{number}.parquet", table)

        with pytest.raises(SchemaMismatchError, match=r"2\.parquet .*float64.*1\.parquet .*float32"):
            _open(tmp_path)

    def test_a_file_without_the_ids_names_both_files(self, tmp_path: Path) -> None:
        table = dumps.parquet_table({"logits": dumps.lists(dumps.logits(3))})
        dumps.parquet_file(tmp_path / "1.parquet", table)
        dumps.parquet_file(tmp_path / "2.parquet", table.drop_columns(["id"]))

        with pytest.raises(SchemaMismatchError, match=r"2\.parquet has no column 'id', but .*1\.parquet has"):
            _open(tmp_path)

    def test_other_class_names_name_both_files(self, tmp_path: Path) -> None:
        table = dumps.parquet_table({"logits": dumps.lists(dumps.logits(3))})
        dumps.parquet_file(tmp_path / "1.parquet", table)
        other = table.replace_schema_metadata({"class_names": json.dumps(dumps.CLASS_NAMES)})
        dumps.parquet_file(tmp_path / "2.parquet", other)

        with pytest.raises(SchemaMismatchError, match=r"2\.parquet and .*1\.parquet name their classes differently"):
            _open(tmp_path)

    @pytest.mark.parametrize("share", [0, 0.5, 0.99])
    def test_a_file_cut_short_is_named(self, tmp_path: Path, share: float) -> None:
        path = _file(tmp_path, {"logits": dumps.lists(dumps.logits())})
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])

        with pytest.raises(CorruptFileError, match=r"dump\.parquet: is no whole Parquet file .*Copy it again"):
            _open(path)

    def test_garbage_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "dump.parquet").write_bytes(b"x" * 999)

        with pytest.raises(CorruptFileError, match=r"dump\.parquet"):
            _open(tmp_path)

    def test_a_flipped_bit_is_found_by_the_page_checksum(self, tmp_path: Path) -> None:
        path = _file(
            tmp_path,
            {"logits": dumps.fixed_lists(dumps.logits(500))},
            write_page_checksum=True,
            compression="none",
            use_dictionary=False,
        )
        source = _open(path)
        stored = bytearray(path.read_bytes())
        stored[5000] ^= 4
        path.write_bytes(stored)

        with pytest.raises(CorruptFileError, match=r"dump\.parquet.*CRC"):
            list(source.read(0, 500))

    def test_a_file_that_went_away_is_named(self, tmp_path: Path) -> None:
        path = _file(tmp_path, {"logits": dumps.lists(dumps.logits())})
        source = _open(path)
        path.unlink()

        with pytest.raises(SourceNotFoundError, match=r"dump\.parquet: is not there any more"):
            list(source.read(0, 103))


class TestCarried:
    def test_ids_of_other_types_are_refused(self, tmp_path: Path) -> None:
        path = _file(tmp_path, {"logits": dumps.lists(dumps.logits(1)), "id": pa.array([1.5])})

        with pytest.raises(SchemaMismatchError, match="id: is double; expected integers or text"):
            _open(path)

    def test_a_requested_name_must_exist(self, tmp_path: Path) -> None:
        path = _file(tmp_path, {"logits": dumps.lists(dumps.logits(1)), "name": pa.array(["a"])})

        with pytest.raises(ColumnNotFoundError, match=r"no column 'names'.*Did you mean 'name'\?"):
            _open(path, id="names")

    @pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
    def test_text_targets_are_matched_to_the_class_names(self, tmp_path: Path, kind: Any) -> None:
        target = pa.array(["dog", "", None, "gnu"]).cast(kind)
        path = _file(tmp_path, {"logits": dumps.lists(dumps.logits(4)), "target": target})

        assert _read(path, class_names=dumps.CLASS_NAMES)[0].targets.tolist() == [1, -1, -1, 4]

    @pytest.mark.parametrize("target", [pa.array([0, 7], pa.uint8()), pa.array([0, 7], pa.int64())])
    def test_a_target_outside_the_classes_is_named_with_its_row(self, tmp_path: Path, target: Any) -> None:
        path = _file(tmp_path, {"logits": dumps.lists(dumps.logits(2)), "target": target})

        with pytest.raises(BadTargetError, match=r"target: row 1 has target 7; expected 0 to 4"):
            _read(path)

    def test_class_names_may_stand_in_our_own_metadata(self, tmp_path: Path) -> None:
        own = {"softmax_dask": json.dumps({"class_names": dumps.CLASS_NAMES})}
        table = pa.table({"logits": dumps.lists(dumps.logits())}).replace_schema_metadata(own)
        path = dumps.parquet_file(tmp_path / "dump.parquet", table)

        assert _open(path).facts.class_names == dumps.CLASS_NAMES

    def test_class_names_that_are_no_json_are_refused(self, tmp_path: Path) -> None:
        table = pa.table({"logits": dumps.lists(dumps.logits())}).replace_schema_metadata({"class_names": "a,b"})
        path = dumps.parquet_file(tmp_path / "dump.parquet", table)

        with pytest.raises(SchemaMismatchError, match=r"dump\.parquet: metadata class_names is not JSON"):
            _open(path)


def test_a_huge_row_group_is_never_in_memory_whole(tmp_path: Path) -> None:
    """40 MB in one row group, in blocks of at most 8 MiB: Arrow holds a batch, its levels and a buffer."""
    data = np.random.default_rng(0).normal(size=(100_000, 100)).astype("f4")
    path = _file(
        tmp_path,
        {"logits": dumps.fixed_lists(data)},
        row_group_size=100_000,
        compression="none",
        use_dictionary=False,
    )
    source = _open(path)
    before = pa.total_allocated_bytes()

    peak = max(pa.total_allocated_bytes() - before for _ in source.read(0, 100_000))

    assert peak <= source.facts.read_overhead_bytes + source.facts.read_rows * 400
