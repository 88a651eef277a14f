"""Any layout of the same rows reads as the same bits, which are those that zarr-python itself gives."""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, GzipCodec, TransposeCodec, ZstdCodec

from softmax_dask_pipelines.sources import SourceRequest, open_source
from tests.pipelines import dumps

_DATA = dumps.logits(37, 6)
_V3: Any = [None, [ZstdCodec()], [GzipCodec()], [BloscCodec(cname="lz4")]]
_V2: Any = [None, numcodecs.Zlib(), numcodecs.LZ4(), numcodecs.Blosc(), numcodecs.BZ2()]


@st.composite
def layouts(draw: st.DrawFn, axes: int = 2, longest: int = 40) -> dict[str, Any]:
    chunks = draw(st.tuples(*[st.integers(1, longest)] * axes))
    separator = draw(st.sampled_from([".", "/"]))
    if draw(st.booleans()):
        key = {"name": "v2", "separator": separator}
        order, codec = draw(st.sampled_from("CF")), draw(st.sampled_from(_V2))
        return {"zarr_format": 2, "chunks": chunks, "order": order, "compressors": codec, "chunk_key_encoding": key}
    shards = draw(st.none() | st.tuples(*[st.integers(1, 3)] * axes))
    orders = [(), [TransposeCodec(order=tuple(reversed(range(axes))))]]
    return {
        "chunks": chunks,
        "shards": shards and tuple(chunk * count for chunk, count in zip(chunks, shards, strict=True)),
        "filters": draw(st.sampled_from(orders)),
        "compressors": draw(st.sampled_from(_V3)),
        "chunk_key_encoding": {"name": "default", "separator": separator},
    }


@settings(max_examples=40)
@given(layout=layouts(), class_axis=st.sampled_from([0, 1]), dtype=st.sampled_from(["<f4", ">f4"]))
def test_every_layout_of_the_same_rows_reads_as_the_same_bits(layout: Any, class_axis: int, dtype: str) -> None:
    stored = np.ascontiguousarray(_DATA.T if class_axis == 0 else _DATA).astype(dtype)

    with tempfile.TemporaryDirectory() as folder:
        path = dumps.zarr_array(Path(folder) / "a", stored, **layout)
        source = open_source(SourceRequest(str(path), class_axis=class_axis))
        blocks = [block.logits for block in source.read(0, 37)]
        peer = np.asarray(zarr.open_array(path, mode="r")[:])

    assert np.concatenate(blocks).tobytes() == _DATA.tobytes()
    assert np.array_equal(peer.T if class_axis == 0 else peer, _DATA)


@settings(max_examples=60)
@given(data=st.data(), shape=st.lists(st.integers(1, 6), min_size=3, max_size=5))
def test_every_layout_of_more_axes_reads_as_numpy_moves_and_reshapes_it(data: st.DataObject, shape: list[int]) -> None:
    layout = data.draw(layouts(len(shape), longest=7))
    logits = np.random.default_rng(3).normal(size=shape).astype("f4")
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    rows = np.moveaxis(logits, axis, -1).reshape(-1, shape[axis])
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))

    with tempfile.TemporaryDirectory() as folder:
        path = dumps.zarr_array(Path(folder) / "a", logits, **layout)
        source = open_source(SourceRequest(str(path), class_axis=axis))
        blocks = [block.logits for block in source.read(start, stop)]

    assert np.concatenate([rows[:0], *blocks]).tobytes() == rows[start:stop].tobytes()


def _named(name: str, **configuration: Any) -> dict[str, Any]:
    return {"name": f"numcodecs.{name}", "configuration": configuration}


CODECS: dict[str, dict[str, Any]] = {
    "v2 fixedscaleoffset": {"zarr_format": 2, "filters": [numcodecs.FixedScaleOffset(0, 10, "<f4", "<i4")]},
    "v2 quantize": {"zarr_format": 2, "filters": [numcodecs.Quantize(2, "<f4")]},
    "v2 bitround": {"zarr_format": 2, "filters": [numcodecs.BitRound(8)]},
    "v2 crc32": {"zarr_format": 2, "filters": [numcodecs.CRC32()]},
    "v2 adler32": {"zarr_format": 2, "filters": [numcodecs.Adler32()]},
    "v2 fletcher32": {"zarr_format": 2, "filters": [numcodecs.Fletcher32()]},
    "v2 zstd": {"zarr_format": 2, "compressors": numcodecs.Zstd(checksum=True)},
    "v2 gzip": {"zarr_format": 2, "compressors": numcodecs.GZip()},
    "v2 lzma": {"zarr_format": 2, "compressors": numcodecs.LZMA()},
    "v3 fixedscaleoffset": {"filters": [_named("fixedscaleoffset", offset=0, scale=10, dtype="<f4", astype="<i4")]},
    "v3 bitround": {"filters": [_named("bitround", keepbits=8)]},
    "v3 astype": {"filters": [_named("astype", encode_dtype="<f8", decode_dtype="<f4")]},
    "v3 crc32c of numcodecs": {"compressors": [_named("crc32c")]},
    "v3 fletcher32": {"compressors": [_named("fletcher32")]},
    "v3 zlib, then adler32": {"compressors": [_named("zlib", level=1), _named("adler32")]},
    "v3 bz2": {"compressors": [_named("bz2", level=1)]},
    "v3 lzma": {"compressors": [_named("lzma", preset=1)]},
    "v3 zstd of numcodecs": {"compressors": [_named("zstd", level=1)]},
    "v3 blosc of numcodecs": {"compressors": [_named("blosc", cname="zstd", clevel=1, shuffle=1)]},
    "v3 zstd of gzip": {"compressors": [GzipCodec(), ZstdCodec()]},
}


@pytest.mark.parametrize("name", CODECS)
def test_every_codec_decodes_as_zarr_itself_decodes_it(tmp_path: Path, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = dumps.zarr_array(tmp_path / "a", _DATA, chunks=(10, 6), **CODECS[name])
        peer = np.asarray(zarr.open_array(path, mode="r")[:])

    blocks = [block.logits for block in open_source(SourceRequest(str(path))).read(0, 37)]

    assert np.concatenate(blocks).tobytes() == peer.tobytes()
