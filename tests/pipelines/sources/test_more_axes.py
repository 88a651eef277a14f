"""Arrays of more than two axes: the places along all but the last are the rows, in C order, as NumPy reshapes them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, TransposeCodec, ZstdCodec

from softmax_dask import ClassAxisError
from softmax_dask_pipelines import evaluate, open_logits, score
from softmax_dask_pipelines.errors import (
    ColumnNotFoundError,
    CorruptChunkError,
    MissingChunkError,
    SchemaMismatchError,
    SourceFormatError,
)
from softmax_dask_pipelines.sources import Source, SourceRequest, open_source
from tests.pipelines import dumps
from tests.pipelines.command import softmax_dask

DOCUMENTS, TOKENS, CLASSES = 11, 7, 5
ROWS = DOCUMENTS * TOKENS
DATA: NDArray[Any] = np.random.default_rng(5).normal(scale=9, size=(DOCUMENTS, TOKENS, CLASSES)).astype("f4")
TARGETS = np.random.default_rng(6).integers(0, CLASSES, (DOCUMENTS, TOKENS))
RANGES = [(0, ROWS), (0, 0), (0, 1), (ROWS - 1, ROWS), (6, 8), (7, 14), (5, 43), (20, 22), (35, 60)]

_V2: dict[str, Any] = {"zarr_format": 2, "chunks": (3, 7, 5)}
LAYOUTS: dict[str, dict[str, Any]] = {
    "plain": {"chunks": (3, 7, 5), "compressors": None},
    "zstd": {"chunks": (3, 7, 5), "compressors": [ZstdCodec()]},
    "blosc and a checksum": {"chunks": (2, 7, 5), "compressors": [BloscCodec(), Crc32cCodec()]},
    "a document a chunk": {"chunks": (1, 7, 5)},
    "one chunk": {"chunks": (11, 7, 5)},
    "more than one chunk can hold": {"chunks": (20, 7, 5)},
    "classes cut": {"chunks": (3, 7, 2)},
    "shards": {"chunks": (1, 7, 5), "shards": (4, 7, 5)},
    "shards, classes cut": {"chunks": (1, 7, 2), "shards": (4, 7, 6)},
    "big-endian": {"chunks": (3, 7, 5), "serializer": BytesCodec(endian="big")},
    "transposed": {"chunks": (3, 7, 5), "filters": [TransposeCodec(order=(2, 0, 1))]},
    "tokens cut": {"chunks": (3, 4, 5)},
    "tokens and classes cut": {"chunks": (2, 3, 2)},
    "tokens padded": {"chunks": (3, 8, 5)},
    "tokens cut, a document a chunk": {"chunks": (1, 2, 5)},
    "shards, tokens cut inside": {"chunks": (1, 2, 5), "shards": (2, 8, 5)},
    "shards, tokens cut": {"chunks": (1, 2, 5), "shards": (4, 4, 5)},
    "v2": _V2,
    "v2, Fortran order": {**_V2, "order": "F"},
    "v2, keys with slashes": {**_V2, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
}


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_range_reads_as_the_same_rows_of_what_numpy_reshapes(tmp_path, layout, packed):
    path = _written(tmp_path, "logits", DATA, **LAYOUTS[layout])
    source = open_source(SourceRequest(str(dumps.zipped(path) if packed else path)))

    facts = source.facts
    assert (facts.rows, facts.classes, facts.row_shape) == (ROWS, CLASSES, (-1, TOKENS))
    for start, stop in RANGES:
        assert _rows(source, start, stop).tobytes() == DATA.reshape(-1, CLASSES)[start:stop].tobytes(), (start, stop)


def test_usual_layouts_are_read_by_the_direct_lane(tmp_path, monkeypatch):
    def not_direct(*_: object) -> None:
        raise AssertionError("zarr-python was asked")

    path = _written(tmp_path, "logits", DATA, **LAYOUTS["zstd"])
    monkeypatch.setattr("softmax_dask_pipelines.sources.zarr.ZarrSource._decoded_by_zarr", not_direct)

    assert np.array_equal(_rows(open_source(SourceRequest(str(path)))), DATA.reshape(-1, CLASSES))


@pytest.mark.parametrize("chunks", [(1, 4, 7, 5), (1, 3, 2, 4)])
def test_there_may_be_any_number_of_axes(tmp_path, chunks):
    data = DATA[:8].reshape(2, 4, 7, 5)
    path = _written(tmp_path, "logits", data, chunks=chunks)

    source = open_source(SourceRequest(str(path)))

    assert source.facts.row_shape == (-1, 4, 7)
    assert np.array_equal(_rows(source), data.reshape(-1, 5))


def test_a_length_of_nothing_between_is_refused(tmp_path):
    path = dumps.npy(tmp_path / "dump.npy", DATA[:, :0])

    with pytest.raises(SourceFormatError, match=r"has shape \(11, 0, 5\); expected lengths of 1 or more along"):
        open_source(SourceRequest(str(path)))


@pytest.mark.parametrize("axis", [-4, 3, 7])
def test_an_axis_that_is_not_there_is_refused(tmp_path, axis):
    path = _written(tmp_path, "logits", DATA, chunks=(3, 7, 5))

    with pytest.raises(ClassAxisError, match=f"class_axis is {axis}; expected 0 to 2"):
        open_source(SourceRequest(str(path), class_axis=axis))


# ---- classes along another axis

IMAGES: NDArray[Any] = np.random.default_rng(8).normal(scale=9, size=(4, CLASSES, 3, 6)).astype("f4")
PIXELS = np.moveaxis(IMAGES, 1, -1).reshape(-1, CLASSES)


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize(
    "layout",
    [
        {"chunks": (3, 5, 3, 6), "compressors": None},
        {"chunks": (1, 5, 3, 6)},
        {"chunks": (2, 2, 3, 6)},
        {"chunks": (2, 5, 2, 6)},
        {"chunks": (1, 2, 2, 4), "shards": (2, 4, 4, 8)},
        {"chunks": (1, 5, 3, 6), "shards": (2, 5, 3, 6)},
        {"chunks": (3, 5, 3, 6), "serializer": BytesCodec(endian="big")},
    ],
)
@pytest.mark.parametrize("axis", [1, -3])
def test_pixels_of_images_are_rows_where_classes_come_before_them(tmp_path, axis, layout, packed):
    path = _written(tmp_path, "logits", IMAGES, **layout)
    source = open_source(SourceRequest(str(dumps.zipped(path) if packed else path), class_axis=axis))

    facts = source.facts
    assert (facts.rows, facts.classes, facts.row_shape) == (72, CLASSES, (-1, 3, 6))
    assert facts.layout.endswith(", classes along axis 1")
    for start, stop in [(0, 72), (0, 1), (17, 19), (5, 40), (54, 72), (71, 72)]:
        assert _rows(source, start, stop).tobytes() == PIXELS[start:stop].tobytes(), (start, stop)


def test_a_config_may_name_any_axis(tmp_path):
    path = _written(tmp_path, "logits", np.moveaxis(IMAGES, 1, 2), chunks=(2, 3, 5, 6))

    told = softmax_dask("inspect", path, "--class-axis", "2")

    assert (told.code, "72 rows (4 x 3 x 6) x 5 classes" in told.out) == (0, True), told


@pytest.mark.parametrize("chunks", [(5, 3, 7), (2, 3, 7), (5, 3, 2)])
def test_classes_may_be_the_first_of_three_axes(tmp_path, chunks):
    path = _written(tmp_path, "logits", np.moveaxis(DATA, -1, 0), chunks=chunks)

    source = open_source(SourceRequest(str(path), class_axis=0))

    assert source.facts.row_shape == (-1, TOKENS)
    assert np.array_equal(_rows(source), DATA.reshape(-1, CLASSES))


def test_targets_tell_who_has_forgotten_the_axis_of_the_classes(tmp_path):
    path = _written(tmp_path, "logits", IMAGES, chunks=(2, 5, 3, 6))
    _written(tmp_path, "target", np.zeros((4, 3, 6), np.int64), chunks=(4, 3, 6))

    with pytest.raises(SchemaMismatchError, match=r"expected \(4, 5, 3\), .* Give class_axis, if the classes"):
        open_source(SourceRequest(str(path)))


def test_targets_of_pixels_have_the_axes_of_the_rows(tmp_path):
    path = _written(tmp_path, "logits", IMAGES, chunks=(2, 5, 3, 6))
    truth = np.random.default_rng(9).integers(0, CLASSES, (4, 3, 6))
    _written(tmp_path, "target", truth, chunks=(3, 2, 6))

    found = evaluate(path, class_axis=1)

    expected = float((PIXELS.argmax(1) == truth.reshape(-1)).mean())
    assert found.metrics.accuracy == pytest.approx(expected)


# ---- ids and targets


@pytest.mark.parametrize("chunks", [(11, 7), (4, 7), (3, 2), (5, 9)])
def test_targets_have_a_value_a_place(tmp_path, chunks):
    path = _written(tmp_path, "logits", DATA, chunks=(3, 7, 5))
    _written(tmp_path, "targets", TARGETS, chunks=chunks)

    source = open_source(SourceRequest(str(path)))

    assert source.facts.target_name == "targets"
    for start, stop in RANGES:
        found = [block.targets for block in source.read(start, stop)]
        assert np.concatenate([[], *found]).tolist() == TARGETS.reshape(-1)[start:stop].tolist()


def test_ids_may_be_flat_and_those_of_the_first_axis_hold_for_all_its_rows(tmp_path):
    path = _written(tmp_path, "logits", DATA, chunks=(3, 7, 5))
    names = np.array([f"document {number}" for number in range(DOCUMENTS)], np.dtypes.StringDType())
    _written(tmp_path, "id", names, chunks=(4,))
    _written(tmp_path, "target", TARGETS.reshape(-1), chunks=(10,))

    source = open_source(SourceRequest(str(path)))

    for start, stop in RANGES:
        blocks = list(source.read(start, stop))
        ids = [text for block in blocks for text in block.carried["id"].to_pylist()]
        assert ids == names.repeat(TOKENS)[start:stop].tolist()
        assert (
            np.concatenate([[], *(block.targets for block in blocks)]).tolist()
            == TARGETS.reshape(-1)[start:stop].tolist()
        )


@pytest.mark.parametrize("shape", [(7,), (7, 11), (11, 7, 1), (76,)])
def test_ids_of_another_shape_are_refused(tmp_path, shape):
    path = _written(tmp_path, "logits", DATA, chunks=(3, 7, 5))
    _written(tmp_path, "id", np.zeros(shape, np.int64), chunks=shape)

    with pytest.raises(SchemaMismatchError, match=r"expected \(11, 7\), one value a row"):
        open_source(SourceRequest(str(path)))


def test_targets_of_two_axes_are_not_taken_for_the_logits(tmp_path):
    path = _written(tmp_path, "scores", DATA, chunks=(3, 7, 5))
    _written(tmp_path, "targets", TARGETS, chunks=(11, 7))

    assert open_source(SourceRequest(str(path))).facts.name == "scores"


def test_an_array_of_two_axes_comes_before_others(tmp_path):
    path = _written(tmp_path, "hidden", DATA, chunks=(3, 7, 5))
    _written(tmp_path, "scores", DATA[0], chunks=(3, 5))

    assert open_source(SourceRequest(str(path))).facts.name == "scores"


def test_two_arrays_of_more_axes_are_one_too_many(tmp_path):
    path = _written(tmp_path, "some", DATA, chunks=(3, 7, 5))
    _written(tmp_path, "others", DATA, chunks=(3, 7, 5))

    with pytest.raises(ColumnNotFoundError, match="may all be logits; expected one array of 2 axes or more"):
        open_source(SourceRequest(str(path)))


# ---- damage


def test_a_missing_chunk_is_named(tmp_path):
    path = _written(tmp_path, "logits", DATA, chunks=(3, 7, 5))
    (path / "logits" / "c" / "1" / "0" / "0").unlink()

    with pytest.raises(MissingChunkError, match="chunk logits/c/1/0/0 of the logits is not there"):
        _rows(open_source(SourceRequest(str(path))))


def test_a_shard_without_one_of_its_chunks_is_named(tmp_path):
    data = DATA.copy()
    data[5] = 0
    config = {"write_empty_chunks": False}
    path = _written(tmp_path, "logits", data, chunks=(1, 7, 5), shards=(4, 7, 5), config=config)

    with pytest.raises(MissingChunkError, match=r"inner chunk \(1, 0, 0\) of chunk logits/c/1/0/0"):
        _rows(open_source(SourceRequest(str(path))), 30, 40)


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_of_tokens_that_are_cut_the_very_file_is_named(tmp_path, spoil):
    path = _written(tmp_path, "logits", DATA, chunks=(3, 2, 5))
    spoil(path / "logits" / "c" / "1" / "3" / "0")

    with pytest.raises((MissingChunkError, CorruptChunkError), match="chunk logits/c/1/3/0 "):
        _rows(open_source(SourceRequest(str(path))))


def test_a_chunk_of_cut_tokens_that_does_not_decode_is_named(tmp_path):
    path = _written(tmp_path, "logits", DATA, chunks=(3, 2, 5), compressors=[ZstdCodec()])
    (path / "logits" / "c" / "1" / "3" / "0").write_bytes(b"no zstd")

    with pytest.raises(CorruptChunkError, match="chunk logits/c/1/3/0 does not decode"):
        _rows(open_source(SourceRequest(str(path))))


@pytest.mark.parametrize("name", ["logits", "targets"])
def test_a_chunk_that_is_cut_short_is_named(tmp_path, name):
    path = _written(tmp_path, "logits", DATA, chunks=(3, 7, 5))
    _written(tmp_path, "targets", TARGETS, chunks=(3, 7))
    (path / name / "c" / "2" / ("0/0" if name == "logits" else "0")).write_bytes(b"")

    with pytest.raises(CorruptChunkError, match=f"{name}/c/2/0"):
        _rows(open_source(SourceRequest(str(path))))


# ---- npy


def test_npy_of_more_axes_reads_as_what_numpy_reshapes(tmp_path):
    source = open_source(SourceRequest(str(dumps.npy(tmp_path / "dump.npy", DATA))))

    assert (source.facts.rows, source.facts.row_shape) == (ROWS, (-1, TOKENS))
    for start, stop in RANGES:
        assert _rows(source, start, stop).tobytes() == DATA.reshape(-1, CLASSES)[start:stop].tobytes()


@pytest.mark.parametrize(
    ("values", "axis", "order"),
    [(np.asfortranarray(DATA), None, "Fortran order"), (DATA, 1, "C order with classes along axis 1")],
)
def test_npy_of_more_axes_whose_rows_are_apart_is_refused_with_the_remedy(tmp_path, values, axis, order):
    path = dumps.npy(tmp_path / "dump.npy", values)

    with pytest.raises(SourceFormatError, match=f"in {order}; expected C order and classes last"):
        open_source(SourceRequest(str(path), class_axis=axis))


# ---- runs


@pytest.fixture(params=[(2, 7, 5), (2, 3, 5)], ids=["whole tokens", "tokens cut"])
def dump(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Documents of tokens, with targets and names of documents."""
    _written(tmp_path, "targets", TARGETS, chunks=(11, 7))
    _written(tmp_path, "id", np.arange(100, 100 + DOCUMENTS), chunks=(11,))
    return _written(tmp_path, "logits", DATA, chunks=request.param)


