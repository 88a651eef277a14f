"""Chunks of a few kilobytes that would yield more than 1 GiB: refused with one line, in the memory of any run."""

import bz2
import lzma
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import pyarrow as pa
import pytest
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from tests.pipelines import dumps

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the peak of a process is told by Linux"),
]

GIB = 1 << 30
GROWTH = 48 << 20
"""More than a run of the same dump without a bomb. A decoder holds what a chunk may yield, 2 MB, and what it was
given, 9 MB at most, a few times; a bomb would take 1 GiB."""
ROWS, CHUNK = 100_000, (100_000, 5)
_PART = bytes(16 << 20)
_PARTS = GIB // len(_PART) + 1

_RUN = """
import sys
from softmax_dask_pipelines.cli import main
try:
    main(["score", *sys.argv[1:], "--columns", "label", "--quiet"], prog_name="softmax-dask")
finally:
    with open("/proc/self/status") as status:
        print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


def _scored(dump: Path) -> tuple[int, str, int]:
    """Exit code, what is said, and peak memory in bytes of a run."""
    line = [sys.executable, "-c", _RUN, str(dump), str(dump.with_name("out.zarr"))]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stderr, int(done.stdout.split()[-1]) << 10


@pytest.fixture(scope="module")
def usual_bytes(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Peak of a run of the dump without a bomb."""
    code, said, peak = _scored(_group(tmp_path_factory.mktemp("usual")))
    assert code == 0, said
    return peak


def _group(folder: Path, **layout: Any) -> Path:
    return dumps.zarr_group(folder / "dump", dumps.logits(ROWS), **{"chunks": CHUNK, **layout}, carried=False)


