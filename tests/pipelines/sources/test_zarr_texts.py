"""The direct lane of text: the same texts as zarr-python's lane, and where something is wrong none."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from numcodecs import VLenUTF8
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

from softmax_dask_pipelines.errors import CorruptChunkError
from softmax_dask_pipelines.sources import SourceRequest, open_source
from softmax_dask_pipelines.sources.zarr_bounds import BoundError
from softmax_dask_pipelines.sources.zarr_texts import texts_of

ROWS, CHUNK = 103, 10
IDS = [f"{'é' * (i % 3)}id-{i}" if i % 7 else "" for i in range(ROWS)]

PLAIN: dict[str, Any] = {
    "none": None,
    "zstd": [ZstdCodec()],
    "zstd, checksum": [ZstdCodec(), Crc32cCodec()],
    "checksum": [Crc32cCodec()],
    "blosc": [BloscCodec(cname="lz4", typesize=1)],
    "gzip": [GzipCodec()],
}

texts = st.lists(st.text(max_size=20), max_size=30)


def stored(items: list[str]) -> bytes:
    return bytes(VLenUTF8().encode(np.array(items, dtype=object)))


@given(items=texts)
def test_texts_are_those_that_were_encoded(items):
    assert texts_of(stored(items), len(items)).to_pylist() == items


@given(items=texts, place=st.integers(0, 2000), byte=st.integers(0, 255))
def test_a_byte_that_is_another_gives_texts_or_an_error(items, place, byte):
    damaged = bytearray(stored(items))
    damaged[place % len(damaged)] = byte

    try:
        found = texts_of(bytes(damaged), len(items))
    except (BoundError, pa.ArrowInvalid):
        return
    assert len(found) == len(items)


@pytest.mark.parametrize("count", [0, 1, 3, 2**31])
def test_another_number_of_texts_is_refused(count):
    with pytest.raises(BoundError, match="another number of texts"):
        texts_of(stored(["a", "b"]), count)


@pytest.mark.parametrize("spoil", [lambda body: body[:-1], lambda body: body + b"x"], ids=["cut short", "longer"])
def test_another_length_is_refused(spoil):
    with pytest.raises(BoundError, match="lengths that do not fit"):
        texts_of(spoil(stored(["abc", "de"])), 2)


def test_what_is_not_utf_8_is_refused():
    with pytest.raises(pa.ArrowInvalid, match="UTF"):
        texts_of(stored(["ab"]).replace(b"ab", b"\xff\xfe"), 1)


@pytest.mark.parametrize("codec", PLAIN)
def test_plain_arrays_never_ask_zarr(tmp_path, monkeypatch, codec):
    source = opened(tmp_path, PLAIN[codec])
    monkeypatch.setattr(type(source._ids), "_stored", no_zarr)

    assert ids_of(source, 0, ROWS) == IDS
    assert ids_of(source, 7, 34) == IDS[7:34]


@pytest.mark.parametrize("layout", [{"shards": (50,)}, {"zarr_format": 2}], ids=["shards", "v2"])
def test_other_arrays_are_left_to_zarr(tmp_path, layout):
    source = opened(tmp_path, "auto", **layout)

    assert source._ids.texts is None
    assert ids_of(source, 0, ROWS) == IDS


def test_a_chunk_that_is_not_there_is_fill(tmp_path):
    source = opened(tmp_path, "auto")
    chunk_file(tmp_path, 2).unlink()

    assert ids_of(source, 0, ROWS) == [*IDS[:20], *[""] * 10, *IDS[30:]]


@pytest.mark.parametrize("codec", ["zstd", "zstd, checksum", "none"])
def test_a_damaged_chunk_is_named(tmp_path, codec):
    source = opened(tmp_path, PLAIN[codec])
    path = chunk_file(tmp_path, 2)
    path.write_bytes(path.read_bytes()[:-3])

    with pytest.raises(CorruptChunkError, match="values 20 to 29 do not decode"):
        ids_of(source, 20, 30)


def test_a_digest_of_rows_is_that_of_zarr_alone(tmp_path, monkeypatch):
    source = opened(tmp_path, "auto")
    direct = source.content("id", range(7, 34))

    monkeypatch.setattr(type(source._ids.texts), "decode", lambda *_: None)

    assert source.content("id", range(7, 34)) == direct != ""


def opened(folder: Path, compressors: Any, **layout: Any) -> Any:
    group = zarr.create_group(folder / "a.zarr", zarr_format=layout.get("zarr_format", 3))
    group["logits"] = np.ones((ROWS, 5), np.float32)
    shards = {"shards": layout["shards"]} if "shards" in layout else {}
    ids = group.create_array("id", shape=(ROWS,), chunks=(CHUNK,), dtype=str, compressors=compressors, **shards)
    ids[:] = np.array(IDS, dtype=object)
    return open_source(SourceRequest(str(folder / "a.zarr"), id="id"))


def chunk_file(folder: Path, number: int) -> Path:
    return folder / "a.zarr" / "id" / "c" / str(number)


def ids_of(source: Any, start: int, stop: int) -> list[str]:
    return [text for block in source.read(start, stop) for text in block.carried["id"].to_pylist()]


def no_zarr(*_: Any) -> Any:
    raise AssertionError("zarr-python was asked")
