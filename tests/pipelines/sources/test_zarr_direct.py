"""The direct lane: plain arrays never ask zarr-python; and with it or without, the same bits and the same errors."""

import os
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

from softmax_dask_pipelines.errors import CorruptChunkError, MissingChunkError
from softmax_dask_pipelines.sources import SourceRequest, blocks, open_source
from tests.pipelines import dumps

_V2: dict[str, Any] = {"zarr_format": 2, "chunks": (10, 5)}
_V3: dict[str, Any] = {"chunks": (10, 5)}


def _numcodec(name: str, **configuration: Any) -> dict[str, Any]:
    return {"name": f"numcodecs.{name}", "configuration": configuration}


PLAIN: dict[str, dict[str, Any]] = {
    "v2 uncompressed": {**_V2, "compressors": None},
    "v2 blosc": {**_V2, "compressors": numcodecs.Blosc("lz4", shuffle=numcodecs.Blosc.BITSHUFFLE)},
    "v2 zstd": {**_V2, "compressors": numcodecs.Zstd(checksum=True)},
    "v2 lz4": {**_V2, "compressors": numcodecs.LZ4()},
    "v2 gzip": {**_V2, "compressors": numcodecs.GZip()},
    "v2 zlib": {**_V2, "compressors": numcodecs.Zlib()},
    "v3 uncompressed": {**_V3, "compressors": None},
    "v3 uncompressed, checksum": {**_V3, "compressors": [Crc32cCodec()]},
    "v3 blosc": {**_V3, "compressors": [BloscCodec(cname="lz4")]},
    "v3 blosc zstd, checksum": {**_V3, "compressors": [BloscCodec(cname="zstd"), Crc32cCodec()]},
    "v3 zstd": {**_V3, "compressors": [ZstdCodec()]},
    "v3 zstd, checksum": {**_V3, "compressors": [ZstdCodec(checksum=True), Crc32cCodec()]},
    "v3 gzip": {**_V3, "compressors": [GzipCodec()]},
    "v3 lz4": {**_V3, "compressors": [_numcodec("lz4", acceleration=1)]},
    "v3 one row a chunk": {"chunks": (1, 5)},
    "v3 a chunk larger than the array": {"chunks": (1000, 100)},
    "v3 classes chunked": {"chunks": (10, 2)},
    "v3 shards": {"chunks": (5, 5), "shards": (30, 5)},
    "v3 shards, uncompressed": {"chunks": (5, 5), "shards": (30, 5), "compressors": None},
    "v3 shards, checksums": {"chunks": (5, 5), "shards": (30, 5), "compressors": [ZstdCodec(), Crc32cCodec()]},
    "v3 shards, classes chunked": {"chunks": (5, 2), "shards": (10, 4)},
}
OTHERS: dict[str, dict[str, Any]] = {
    "v2 Fortran order": {**_V2, "order": "F"},
    "v2 filter": {**_V2, "filters": [numcodecs.Shuffle(4)]},
    "v3 big-endian": {**_V3, "serializer": BytesCodec(endian="big")},
    "v3 transpose": {**_V3, "filters": [TransposeCodec(order=(1, 0))]},
    "v3 two compressors": {**_V3, "compressors": [GzipCodec(), ZstdCodec()]},
    "v3 checksum inside": {**_V3, "compressors": [Crc32cCodec(), ZstdCodec()]},
}


@pytest.fixture(autouse=True)
def _short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "READ_BYTES", 400)


def _written(folder: Path, data: NDArray[Any], layout: dict[str, Any]) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of codecs that zarr's specification does not have yet
        return dumps.zarr_array(folder / "a", data, **layout)


def _opened(path: Path, **asked: Any) -> Any:
    return open_source(SourceRequest(str(path), **asked))


def _bits(source: Any, start: int = 0, stop: int = 103) -> bytes:
    return b"".join(block.logits.tobytes() for block in source.read(start, stop))


def _without_zarr(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(self: Any, rows: range) -> Any:
        raise AssertionError(f"zarr-python was asked for rows {rows}")

    monkeypatch.setattr(type(source), "_decoded_by_zarr", ask)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "float64"])
@pytest.mark.parametrize("name", PLAIN)
def test_plain_arrays_never_ask_zarr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, dtype: str) -> None:
    data = dumps.logits(dtype=dtype)
    source = _opened(_written(tmp_path, data, PLAIN[name]))
    _without_zarr(source, monkeypatch)

    assert _bits(source) == data.tobytes()
    assert _bits(source, 7, 53) == data[7:53].tobytes()


@pytest.mark.parametrize("layout", [{"chunks": (2, 10), "shards": (4, 20)}, {"chunks": (5, 10)}, {"chunks": (5, 5)}])
def test_classes_first_never_ask_zarr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: dict[str, Any]) -> None:
    data = dumps.logits()
    source = _opened(_written(tmp_path, data.T.copy(), layout), class_axis=0)
    _without_zarr(source, monkeypatch)

    assert _bits(source, 7, 53) == data[7:53].tobytes()


def test_one_logit_a_row_never_asks_zarr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dumps.logits()[:, 0].copy()
    source = _opened(_written(tmp_path, data, {"chunks": (10,)}), link="sigmoid")
    _without_zarr(source._source, monkeypatch)

    found = np.concatenate([block.logits for block in source.read(7, 53)])

    assert np.array_equal(found[:, 1], data[7:53])


