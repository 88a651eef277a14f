"""Every layout of Zarr and .npy dumps that goes through the contract of sources."""

import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numcodecs
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

from tests.pipelines import dumps

Write = Callable[[Path, NDArray[Any]], Path]


def group(**layout: Any) -> Write:
    return lambda path, data: dumps.zarr_group(path / "dump.zarr", data, **layout)


def by_class(**layout: Any) -> Write:
    return lambda path, data: dumps.zarr_by_class(path / "dump.zarr", data, **layout)


def packed(write: Write, **options: Any) -> Write:
    return lambda path, data: dumps.zipped(write(path, data), **options)


def consolidated(write: Write) -> Write:
    def with_metadata(path: Path, data: NDArray[Any]) -> Path:
        found = write(path, data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # v3 has no consolidated metadata yet
            zarr.consolidate_metadata(found)
        return found

    return with_metadata


def unstable(write: Write) -> Write:
    """zarr-python warns who writes codecs of numcodecs into v3; who reads must not be warned."""

    def quietly(path: Path, data: NDArray[Any]) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return write(path, data)

    return quietly


def holes(fill: float, **layout: Any) -> Write:
    """Rows 20 to 39 are the fill value, and nothing of them is stored. Changes `data`."""

    def write(path: Path, data: NDArray[Any]) -> Path:
        data[20:40] = fill
        config = {"write_empty_chunks": False}
        return dumps.zarr_group(path / "dump.zarr", data, fill_value=fill, config=config, **layout)

    return write


def of_bfloat16(write: Write) -> Write:
    """Metadata that says bfloat16, as tensorstore writes it: zarr-python has no such dtype."""

    def patched(path: Path, data: NDArray[Any]) -> Path:
        found = write(path, data.view("uint16"))
        for name, key, fill in (("zarr.json", "data_type", "NaN"), (".zarray", "dtype", 0.0)):
            document = found / "logits" / name
            if document.exists():
                changed = json.loads(document.read_text()) | {key: "bfloat16", "fill_value": fill}
                document.write_text(json.dumps(changed))
        return found

    return patched


def bare(**layout: Any) -> Write:
    return lambda path, data: dumps.zarr_array(path / "dump.zarr", data, **layout)


def member(path: Path, data: NDArray[Any]) -> Path:
    return dumps.zarr_group(path / "dump.zarr", data, chunks=(10, 5)) / "logits"


def odd_name(path: Path, data: NDArray[Any]) -> Path:
    return dumps.zarr_group(path / "Läufe 2025" / "dump é 1.zarr", data, chunks=(10, 5))


def nested(path: Path, data: NDArray[Any]) -> Path:
    """`runs/a b/é` is a group that has all that belongs to its logits."""
    root = path / "dump.zarr"
    zarr.create_group(root)
    zarr.create_group(root / "runs")
    dumps.zarr_group(root / "runs" / "a b", data, chunks=(10, 5))
    del zarr.open_group(root / "runs" / "a b").attrs["class_names"]
    zarr.open_group(root).attrs["class_names"] = [f"class {k}" for k in range(5)]
    return root


def npy(order: Any = "C", *, by_class: bool = False) -> Write:
    def write(path: Path, data: NDArray[Any]) -> Path:
        stored = np.asarray(data.T if by_class else data, order=order)
        return dumps.npy(path / "dump é.npy", stored)

    return write


def npy_bfloat16(path: Path, data: NDArray[Any]) -> Path:
    return dumps.npy(path / "dump.npy", data.view("uint16"))


def npy_of_version(version: tuple[int, int]) -> Write:
    def write(path: Path, data: NDArray[Any]) -> Path:
        with open(path / "dump.npy", "wb") as file:
            np.lib.format.write_array(file, data, version=version)
        return path / "dump.npy"

    return write


Layout = tuple[Write, str, bool, dict[str, Any]]
_V2: dict[str, Any] = {"zarr_format": 2, "chunks": (10, 5)}
_FILL = {"missing_chunks": "fill"}
_FIRST = {"class_axis": 0}
_TRANSPOSE = {"filters": [TransposeCodec(order=(1, 0))]}

LAYOUTS: dict[str, Layout] = {
    "zarr v2": (group(**_V2), "float32", True, {}),
    "zarr v2 consolidated": (consolidated(group(**_V2)), "float32", True, {}),
    "zarr v2 big-endian": (group(**_V2), ">f4", True, {}),
    "zarr v2 uncompressed": (group(**_V2, compressors=None), "float64", True, {}),
    "zarr v2 Fortran order": (group(**_V2, order="F"), "float32", True, {}),
    "zarr v2 separator slash": (
        group(**_V2, chunk_key_encoding={"name": "v2", "separator": "/"}),
        "float32",
        True,
        {},
    ),
    "zarr v2 delta": (group(**_V2, filters=[numcodecs.Delta("<i2")]), "int16", True, {}),
    "zarr v2 astype": (group(**_V2, filters=[numcodecs.AsType("<f8", "<f4")]), "float32", True, {}),
    "zarr v2 shuffle lzma": (
        group(**_V2, filters=[numcodecs.Shuffle(4)], compressors=numcodecs.LZMA()),
        "float32",
        True,
        {},
    ),
    "zarr v2 bfloat16": (of_bfloat16(group(**_V2)), "bfloat16", True, {}),
    "zarr v2 by class": (by_class(zarr_format=2, chunks=(2, 10)), "float32", True, _FIRST),
    "zarr v2 holes": (holes(0, **_V2), "float32", True, _FILL),
    "zarr v3": (group(chunks=(10, 5)), "float32", True, {}),
    "zarr v3 consolidated": (consolidated(group(chunks=(10, 5))), "float32", True, {}),
    "zarr v3 big-endian": (group(chunks=(10, 5), serializer=BytesCodec(endian="big")), "float64", True, {}),
    "zarr v3 v2 keys": (
        group(chunks=(10, 5), chunk_key_encoding={"name": "v2", "separator": "."}),
        "float32",
        True,
        {},
    ),
    "zarr v3 separator dot": (
        group(chunks=(10, 5), chunk_key_encoding={"name": "default", "separator": "."}),
        "float32",
        True,
        {},
    ),
    "zarr v3 transpose": (group(chunks=(10, 5), **_TRANSPOSE), "float32", True, {}),
    "zarr v3 gzip crc32c": (group(chunks=(10, 5), compressors=[GzipCodec(), Crc32cCodec()]), "float32", True, {}),
    "zarr v3 sharded": (group(chunks=(5, 5), shards=(30, 5)), "float32", True, {}),
    "zarr v3 sharded, classes chunked": (group(chunks=(5, 2), shards=(10, 4)), "float32", True, {}),
    "zarr v3 sharded, blosc, transpose": (
        group(chunks=(5, 5), shards=(20, 5), compressors=[BloscCodec(cname="zstd")], **_TRANSPOSE),
        "float32",
        True,
        {},
    ),
    "zarr v3 numcodecs": (
        unstable(group(chunks=(10, 5), compressors=[{"name": "numcodecs.lz4", "configuration": {"acceleration": 1}}])),
        "float32",
        True,
        {},
    ),
    "zarr v3 numcodecs sharded": (
        unstable(
            group(
                chunks=(5, 5),
                shards=(20, 5),
                filters=[{"name": "numcodecs.delta", "configuration": {"dtype": "<i2"}}],
                compressors=[{"name": "numcodecs.shuffle", "configuration": {}}, ZstdCodec()],
            )
        ),
        "int16",
        True,
        {},
    ),
    "zarr v3 bfloat16": (of_bfloat16(group(chunks=(10, 5))), "bfloat16", True, {}),
    "zarr v3 bfloat16 sharded": (of_bfloat16(group(chunks=(5, 2), shards=(10, 4))), "bfloat16", True, {}),
    "zarr v3 bfloat16 by class": (of_bfloat16(by_class(chunks=(2, 10))), "bfloat16", True, _FIRST),
    "zarr v3 by class": (by_class(chunks=(5, 10)), "float32", True, _FIRST),
    "zarr v3 by class, sharded": (by_class(chunks=(2, 5), shards=(4, 20)), "float32", True, {"class_axis": -2}),
    "zarr v3 holes": (holes(-5, chunks=(10, 5)), "float32", True, _FILL),
    "zarr v3 holes of NaN": (holes(np.nan, chunks=(10, 2)), "float32", True, _FILL),
    "zarr v3 holes in shards": (holes(0, chunks=(5, 5), shards=(25, 5)), "float32", True, _FILL),
    "zarr v3 one row a chunk": (group(chunks=(1, 5)), "float32", True, {}),
    "zarr bare array": (bare(chunks=(10, 5)), "float32", False, {}),
    "zarr member array": (member, "float32", False, {}),
    "zarr nested groups": (nested, "float32", True, {"array": "runs/a b/logits"}),
    "zarr odd path": (odd_name, "float32", True, {}),
    "zarr class axis chunked": (group(chunks=(10, 2)), "float32", True, {}),
    "zarr one chunk larger than the array": (group(chunks=(1000, 100)), "float32", True, {}),
    "zarr float16": (group(chunks=(10, 5)), "float16", True, {}),
    "zarr int16": (group(chunks=(10, 5)), "int16", True, {}),
    "zip v3": (packed(group(chunks=(10, 5))), "float32", True, {}),
    "zip v2": (packed(group(**_V2)), "float32", True, {}),
    "zip v3 in a folder": (packed(group(chunks=(10, 5)), inside="dump.zarr/"), "float32", True, {}),
    "zip deflated": (packed(group(chunks=(10, 5)), compression=zipfile.ZIP_DEFLATED), "float32", True, {}),
    "zip sharded": (packed(group(chunks=(5, 5), shards=(30, 5))), "float32", True, {}),
    "zip bare array": (packed(bare(chunks=(10, 5))), "float32", False, {}),
    "zip nested groups": (packed(nested), "float32", True, {"array": "runs/a b/logits"}),
    "zip bfloat16": (packed(of_bfloat16(group(chunks=(10, 5)))), "bfloat16", True, {}),
    "npy": (npy(), "float32", False, {}),
    "npy Fortran order": (npy("F"), "float32", False, {}),
    "npy big-endian": (npy(), ">f8", False, {}),
    "npy big-endian Fortran order": (npy("F"), ">f4", False, {}),
    "npy float16": (npy(), "float16", False, {}),
    "npy int8": (npy(), "int8", False, {}),
    "npy by class": (npy(by_class=True), "float32", False, _FIRST),
    "npy by class, Fortran order": (npy("F", by_class=True), "float32", False, _FIRST),
    "npy bfloat16": (npy(), "bfloat16", False, {"dtype": "bfloat16"}),
    "npy bfloat16 bits": (npy_bfloat16, "bfloat16", False, {"dtype": "bfloat16"}),
    "npy version 2": (npy_of_version((2, 0)), "float32", False, {}),
}

assert ml_dtypes.bfloat16  # gives NumPy the name
