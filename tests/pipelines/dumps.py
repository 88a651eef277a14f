"""Dumps of logits as a user's model might have written them, one function a layout."""

import itertools
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

CLASS_NAMES = ("cat", "dog", "eel", "fox", "gnu")


def logits(rows: int = 103, classes: int = 5, dtype: str = "float32") -> NDArray[Any]:
    """Numbers of that dtype, no two rows alike."""
    values = np.random.default_rng(7).normal(scale=40, size=(rows, classes))
    return values.astype(dtype)


def ids(rows: int = 103) -> list[str]:
    return [f"row-{i}é" for i in range(rows)]


def targets(rows: int = 103, classes: int = 5) -> NDArray[np.int64]:
    """Classes in turn, -1 among them."""
    return np.arange(rows, dtype=np.int64) % (classes + 1) - 1


def zarr_group(path: Path, data: NDArray[Any], *, zarr_format: Any = 3, carried: bool = True, **layout: Any) -> Path:
    """A group with `logits`, `id`, `target` and the attribute `class_names`."""
    group = zarr.create_group(path, zarr_format=zarr_format)
    zarr_array(path / "logits", data, zarr_format=zarr_format, **layout)
    if carried:
        texts = np.array(ids(len(data)), dtype=np.dtypes.StringDType())
        # Chunks of another length than those of the logits: ids are often written apart.
        group.create_array("id", data=texts, chunks=(40,))
        group.create_array("target", data=targets(*data.shape).astype("int32"), chunks=(64,))
        group.attrs["class_names"] = [f"class {k}" for k in range(data.shape[1])]
    return path


def zarr_array(path: Path, data: NDArray[Any], *, zarr_format: Any = 3, **layout: Any) -> Path:
    """A bare array."""
    array = zarr.create_array(path, shape=data.shape, dtype=data.dtype, zarr_format=zarr_format, **layout)
    array[:] = data
    return path


def zipped(folder: Path, *, inside: str = "", compression: int = zipfile.ZIP_STORED) -> Path:
    """A zip file of a store, as `zip -r` makes one; the folder goes."""
    path = folder.with_name(folder.name + ".zip")
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, inside + file.relative_to(folder).as_posix())
    shutil.rmtree(folder)
    return path


def zarr_by_class(path: Path, data: NDArray[Any], *, zarr_format: Any = 3, **layout: Any) -> Path:
    """As `zarr_group`, but the logits are (classes, rows)."""
    zarr_group(path, data, zarr_format=zarr_format)
    shutil.rmtree(path / "logits")
    zarr_array(path / "logits", np.ascontiguousarray(data.T), zarr_format=zarr_format, **layout)
    return path


def npy(path: Path, data: NDArray[Any]) -> Path:
    """As `numpy.save` writes it, in the order that `data` has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, data)
    return path


def parquet_table(columns: dict[str, Any], *, carried: bool = True) -> pa.Table:
    """`columns` with `id`, `target` and class names in the metadata."""
    table = pa.table(columns)
    if not carried:
        return table
    rows = table.num_rows
    table = table.append_column("id", pa.array(ids(rows)).dictionary_encode())
    table = table.append_column("target", pa.array([None if t < 0 else t for t in targets(rows)], pa.int16()))
    return table.replace_schema_metadata({"class_names": '["class 0", "class 1", "class 2", "class 3", "class 4"]'})


def fixed_lists(data: NDArray[Any]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(data.ravel()), data.shape[1])


def lists(data: NDArray[Any]) -> pa.Array:
    return pa.ListArray.from_arrays(_offsets(data, pa.int32()), pa.array(data.ravel()))


def large_lists(data: NDArray[Any]) -> pa.Array:
    return pa.LargeListArray.from_arrays(_offsets(data, pa.int64()), pa.array(data.ravel()))


def binaries(data: NDArray[Any]) -> pa.Array:
    """The bytes of each row."""
    width = data.shape[1] * data.itemsize
    return pa.Array.from_buffers(pa.binary(width), len(data), [None, pa.py_buffer(data.tobytes())])


def struct(data: NDArray[Any]) -> dict[str, Any]:
    """Lists inside a struct, beside another member."""
    return {"outputs": pa.StructArray.from_arrays([pa.array([1] * len(data)), lists(data)], ["step", "logits"])}


def wide(data: NDArray[Any], prefix: str = "logit_") -> dict[str, Any]:
    """One column a class, in the order of text: logit_10 before logit_2."""
    names = sorted(range(data.shape[1]), key=str)
    return {f"{prefix}{k}": pa.array(data[:, k]) for k in names}


def parquet_file(path: Path, table: pa.Table, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def parquet_folder(path: Path, table: pa.Table, cuts: Sequence[int], **options: Any) -> Path:
    """A file for the rows between each two cuts, named so that part-10 comes last."""
    bounds = [0, *cuts, table.num_rows]
    for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
        parquet_file(path / f"part-{5 * number}.parquet", table.slice(start, stop - start), **options)
    return path


def _offsets(data: NDArray[Any], offset_type: Any) -> pa.Array:
    return pa.array(np.arange(len(data) + 1) * data.shape[1], offset_type)
