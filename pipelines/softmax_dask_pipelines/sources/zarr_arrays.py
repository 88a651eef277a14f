"""Finding and opening the arrays of a local Zarr store, read-only.

The members of a group are found by listing its folder: consolidated or not makes no difference,
and a member that zarr-python cannot open does not hide the others.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.core.array import AsyncArray
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.storage import LocalStore, StorePath

from softmax_dask_pipelines.errors import ColumnNotFoundError, PermissionDeniedError, SourceFormatError
from softmax_dask_pipelines.sources.dtypes import holds_logits
from softmax_dask_pipelines.sources.names import carried_name, listing, no_such
from softmax_dask_pipelines.sources.zarr_carried import CarriedArray

_CLASS_ARRAY = "class"
"""xarray's coordinate of the class axis."""


@dataclass(frozen=True, slots=True)
class Store:
    """A group and the names of its arrays, or a bare array, whose only name is ""."""

    path: str
    names: tuple[str, ...]

    @classmethod
    def at(cls, path: str) -> "Store":
        """What lies in the folder `path`."""
        folder = Path(path)
        if _is_array(folder):
            return cls(path, ("",))
        if not any((folder / name).is_file() for name in ("zarr.json", ".zgroup", ".zmetadata")):
            raise SourceFormatError(
                f"{path}: holds no zarr.json, .zarray or .zgroup; expected a Zarr store. Check the path."
            )
        return cls(path, tuple(sorted(child.name for child in folder.iterdir() if _is_array(child))))

    def folder(self, name: str) -> Path:
        """Where the array's metadata and chunks are."""
        return Path(self.path, name)

    def where(self, name: str) -> str:
        """The array, for a message."""
        return f"{self.path}: {name}" if name else self.path

    def open(self, name: str) -> "zarr.Array[Any]":
        """The array of that name."""
        return _open(self.folder(name), self.where(name))

    def logits_name(self, requested: str | None) -> str:
        """The array of logits: the requested one, `logits`, or the only one that can be."""
        if self.names == ("",):
            return self._of_bare_array(requested)
        if requested is not None:
            return self._requested(requested)
        return self._found()

    def carried(self, requested: str | None, usual: Sequence[str], *, rows: int) -> CarriedArray | None:
        """The array of ids or targets, if there is one."""
        name = requested
        if requested is None or not self._has_nested(requested):
            name = carried_name(requested, usual, self.names, where=self.path, kind="array")
        if name is None:
            return None
        return CarriedArray.of(self.open(name), name=name, where=self.where(name), rows=rows)

    def class_names(self) -> object:
        """The group's `class_names` attribute, or the values of an array of text named `class`, or None."""
        if self.names == ("",):
            return None
        named = dict(zarr.open_group(self.path, mode="r").attrs).get("class_names")
        return named if named is not None or _CLASS_ARRAY not in self.names else self._class_array()

    def _class_array(self) -> object:
        array = self.open(_CLASS_ARRAY)
        if array.ndim != 1 or np.dtype(array.dtype).kind not in "UTO":
            return None
        return np.asarray(array[:]).tolist()

    def _of_bare_array(self, requested: str | None) -> str:
        if requested:
            raise ColumnNotFoundError(
                f"{self.path}: is an array itself; expected a group that holds {requested!r}. Leave the "
                "array's name out."
            )
        return ""

    def _requested(self, name: str) -> str:
        if name not in self.names and not self._has_nested(name):
            raise no_such(self.path, "array", name, self.names)
        return name

    def _has_nested(self, name: str) -> bool:
        inside = Path(os.path.normpath(self.folder(name)))
        return inside.is_relative_to(self.path) and inside != Path(self.path) and _is_array(inside)

    def _found(self) -> str:
        if "logits" in self.names:
            return "logits"
        candidates = [name for name in self.names if self._may_be_logits(name)]
        if len(candidates) > 1:
            raise ColumnNotFoundError(
                f"{self.path}: {listing(candidates)} may all be logits; expected one array of 2 axes, or one "
                "named 'logits'. Name the array."
            )
        # The only array there is gets chosen as well: the checks that follow say what is wrong with it.
        chosen = candidates or self.names
        if len(chosen) != 1:
            raise SourceFormatError(
                f"{self.path}: no array can be logits; expected one of numbers with 2 axes. "
                f"There are: {listing([self._described(name) for name in self.names])}. Name the array, or "
                "check the path."
            )
        return chosen[0]

    def _may_be_logits(self, name: str) -> bool:
        try:
            array = self.open(name)
        except SourceFormatError:
            return False
        return array.ndim == 2 and holds_logits(np.dtype(array.dtype))

    def _described(self, name: str) -> str:
        try:
            array = self.open(name)
        except SourceFormatError:
            return f"{name} (cannot be opened)"
        return f"{name} {array.dtype} {array.shape}"


def is_bfloat16(folder: Path) -> bool:
    """Whether the metadata of an array says bfloat16, which zarr-python does not know."""
    try:
        return bool(_v3_metadata(folder).get("data_type") == "bfloat16")
    except (OSError, ValueError):
        return False


def _open(folder: Path, where: str) -> "zarr.Array[Any]":
    _require_readable(folder)
    try:
        return _open_bfloat16(folder) if is_bfloat16(folder) else zarr.open_array(str(folder), mode="r")
    except MemoryError:
        raise
    except Exception as error:  # metadata that is no JSON, an unknown dtype or codec: each is an error of its own
        raise SourceFormatError(
            f"{where}: zarr-python cannot open it ({error}); expected an array it knows. "
            "Write it again with a plain dtype and codec."
        ) from error


def _require_readable(folder: Path) -> None:
    # Before zarr-python: it reads several documents at once, and of two errors asyncio prints one with its traceback.
    documents = [os.path.join(folder, name) for name in ("zarr.json", ".zarray", ".zattrs")]
    paths = [os.fspath(folder), *filter(os.path.exists, documents)]
    closed = [path for path in paths if not os.access(path, os.R_OK | os.X_OK if path == paths[0] else os.R_OK)]
    if closed:
        raise PermissionDeniedError(f"{closed[0]}: cannot be read; expected read permission. Check its owner and mode.")


def _open_bfloat16(folder: Path) -> "zarr.Array[Any]":
    """The array as the uint16 that its bytes are (tensorstore and JAX write such)."""
    metadata = _v3_metadata(folder) | {"data_type": "uint16", "fill_value": 0}
    path = StorePath(LocalStore(folder, read_only=True))
    return zarr.Array(AsyncArray(metadata=ArrayV3Metadata.from_dict(metadata), store_path=path))


def _is_array(folder: Path) -> bool:
    try:
        return (folder / ".zarray").is_file() or bool(_v3_metadata(folder).get("node_type") == "array")
    except PermissionError:  # it may be one: who opens it is told what is wrong
        return True
    except OSError:
        return False
    except ValueError as error:
        raise SourceFormatError(
            f"{folder / 'zarr.json'}: is not JSON ({error}); expected metadata of Zarr v3. Copy it again."
        ) from error


def _v3_metadata(folder: Path) -> dict[str, Any]:
    document: Any = json.loads((folder / "zarr.json").read_bytes())
    return document if isinstance(document, dict) else {}