@pytest.mark.parametrize("name", OTHERS)
def test_all_other_arrays_are_left_to_zarr(tmp_path: Path, name: str) -> None:
    data = dumps.logits()
    source = _opened(_written(tmp_path, data, OTHERS[name]))

    assert source._lane is None
    assert _bits(source) == data.tobytes()


def _cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 3)


def _grow(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"more")


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)


def _noise(file: Path) -> None:
    file.write_bytes(np.random.default_rng(1).bytes(150))


def _remove(file: Path) -> None:
    file.unlink()


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


FAULTS: tuple[Callable[[Path], None], ...] = (_cut, _grow, _empty, _flip, _noise, _remove, _folder, _pipe)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__.strip("_"))
@pytest.mark.parametrize("name", PLAIN)
def test_a_damaged_chunk_reads_as_zarr_alone_reads_it(tmp_path: Path, name: str, fault: Callable[[Path], None]) -> None:
    path = _written(tmp_path, dumps.logits(), PLAIN[name])
    chunks = (file for file in path.rglob("*") if file.is_file() and file.name[0].isdecimal())
    fault(min(chunks))

    assert _outcome(path, with_lane=True) == _outcome(path, with_lane=False)


def _outcome(path: Path, *, with_lane: bool) -> tuple[str, bytes]:
    source = _opened(path)
    assert source._lane is not None
    if not with_lane:
        source._lane = None
    try:
        return "", _bits(source)
    except (CorruptChunkError, MissingChunkError) as error:
        return f"{type(error).__name__}: {error}", b""


@pytest.mark.parametrize("size", [100, 199, 201, 8 << 20])
@pytest.mark.parametrize("name", ["v2 blosc", "v2 zstd", "v2 lz4", "v2 gzip", "v3 blosc", "v3 zstd", "v3 gzip"])
def test_a_chunk_that_yields_another_number_of_bytes_is_refused(tmp_path: Path, name: str, size: int) -> None:
    path = _written(tmp_path, dumps.logits(), PLAIN[name])
    codec = {"blosc": numcodecs.Blosc(), "zstd": numcodecs.Zstd(), "lz4": numcodecs.LZ4(), "gzip": numcodecs.GZip()}
    file = next(file for file in path.rglob("*") if file.name == "3.0" or file.parent.name == "3")
    file.write_bytes(bytes(codec[name.split()[1]].encode(bytes(size))))

    with pytest.raises(CorruptChunkError, match=r"chunk .*3.0 (does not decode|has \d+ bytes, more)"):
        _bits(_opened(path))


def test_zstd_frames_that_fill_a_chunk_together_are_read(tmp_path: Path) -> None:
    data = dumps.logits()
    path = _written(tmp_path, data, PLAIN["v3 zstd"])
    parts = [data[:10].tobytes()[:80], data[:10].tobytes()[80:]]
    (path / "c" / "0" / "0").write_bytes(b"".join(bytes(numcodecs.Zstd().encode(part)) for part in parts))

    assert _bits(_opened(path)) == data.tobytes()


def test_a_checksum_is_checked_before_anything_is_decoded(tmp_path: Path) -> None:
    path = _written(tmp_path, dumps.logits(), PLAIN["v3 uncompressed, checksum"])
    _flip(path / "c" / "1" / "0")

    with pytest.raises(CorruptChunkError, match=r"chunk c/1/0 does not decode \(.*checksum"):
        _bits(_opened(path))


@pytest.mark.parametrize("entry", [(0, 1 << 40), (1 << 63, 5), (2**64 - 1, 5), (1 << 20, 100)])
def test_an_index_of_a_shard_that_lies_is_refused_in_little_memory(tmp_path: Path, entry: tuple[int, int]) -> None:
    path = _written(tmp_path, dumps.logits(), PLAIN["v3 shards"])
    shard = path / "c" / "0" / "0"
    data = bytearray(shard.read_bytes())
    index = np.frombuffer(data, "<u8", count=12, offset=len(data) - 100).copy()
    index[:2] = entry
    data[-100:] = index.tobytes() + google_crc32c.value(index.tobytes()).to_bytes(4, "little")
    shard.write_bytes(data)

    with pytest.raises((CorruptChunkError, MissingChunkError), match="c/0/0"):
        _bits(_opened(path))


@pytest.mark.parametrize("layout", [_V3, {"chunks": (5, 5), "shards": (30, 5)}], ids=["chunks", "shards"])
def test_missing_chunks_are_fill_where_they_may_be(tmp_path: Path, layout: dict[str, Any]) -> None:
    data = dumps.logits()
    data[30:60] = np.nan
    config = {"write_empty_chunks": False}
    path = _written(tmp_path, data, {**layout, "fill_value": np.nan, "config": config})

    assert _bits(_opened(path, missing_chunks="fill")) == data.tobytes()
    with pytest.raises(MissingChunkError):
        _bits(_opened(path))


def test_who_looks_what_is_in_a_last_chunk_keeps_no_memory_for_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(0, 6, (1500, 500)).astype(np.float32)  # the second chunk of 1000 rows is not full
    source = _opened(_written(tmp_path, data, {"chunks": (1000, 500), "compressors": [BloscCodec(cname="lz4")]}))

    tracemalloc.start()
    stamps = source.stamps()
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert stamps.arrays[0].tail
    assert most > 1_000_000
    assert held < 200_000