def test_a_run_has_a_row_a_place_and_says_how_to_put_them_back(dump, tmp_path):
    score(dump, tmp_path / "out.zarr", columns=["label", "probabilities", "correct"])

    out = zarr.open_group(tmp_path / "out.zarr", mode="r")
    shape = out.attrs["softmax_dask"]["row_shape"]
    assert shape == [-1, TOKENS]
    assert np.array_equal(np.reshape(out["label"][:], shape), DATA.argmax(2))
    assert np.array_equal(np.reshape(out["correct"][:], shape), DATA.argmax(2) == TARGETS)
    assert np.reshape(out["probabilities"][:], (*shape, CLASSES)).shape == DATA.shape
    assert np.reshape(out["id"][:], shape)[:, 3].tolist() == list(range(100, 100 + DOCUMENTS))


def test_an_output_in_parquet_has_the_rows_in_order(dump, tmp_path):
    score(dump, tmp_path / "out.parquet", columns=["label"])

    table = pq.read_table(tmp_path / "out.parquet").sort_by("row")
    assert table["label"].to_numpy().tolist() == DATA.argmax(2).reshape(-1).tolist()
    assert table["id"].to_numpy()[: 2 * TOKENS].tolist() == [100] * TOKENS + [101] * TOKENS


def test_documents_that_are_new_are_added(dump, tmp_path):
    output = tmp_path / "out.zarr"
    score(dump, output, columns=["label"])
    more = np.concatenate([DATA, -DATA[:4]])
    for name, values in (
        ("logits", more),
        ("targets", np.concatenate([TARGETS, TARGETS[:4]])),
        ("id", np.arange(100, 115)),
    ):
        array = zarr.open_array(dump / name, mode="r+")
        array.resize(values.shape)
        array[DOCUMENTS:] = values[DOCUMENTS:]

    added = softmax_dask("score", dump, output, "--columns", "label")

    assert (added.code, "rows         28 of 5 classes" in added.out) == (0, True), added
    found = zarr.open_group(output, mode="r")
    assert np.array_equal(found["label"][:], more.argmax(2).reshape(-1))
    assert softmax_dask("verify", output, "--against-input").code == 0


def test_figures_are_those_of_all_places(dump, tmp_path):
    found = evaluate(dump)

    assert found.metrics.accuracy == pytest.approx(float((DATA.argmax(2) == TARGETS).mean()))


def test_inspect_says_what_the_rows_are(dump):
    told = softmax_dask("inspect", dump)

    assert "77 rows (11 x 7) x 5 classes, float32" in told.out


def test_the_dask_array_has_a_row_a_place(dump):
    assert np.array_equal(open_logits(dump).compute(), DATA.reshape(-1, CLASSES))


def _written(folder: Path, name: str, values: NDArray[Any], **layout: Any) -> Path:
    """The group, once it has this array too."""
    path = folder / "dump.zarr"
    version = layout.get("zarr_format", 3)
    if not path.exists():
        zarr.create_group(path, zarr_format=version)
    array = zarr.create_array(path, name=name, shape=values.shape, dtype=values.dtype, **layout)
    array[...] = values
    return path


def _rows(source: Source, start: int = 0, stop: int | None = None) -> NDArray[Any]:
    empty = np.empty((0, source.facts.classes), source.facts.dtype)
    blocks = source.read(start, source.facts.rows if stop is None else stop)
    return np.concatenate([empty, *(block.logits for block in blocks)])
