"""Zarr stores that would run code, or fill the memory: refused early and in little memory."""

import bz2
import gzip
import json
import lzma
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
from zarr.codecs import GzipCodec, ZstdCodec

from softmax_dask_pipelines.errors import (
    CorruptChunkError,
    MetadataLimitError,
    SourceFormatError,
    UnsafeCodecError,
    exit_code,
)
from softmax_dask_pipelines.sources import SourceRequest, open_source
from tests.pipelines import dumps

_READ_IN_LITTLE_MEMORY = """
import resource, sys
from softmax_dask_pipelines.errors import CorruptChunkError
from softmax_dask_pipelines.sources import SourceRequest, open_source
source = open_source(SourceRequest(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    list(source.read(0, source.facts.rows))
except CorruptChunkError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
_ZEROS = bytes(8 << 20)
_CODECS: dict[str, tuple[Any, Any]] = {
    "gzip": (numcodecs.GZip(), gzip.compress),
    "zlib": (numcodecs.Zlib(), zlib.compress),
    "bz2": (numcodecs.BZ2(), bz2.compress),
    "lzma": (numcodecs.LZMA(), lzma.compress),
    "zstd": (numcodecs.Zstd(), numcodecs.Zstd().encode),
    "zstd of two frames": (
        numcodecs.Zstd(),
        lambda data: numcodecs.Zstd().encode(b"0" * 200) + numcodecs.Zstd().encode(data),
    ),
    "blosc": (numcodecs.Blosc(), numcodecs.Blosc().encode),
    "lz4": (numcodecs.LZ4(), numcodecs.LZ4().encode),
}


def _edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("name", _CODECS)
def test_a_chunk_that_yields_more_than_it_may_hold_is_refused(tmp_path: Path, name: str) -> None:
    codec, encode = _CODECS[name]
    path = dumps.zarr_array(tmp_path / "a", dumps.logits(), zarr_format=2, chunks=(10, 5), compressors=codec)
    (path / "3.0").write_bytes(bytes(encode(_ZEROS)))
    source = open_source(SourceRequest(str(path)))

    with pytest.raises(CorruptChunkError, match=r"chunk 3\.0 (does not decode \(yields|has \d+ bytes, more)"):
        list(source.read(0, 103))


@pytest.mark.parametrize("layout", [{"chunks": (10, 5)}, {"chunks": (10_000, 5)}])
@pytest.mark.parametrize("codec", ["zstd", "gzip"])
def test_a_bomb_does_not_fill_the_memory(tmp_path: Path, codec: str, layout: Any) -> None:
    compressor: Any = ZstdCodec() if codec == "zstd" else GzipCodec()
    path = dumps.zarr_array(tmp_path / "a", dumps.logits(), compressors=[compressor], **layout)
    encode = numcodecs.Zstd().encode if codec == "zstd" else gzip.compress
    bomb = encode(bytes(256 << 20))[: 4 << 20]
    (path / "c" / "0" / "0").write_bytes(bomb)

    done = subprocess.run(
        [sys.executable, "-c", _READ_IN_LITTLE_MEMORY, str(path)], capture_output=True, text=True, check=True
    )

    *message, grown_kib = done.stdout.splitlines()
    assert "chunk c/0/0" in message[0]
    assert int(grown_kib) < 64 << 10


@pytest.mark.parametrize("codec", ["pickle", "json2", "msgpack2", "categorize", "quantum"])
def test_codecs_that_are_not_known_to_be_safe_are_refused(tmp_path: Path, codec: str) -> None:
    path = dumps.zarr_array(tmp_path / "a", dumps.logits(), zarr_format=2)
    _edit(path / ".zarray", filters=[{"id": codec}])

    with pytest.raises(UnsafeCodecError, match=rf"codec '{codec}', which is not known to be safe.*zstd") as caught:
        open_source(SourceRequest(str(path)))

    assert exit_code(caught.value) == 3


@pytest.mark.parametrize("member", ["codecs", "index_codecs"])
def test_codecs_inside_shards_are_looked_at(tmp_path: Path, member: str) -> None:
    path = dumps.zarr_array(tmp_path / "a", dumps.logits(), chunks=(5, 5), shards=(10, 5))
    document = json.loads((path / "zarr.json").read_text())
    document["codecs"][0]["configuration"][member] = [{"name": "numcodecs.pickle", "configuration": {}}]
    (path / "zarr.json").write_text(json.dumps(document))

    with pytest.raises(UnsafeCodecError, match="'pickle'"):
        open_source(SourceRequest(str(path)))


@pytest.mark.parametrize(("shape", "chunks"), [([2**62, 4], [2**40, 4]), ([10**9, 5], [1, 5])])
def test_impossible_shapes_are_refused(tmp_path: Path, shape: list[int], chunks: list[int]) -> None:
    path = dumps.zarr_array(tmp_path / "a", dumps.logits(), zarr_format=2)
    _edit(path / ".zarray", shape=shape, chunks=chunks)

    with pytest.raises(MetadataLimitError, match=r"has (shape|\d+ chunks)"):
        open_source(SourceRequest(str(path)))


_RECTILINEAR = {"name": "rectilinear", "configuration": {"kind": "inline", "chunk_shapes": [[3, 100], [5]]}}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("storage_transformers", [{"name": "rot13"}], "has storage transformers; expected none"),
        ("chunk_grid", _RECTILINEAR, "has a chunk grid that is rectilinear; expected regular"),
        ("attributes", 5, "has attributes that are 5; expected an object"),
        ("data_type", "object", "zarr-python cannot open it"),
        ("codecs", None, "zarr-python cannot open it"),
        ("shape", [103.5, 5], "zarr-python cannot open it"),
        ("chunk_key_encoding", {"name": "default", "configuration": {"separator": "/../"}}, "separator"),
    ],
)
def test_metadata_that_make_no_sense_are_refused(tmp_path: Path, key: str, value: Any, said: str) -> None:
    path = dumps.zarr_array(tmp_path / "a", dumps.logits())
    _edit(path / "zarr.json", **{key: value})

    with pytest.raises(SourceFormatError, match=said):
        open_source(SourceRequest(str(path)))


@pytest.mark.parametrize("lengths", [{"shape": [10**7]}, {"chunks": [10**9]}], ids=["shape", "chunks"])
def test_class_names_that_would_fill_the_memory_are_refused(tmp_path: Path, lengths: dict[str, Any]) -> None:
    path = dumps.zarr_group(tmp_path / "a", dumps.logits(), zarr_format=2, carried=False)
    names = np.array(dumps.CLASS_NAMES, np.dtypes.StringDType())
    dumps.zarr_array(path / "class", names, zarr_format=2, chunks=(5,))
    _edit(path / "class" / ".zarray", **lengths)

    with pytest.raises(MetadataLimitError, match=r"class: class names of shape .* may take \d+ bytes"):
        open_source(SourceRequest(str(path)))


def test_a_chunk_of_class_names_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    path = dumps.zarr_group(tmp_path / "a", dumps.logits(), carried=False)
    dumps.zarr_array(path / "class", np.array(dumps.CLASS_NAMES, np.dtypes.StringDType()), chunks=(5,))
    with open(path / "class" / "c" / "0", "ab") as file:
        file.truncate(4 << 30)

    with pytest.raises(MetadataLimitError, match="may take 4294"):
        open_source(SourceRequest(str(path)))


def test_metadata_of_many_megabytes_are_refused(tmp_path: Path) -> None:
    path = dumps.zarr_array(tmp_path / "a", dumps.logits())
    with open(path / "zarr.json", "ab") as file:
        file.truncate(1 << 30)

    with pytest.raises(MetadataLimitError, match=r"zarr\.json: has 1073741824 bytes"):
        open_source(SourceRequest(str(path)))


def test_deep_metadata_are_refused(tmp_path: Path) -> None:
    path = dumps.zarr_array(tmp_path / "a", dumps.logits())
    (path / "zarr.json").write_text("[" * 10**6)

    with pytest.raises(SourceFormatError, match="is not JSON"):
        open_source(SourceRequest(str(path)))


def test_a_chunk_that_decodes_the_second_time_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dumps.logits()
    source: Any = open_source(SourceRequest(str(dumps.zarr_array(tmp_path / "a", data))))
    stored, failures = type(source)._stored, iter([OSError("gone")])

    def once(self: Any, rows: range) -> Any:
        for failure in failures:
            raise failure
        return stored(self, rows)

    monkeypatch.setattr(type(source), "_stored", once)

    assert np.concatenate([block.logits for block in source.read(0, 103)]).tobytes() == data.tobytes()