def _deflated(window_bits: int) -> bytes:
    """A stream as zlib and gzip have it: after a full flush its pieces can be repeated."""
    stream = zlib.compressobj(9, zlib.DEFLATED, window_bits)
    first, again = (stream.compress(_PART) + stream.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + again * _PARTS + stream.flush()


def _zstd(declared: int | None) -> bytes:
    """A frame of 1 GiB in blocks of one repeated byte, by RFC 8878; it says that it yields `declared` bytes."""
    block, count = 1 << 17, GIB >> 17
    blocks = [struct.pack("<I", block << 3 | 1 << 1 | (i == count - 1))[:3] + b"\0" for i in range(count)]
    descriptor, size = (0, b"") if declared is None else (3 << 6, struct.pack("<Q", declared))
    return struct.pack("<IBB", 0xFD2FB528, descriptor, 7 << 3) + size + b"".join(blocks)


def _zstd_streams() -> bytes:
    """Frames as a stream is written: none says how much it yields."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(_PART)
    return bytes(sink.getvalue()) * _PARTS


def _zeros() -> np.ndarray[Any, Any]:
    return np.zeros(GIB, "u1")


RARE = ("zlib", "bz2", "lzma", "zstd that says less", "zstd streams", "lz4 that says less")
"""Decoded as others are, or seldom met: left to `make test-long`."""

BOMBS: dict[str, tuple[Any, Callable[[], bytes]]] = {
    "gzip": (numcodecs.GZip(), lambda: _deflated(16 + zlib.MAX_WBITS)),
    "zlib": (numcodecs.Zlib(), lambda: _deflated(zlib.MAX_WBITS)),
    "bz2": (numcodecs.BZ2(), lambda: bz2.compress(_PART) * _PARTS),
    "lzma": (numcodecs.LZMA(), lambda: lzma.compress(_PART) * _PARTS),
    "zstd": (numcodecs.Zstd(), lambda: _zstd(GIB)),
    "zstd that says less": (numcodecs.Zstd(), lambda: _zstd(2_000_000)),
    "zstd that does not say": (numcodecs.Zstd(), lambda: _zstd(None)),
    "zstd streams": (numcodecs.Zstd(), _zstd_streams),
    "blosc": (numcodecs.Blosc(), lambda: bytes(numcodecs.Blosc(cname="zstd").encode(_zeros()))),
    "lz4": (numcodecs.LZ4(), lambda: bytes(numcodecs.LZ4().encode(_zeros()))),
    "lz4 that says less": (
        numcodecs.LZ4(),
        lambda: struct.pack("<I", 2_000_000) + bytes(numcodecs.LZ4().encode(_zeros()))[4:],
    ),
}


def _require_refused(dump: Path, key: str, usual_bytes: int) -> None:
    code, said, peak = _scored(dump)
    assert code == 3
    assert said.startswith(f"Error: {dump}: ")
    assert key in said
    assert said.count("\n") == 1
    assert peak < usual_bytes + GROWTH


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] * (name in RARE)) for name in BOMBS])
def test_a_chunk_of_v2(tmp_path: Path, usual_bytes: int, name: str) -> None:
    codec, bomb = BOMBS[name]
    path = _group(tmp_path, zarr_format=2, compressors=codec)
    (path / "logits" / "0.0").write_bytes(bomb())

    _require_refused(path, "chunk logits/0.0 does not decode", usual_bytes)


V3: dict[str, Any] = {
    "gzip": GzipCodec(),
    "zstd": ZstdCodec(),
    "zstd that does not say": ZstdCodec(),
    "blosc": BloscCodec(),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] * (name != "zstd")) for name in V3])
def test_a_chunk_of_v3(tmp_path: Path, usual_bytes: int, name: str) -> None:
    path = _group(tmp_path, compressors=[V3[name]])
    (path / "logits" / "c" / "0" / "0").write_bytes(BOMBS[name][1]())

    _require_refused(path, "chunk logits/c/0/0 does not decode", usual_bytes)


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_a_chunk_in_a_shard(tmp_path: Path, usual_bytes: int, name: str) -> None:
    path = _group(tmp_path, compressors=[V3[name]], chunks=CHUNK, shards=CHUNK)
    bomb = BOMBS[name][1]()
    index = struct.pack("<QQ", 0, len(bomb))
    (path / "logits" / "c" / "0" / "0").write_bytes(bomb + index + struct.pack("<I", google_crc32c.value(index)))

    _require_refused(path, "chunk logits/c/0/0 does not decode", usual_bytes)


def test_a_chunk_of_ids(tmp_path: Path, usual_bytes: int) -> None:
    path = _group(tmp_path)
    dumps.zarr_array(path / "id", np.arange(ROWS), chunks=(ROWS,), compressors=[ZstdCodec()])
    (path / "id" / "c" / "0").write_bytes(_zstd(GIB))

    _require_refused(path, "id: values 0 to 99999 do not decode", usual_bytes)


@pytest.mark.parametrize("said", [None, 600], ids=["honest", "said to be 600 bytes"])
@pytest.mark.parametrize("key", ["logits/c/0/0", "logits/zarr.json"])
def test_a_file_that_is_deflated_in_a_zip(tmp_path: Path, usual_bytes: int, key: str, said: int | None) -> None:
    path = _zip_with_bomb(_group(tmp_path), key, said)

    _require_refused(path, key, usual_bytes)


def _zip_with_bomb(folder: Path, key: str, said: int | None) -> Path:
    """A zip file in which `key` is inflated to more than 1 GiB, whatever the directory says."""
    bomb = _deflated(-zlib.MAX_WBITS)
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            name = file.relative_to(folder).as_posix()
            if file.is_file():
                archive.writestr(name, bomb if name == key else file.read_bytes())
    data = bytearray(path.read_bytes())
    entry = data.index(key.encode(), data.index(b"PK\1\2")) - 46
    struct.pack_into("<H", data, entry + 10, zipfile.ZIP_DEFLATED)
    struct.pack_into("<L", data, entry + 24, (_PARTS + 1) * len(_PART) if said is None else said)
    path.write_bytes(data)
    return path


def test_a_directory_of_as_many_files_as_are_allowed(tmp_path: Path, usual_bytes: int) -> None:
    folder = _group(tmp_path)
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
        for i in range(120_000):
            archive.writestr(f"other/c/{i}/0", b"")

    code, said, peak = _scored(path)

    assert code == 0, said
    assert peak < usual_bytes + (96 << 20)
