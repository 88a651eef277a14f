"""Zarr: choosing the array, what is carried, and dumps that are not as they should be."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

from softmax_dask.errors import ClassAxisError, DtypeError
from softmax_dask_pipelines.errors import (
    BadTargetError,
    ColumnNotFoundError,
    CorruptChunkError,
    MissingChunkError,
    SchemaMismatchError,
    SourceFormatError,
)
from softmax_dask_pipelines.sources import Source, SourceRequest, open_source
from tests.pipelines import dumps


def _open(path: Path, **request: Any) -> Source:
    return open_source(SourceRequest(str(path), **request))


def _read(path: Path, **request: Any) -> list[Any]:
    source = _open(path, **request)
    return list(source.read(0, source.facts.rows))


def _group(path: Path, **arrays: Any) -> Path:
    group = zarr.create_group(path)
    for name, values in arrays.items():
        group.create_array(name, data=values)
    return path


class TestChoice:
    def test_the_only_array_of_two_axes_is_taken(self, tmp_path: Path) -> None:
        path = _group(tmp_path / "g", scores=dumps.logits(), mean=np.zeros(103, "f4"), tokens=np.zeros((103, 2), "i8"))

        assert _open(path).facts.name == "scores"

    def test_logits_is_taken_among_several(self, tmp_path: Path) -> None:
        path = _group(tmp_path / "g", features=dumps.logits(), logits=dumps.logits())

        assert _open(path).facts.name == "logits"

    def test_several_candidates_are_listed(self, tmp_path: Path) -> None:
        path = _group(tmp_path / "g", one=dumps.logits(), two=dumps.logits())

        with pytest.raises(
            ColumnNotFoundError,
            match=r"one float32 \(103, 5\), two float32 \(103, 5\) may all be logits.*Name the array",
        ):
            _open(path)

    def test_a_nested_array_is_reached_by_its_path(self, tmp_path: Path) -> None:
        _group(tmp_path / "g", one=dumps.logits())
        _group(tmp_path / "g" / "deep", scores=dumps.logits(7, 3))

        assert _open(tmp_path / "g", array="deep/scores").facts.rows == 7

    @pytest.mark.parametrize("name", ["logit", "../h/logits", "."])
    def test_a_wrong_name_lists_those_there_are(self, tmp_path: Path, name: str) -> None:
        path = _group(tmp_path / "g", logits=dumps.logits())
        _group(tmp_path / "h", logits=dumps.logits())

        with pytest.raises(ColumnNotFoundError, match=rf"no array '{name}'; expected one of logits"):
            _open(path, array=name)

    def test_a_wrong_name_comes_with_the_nearest(self, tmp_path: Path) -> None:
        path = _group(tmp_path / "g", logits=dumps.logits())

        with pytest.raises(ColumnNotFoundError, match=r"Did you mean 'logits'\?"):
            _open(path, array="logit")

    def test_an_array_of_a_bare_array_is_refused(self, tmp_path: Path) -> None:
        path = dumps.zarr_array(tmp_path / "a", dumps.logits())

        with pytest.raises(ColumnNotFoundError, match="is an array itself"):
            _open(path, array="logits")

    def test_one_axis_is_refused_with_the_shape(self, tmp_path: Path) -> None:
        path = _group(tmp_path / "g", logits=np.zeros(6, "f4"))

        with pytest.raises(SourceFormatError, match=r"has shape \(6,\); expected 2 axes or more"):
            _open(path)

    def test_a_group_without_candidates_lists_what_it_holds(self, tmp_path: Path) -> None:
        path = _group(tmp_path / "g", a=np.zeros(3), b=np.zeros(4))

        with pytest.raises(SourceFormatError, match=r"a float64 \(3,\), b float64 \(4,\)"):
            _open(path)

    def test_an_array_that_zarr_cannot_open_is_no_candidate(self, tmp_path: Path) -> None:
        path = _group(tmp_path / "g", odd=dumps.logits(), scores=dumps.logits())
        _edit(path / "odd" / "zarr.json", data_type="quaternion")

        assert _open(path).facts.name == "scores"

    def test_an_array_that_zarr_cannot_open_is_named_when_asked_for(self, tmp_path: Path) -> None:
        path = _group(tmp_path / "g", odd=dumps.logits())
        _edit(path / "odd" / "zarr.json", data_type="quaternion")

        with pytest.raises(SourceFormatError, match=r"odd: zarr-python cannot open it .*quaternion"):
            _open(path, array="odd")

    def test_metadata_that_is_no_json_is_named(self, tmp_path: Path) -> None:
        path = dumps.zarr_array(tmp_path / "a", dumps.logits())
        (path / "zarr.json").write_text("{")

        with pytest.raises(SourceFormatError, match=r"a/zarr\.json: is not JSON"):
            _open(path)


class TestDtype:
    @pytest.mark.parametrize("dtype", ["int64", "uint64", "bool", "complex64"])
    def test_others_are_refused_and_cast_is_advised(self, tmp_path: Path, dtype: str) -> None:
        path = dumps.zarr_array(tmp_path / "a", np.zeros((4, 3), dtype))

        with pytest.raises(DtypeError, match=f"logits are {dtype}.*Cast first"):
            _open(path)

    @pytest.mark.parametrize("stored", ["uint16", "int16", ">u2"])
    def test_sixteen_bit_integers_are_bfloat16_on_demand(self, tmp_path: Path, stored: str) -> None:
        data = dumps.logits().astype(ml_dtypes.bfloat16)
        bits = (
            data.view(stored[-2:] if stored[0] != ">" else "u2").astype(stored)
            if stored[0] == ">"
            else data.view(stored)
        )
        path = dumps.zarr_array(tmp_path / "a", bits, zarr_format=2)

        block = _read(path, dtype="bfloat16")[0]

        assert block.logits.dtype == ml_dtypes.bfloat16
        assert block.logits.tobytes() == data.tobytes()

    def test_bfloat16_of_other_widths_is_refused(self, tmp_path: Path) -> None:
        path = dumps.zarr_array(tmp_path / "a", dumps.logits())

        with pytest.raises(DtypeError, match="float32, but bfloat16 was asked for"):
            _open(path, dtype="bfloat16")

    def test_metadata_that_say_bfloat16_are_understood(self, tmp_path: Path) -> None:
        data = dumps.logits().astype(ml_dtypes.bfloat16)
        path = dumps.zarr_array(tmp_path / "a", data.view("uint16"))
        _edit(path / "zarr.json", data_type="bfloat16", fill_value=0.0)

        assert _read(path)[0].logits.tobytes() == data.tobytes()

    def test_no_classes_are_refused(self, tmp_path: Path) -> None:
        path = dumps.zarr_array(tmp_path / "a", np.zeros((4, 0), "f4"), chunks=(4, 1))

        with pytest.raises(ClassAxisError, match=r"shape \(4, 0\); expected at least 1 class"):
            _open(path)

    def test_no_rows_are_legal(self, tmp_path: Path) -> None:
        path = dumps.zarr_array(tmp_path / "a", np.zeros((0, 4), "f4"), chunks=(4, 4))

        assert _open(path).facts.rows == 0
        assert _read(path) == []


COMPRESSORS: dict[str, tuple[int, Any]] = {
    "raw": (3, None),
    "crc32c": (3, [Crc32cCodec()]),
    "zstd": (3, [ZstdCodec()]),
    "gzip": (3, [GzipCodec()]),
    "blosc": (3, [BloscCodec(cname="lz4")]),
    "v2 raw": (2, None),
    "v2 lz4": (2, [numcodecs.LZ4()]),
    "v2 zlib": (2, [numcodecs.Zlib()]),
    "v2 blosc": (2, [numcodecs.Blosc()]),
}


@pytest.mark.skipif(not hasattr(zarr.codecs, "ScaleOffset"), reason="of zarr-python 3.2 and later")
@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("as_int8", [False, True])
def test_logits_that_were_scaled_and_cast_are_read_as_zarr_python_reads_them(
    tmp_path: Path, as_int8: bool, sharded: bool
) -> None:
    filters: list[Any] = [zarr.codecs.ScaleOffset(offset=0.5, scale=8.0)]
    if as_int8:
        pytest.importorskip("cast_value_rs", reason="of what zarr-python needs for it")
        filters.append(zarr.codecs.CastValue(data_type="int8", rounding="nearest-even", out_of_range="clamp"))
    path = dumps.zarr_array(
        tmp_path / "a", dumps.logits(), chunks=(10, 5), filters=filters, shards=(20, 5) if sharded else None
    )

    stored = zarr.open_array(path, mode="r")[:]

    assert len(np.unique(stored)) < (256 if as_int8 else stored.size + 1)
    np.testing.assert_array_equal(np.concatenate([block.logits for block in _read(path)]), stored)


class TestChunks:
    @pytest.mark.parametrize("compressor", COMPRESSORS)
    @pytest.mark.parametrize("share", [0.3, 0.5, 0.99])
    def test_a_chunk_cut_short_is_named(self, tmp_path: Path, compressor: str, share: float) -> None:
        zarr_format, codec = COMPRESSORS[compressor]
        path = dumps.zarr_group(
            tmp_path / "g",
            dumps.logits(),
            zarr_format=zarr_format,
            chunks=(10, 5),
            compressors=codec,
            carried=False,
        )
        chunk = path / "logits" / ("c/3/0" if zarr_format == 3 else "3.0")
        whole = chunk.read_bytes()
        chunk.write_bytes(whole[: int(len(whole) * share)])

        key = chunk.relative_to(path).as_posix()
        with pytest.raises(CorruptChunkError, match=rf"chunk {key} .*\d+ bytes on disk.*Copy it again"):
            _read(path)

    @pytest.mark.parametrize("layout", [{"chunks": (10, 5)}, {"chunks": (5, 5), "shards": (10, 5)}])
    def test_an_empty_file_is_corrupt(self, tmp_path: Path, layout: dict[str, Any]) -> None:
        path = dumps.zarr_array(tmp_path / "a", dumps.logits(), **layout)
        (path / "c/3/0").write_bytes(b"")

        with pytest.raises(CorruptChunkError, match=r"chunk c/3/0 is empty \(0 bytes on disk\)"):
            _read(path)

    @pytest.mark.parametrize("layout", [{"chunks": (10, 5)}, {"chunks": (5, 5), "shards": (10, 5)}])
    def test_a_missing_file_is_an_error(self, tmp_path: Path, layout: dict[str, Any]) -> None:
        path = dumps.zarr_array(tmp_path / "a", dumps.logits(), **layout)
        (path / "c/3/0").unlink()

        with pytest.raises(MissingChunkError, match=r"chunk c/3/0 of the logits is not there.*write_empty_chunks=True"):
            _read(path)

    def test_other_rows_can_be_read_beside_a_missing_chunk(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("softmax_dask_pipelines.sources.blocks.READ_BYTES", 1)
        path = dumps.zarr_array(tmp_path / "a", dumps.logits(), chunks=(10, 5))
        (path / "c/3/0").unlink()

        assert len(list(_open(path).read(0, 30))) == 3

    def test_an_inner_chunk_that_the_shard_does_not_have_is_an_error(self, tmp_path: Path) -> None:
        data = dumps.logits()
        data[15:20] = 0
        path = dumps.zarr_array(tmp_path / "a", data, chunks=(5, 5), shards=(20, 5))

        with pytest.raises(MissingChunkError, match=r"inner chunk \(3, 0\) of chunk c/0/0"):
            _read(path)

    @pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
    def test_a_shard_cut_short_is_named(self, tmp_path: Path, share: float) -> None:
        path = dumps.zarr_array(tmp_path / "a", dumps.logits(), chunks=(5, 5), shards=(20, 5))
        whole = (path / "c/1/0").read_bytes()
        (path / "c/1/0").write_bytes(whole[: int(len(whole) * share)])

        with pytest.raises(CorruptChunkError, match=r"chunk c/1/0 .*bytes on disk"):
            _read(path)

    def test_a_flipped_bit_is_found_by_the_checksum(self, tmp_path: Path) -> None:
        path = dumps.zarr_array(tmp_path / "a", dumps.logits(), chunks=(10, 5), compressors=[Crc32cCodec()])
        stored = bytearray((path / "c/3/0").read_bytes())
        stored[11] ^= 4
        (path / "c/3/0").write_bytes(stored)

        with pytest.raises(CorruptChunkError, match=r"chunk c/3/0 does not decode"):
            _read(path)

    @pytest.mark.parametrize(
        ("compressors", "text"),
        [
            (None, "uncompressed, no checksum"),
            ([ZstdCodec(level=3, checksum=True)], "zstd(level=3), checksum"),
            ([BloscCodec(cname="lz4", clevel=5), Crc32cCodec()], "blosc(cname=lz4, clevel=5), checksum"),
        ],
    )
    def test_the_codec_is_told_with_its_checksum(self, tmp_path: Path, compressors: Any, text: str) -> None:
        path = dumps.zarr_array(tmp_path / "a", dumps.logits(), compressors=compressors)

        assert _open(path).facts.codec == text


class TestCarried:
    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            (np.array([3, 1, 2], "i8"), [3, 1, 2]),
            (np.array([3, 1, 2], ">u2"), [3, 1, 2]),
            (np.array(["a", "bé", ""]), ["a", "bé", ""]),
            (np.array([b"a", "é".encode(), b""]), ["a", "é", ""]),
        ],
    )
    def test_ids_are_integers_or_text(self, tmp_path: Path, values: Any, expected: list[Any]) -> None:
        path = dumps.zarr_group(tmp_path / "g", dumps.logits(3), zarr_format=2, carried=False)
        dumps.zarr_array(path / "ids", values, zarr_format=2)

        assert _read(path)[0].carried["ids"].to_pylist() == expected

    def test_ids_of_other_numbers_are_refused(self, tmp_path: Path) -> None:
        path = _group(tmp_path / "g", logits=dumps.logits(3), id=np.zeros(3))

        with pytest.raises(SchemaMismatchError, match="id: is float64; expected integers or text"):
            _open(path)

    def test_ids_of_another_length_are_refused(self, tmp_path: Path) -> None:
        path = _group(tmp_path / "g", logits=dumps.logits(3), id=np.zeros(4, "i4"))

        with pytest.raises(SchemaMismatchError, match=r"id: has shape \(4,\); expected \(3,\)"):
            _open(path)

    @pytest.mark.parametrize("key", ["id", "target"])
    def test_a_requested_name_must_exist(self, tmp_path: Path, key: str) -> None:
        path = _group(tmp_path / "g", logits=dumps.logits(3), names=np.zeros(3, "i4"))

        with pytest.raises(ColumnNotFoundError, match=r"no array 'name'.*Did you mean 'names'\?"):
            _open(path, **{key: "name"})

    def test_missing_chunks_of_targets_are_the_fill_value(self, tmp_path: Path) -> None:
        path = _group(tmp_path / "g", logits=dumps.logits(6))
        target = zarr.create_array(path / "target", shape=(6,), chunks=(2,), dtype="i4", fill_value=-1)
        target[2:4] = 3

        assert _read(path)[0].targets.tolist() == [-1, -1, 3, 3, -1, -1]

    @pytest.mark.parametrize("value", [5, -2, 2**63])
    def test_a_target_outside_the_classes_is_named_with_its_row(self, tmp_path: Path, value: int) -> None:
        dtype = "u8" if value > 5 else "i2"
        path = _group(tmp_path / "g", logits=dumps.logits(3), target=np.array([0, 1, value], dtype))

        with pytest.raises(BadTargetError, match=rf"target: row 2 has target {value}; expected 0 to 4"):
            _read(path)

    def test_text_targets_are_matched_to_the_class_names(self, tmp_path: Path) -> None:
        path = _group(tmp_path / "g", logits=dumps.logits(3))
        texts = np.array(["dog", "", "gnu"], np.dtypes.StringDType())
        dumps.zarr_array(path / "target", texts)

        assert _read(path, class_names=dumps.CLASS_NAMES)[0].targets.tolist() == [1, -1, 4]

    def test_a_text_target_of_no_class_is_named_with_the_nearest(self, tmp_path: Path) -> None:
        path = _group(tmp_path / "g", logits=dumps.logits(3))
        dumps.zarr_array(path / "target", np.array(["dog", "dgo", "gnu"], np.dtypes.StringDType()))

        with pytest.raises(BadTargetError, match=r"row 1 has target 'dgo'.*Did you mean 'dog'\?"):
            _read(path, class_names=dumps.CLASS_NAMES)

    def test_text_targets_need_class_names(self, tmp_path: Path) -> None:
        path = _group(tmp_path / "g", logits=dumps.logits(3))
        dumps.zarr_array(path / "target", np.array(["a", "b", "c"], np.dtypes.StringDType()))

        with pytest.raises(SchemaMismatchError, match="targets are text and the source names no classes"):
            _open(path)

    def test_class_names_of_another_number_are_refused(self, tmp_path: Path) -> None:
        path = _group(tmp_path / "g", logits=dumps.logits(3))

        with pytest.raises(SchemaMismatchError, match="2 class names for 5 classes"):
            _open(path, class_names=("a", "b"))

    def test_class_names_may_stand_at_the_array(self, tmp_path: Path) -> None:
        path = dumps.zarr_array(tmp_path / "a", dumps.logits(), attributes={"class_names": list(dumps.CLASS_NAMES)})

        assert _open(path).facts.class_names == dumps.CLASS_NAMES

    def test_class_names_may_be_an_array_named_class(self, tmp_path: Path) -> None:
        path = _group(tmp_path / "g", logits=dumps.logits())
        dumps.zarr_array(path / "class", np.array(dumps.CLASS_NAMES, np.dtypes.StringDType()))

        assert _open(path).facts.class_names == dumps.CLASS_NAMES


def _edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
