"""Finding and opening the arrays of a local Zarr store, read-only.

The members of a group are found by listing its folder: consolidated or not makes no difference,
and a member that zarr-python cannot open does not hide the others.
"""

import json
import os
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import prod
from typing import Any

import numpy as np
import zarr
from zarr.core.array import AsyncArray
from zarr.core.metadata.v2 import ArrayV2Metadata
from zarr.core.metadata.v3 import ArrayV3Metadata

from softmax_dask_pipelines.config_store import StorageOptions
from softmax_dask_pipelines.errors import (
    ColumnNotFoundError,
    DataError,
    MetadataLimitError,
    PermissionDeniedError,
    PipelineError,
    SourceFormatError,
)
from softmax_dask_pipelines.notices import silent
from softmax_dask_pipelines.sources.dtypes import holds_logits
from softmax_dask_pipelines.sources.names import ID_NAMES, TARGET_NAMES, carried_name, listing, no_such
from softmax_dask_pipelines.sources.zarr_bfloat16 import is_bfloat16, without_bfloat16
from softmax_dask_pipelines.sources.zarr_carried import CarriedArray
from softmax_dask_pipelines.sources.zarr_decoders import bounded_codecs, bounded_v2, limit_bytes
from softmax_dask_pipelines.sources.zarr_files import Files, files_at
from softmax_dask_pipelines.sources.zarr_metadata import array_document, group_attributes, is_array, is_store, joined

_CLASS_ARRAY = "class"
"""xarray's coordinate of the class axis."""
_CLASS_NAMES_BYTES = 512 << 20
"""Read without a plan, so that no shape may make them fill the memory: hundreds of thousands of texts."""
_NOT_LOGITS = (*ID_NAMES, *TARGET_NAMES)
_NOT_OF_VALUES = ("shape", "attributes")
_NESTED_SHOWN = 20
_GROUPS_SEARCHED = 100
"""For arrays to show; a store may hold groups without end."""


@dataclass(frozen=True, slots=True)
class Store:
    """A group and the names of its arrays, or a bare array, whose only name is ""."""

    path: str
    files: Files
    names: tuple[str, ...]

    @classmethod
    def at(cls, path: str, options: StorageOptions | None = None, *, by_content: bool = False) -> "Store":
        """What lies in the folder, zip file or object store at `path`."""
        files = files_at(path, options, by_content=by_content)
        if is_array(files, ""):
            return cls(path, files, ("",))
        if not is_store(files):
            raise SourceFormatError(
                f"{path}: holds no zarr.json, .zarray or .zgroup; expected a Zarr store. Check the path."
            )
        return cls(path, files, _arrays_in(files, ""))

    def where(self, name: str) -> str:
        """The array, for a message."""
        return f"{self.path}: {name}" if name else self.path

    def open(self, name: str) -> "zarr.Array[Any]":
        """The array of that name."""
        _require_readable(self.files, name)
        document = array_document(self.files, name)
        try:
            metadata = _metadata(document)
            return zarr.Array(AsyncArray(metadata=metadata, store_path=self.files.store_path(name)))
        except (MemoryError, PipelineError):
            raise
        except Exception as error:  # an unknown dtype, a setting out of range: each is an error of its own
            raise SourceFormatError(
                f"{self.where(name)}: zarr-python cannot open it ({error}); expected an array it knows. "
                "Write it again with a plain dtype and codec."
            ) from error

    def decoding(self, *names: str) -> str:
        """Digest of what the metadata of these arrays says of their values; not of how many there are."""
        documents = [array_document(self.files, name) for name in names]
        said = [{key: value for key, value in each.items() if key not in _NOT_OF_VALUES} for each in documents]
        return blake2b(json.dumps([names, said], sort_keys=True).encode(), digest_size=16).hexdigest()

    def says_bfloat16(self, name: str) -> bool:
        """Whether the metadata of the array says bfloat16, which zarr-python does not know."""
        return is_bfloat16(array_document(self.files, name))

    def logits_name(self, requested: str | None) -> str:
        """The array of logits: the requested one, `logits`, or the only one that can be."""
        if self.names == ("",):
            return self._of_bare_array(requested)
        if requested is not None:
            return self._requested(requested)
        return self._found()

    def carried(
        self, requested: str | None, usual: Sequence[str], *, logits: str, places: tuple[int, ...]
    ) -> CarriedArray | None:
        """The array of ids or targets, if there is one: the requested one, or one of a usual name beside the logits.

        `places`: along each axis of the rows.
        """
        name = requested
        if requested is None or not self._has_nested(requested):
            folder = posixpath.dirname(logits)
            names = _arrays_in(self.files, folder) if folder and requested is None else self.names
            found = carried_name(requested, usual, names, where=self.path, kind="array")
            name = joined(folder, found) if found and requested is None else found
        if name is None:
            return None
        return CarriedArray.of(self.open(name), self.files, name=name, where=self.where(name), places=places)

    def class_names(self) -> object:
        """The group's `class_names` attribute, or the values of an array of text named `class`, or None."""
        if self.names == ("",):
            return None
        named = group_attributes(self.files, "").get("class_names")
        return named if named is not None or _CLASS_ARRAY not in self.names else self._class_array()

    def _class_array(self) -> object:
        array = self.open(_CLASS_ARRAY)
        if array.ndim != 1 or np.dtype(array.dtype).kind not in "UTO":
            return None
        decoded = limit_bytes(max(array.size, prod(array.chunks)), np.dtype(array.dtype))
        held = max(decoded, self.files.stored_bytes(_CLASS_ARRAY))
        if held > _CLASS_NAMES_BYTES:
            raise MetadataLimitError(
                f"{self.where(_CLASS_ARRAY)}: class names of shape {array.shape} in chunks of {array.chunks} may take "
                f"{held} bytes; expected at most {_CLASS_NAMES_BYTES}. Give the names in a file."
            )
        return np.asarray(array[:]).tolist()

    def _of_bare_array(self, requested: str | None) -> str:
        if requested:
            raise ColumnNotFoundError(
                f"{self.path}: is an array itself; expected a group that holds {requested!r}. Leave the "
                "array's name out."
            )
        return ""

    def _requested(self, name: str) -> str:
        if name in self.names:
            return name
        if not self._has_nested(name):
            raise no_such(self.path, "array", name, self.names or tuple(self._nested()))
        return posixpath.normpath(name)

    def _has_nested(self, name: str) -> bool:
        inside = posixpath.normpath(name)
        return inside != "." and not inside.startswith(("..", "/")) and is_array(self.files, inside)

    def _nested(self) -> Iterator[str]:
        """The first arrays inside groups inside the group."""
        groups = [""]
        found = searched = 0
        while groups and found < _NESTED_SHOWN and searched < _GROUPS_SEARCHED:
            group = groups.pop(0)
            searched += 1
            for child in self.files.folders(group):
                key = joined(group, child)
                if is_array(self.files, key):
                    found += 1
                    yield key
                else:
                    groups.append(key)

    def _found(self) -> str:
        if "logits" in self.names:
            return "logits"
        axes = {name: count for name in self.names if (count := self._axes_if_logits(name)) >= 2}
        # An array of two axes is what most dumps have; beside one of more, targets have two as well.
        named = {name: count for name, count in axes.items() if name not in _NOT_LOGITS} or axes
        candidates = [name for name, count in named.items() if count == 2] or list(named)
        if len(candidates) > 1:
            raise ColumnNotFoundError(
                f"{self.path}: {self._listing(candidates)} may all be logits; expected one array of 2 axes or more, or "
                "one named 'logits'. Name the array."
            )
        # The only array there is gets chosen as well: the checks that follow say what is wrong with it.
        chosen = candidates or list(self.names)
        if len(chosen) != 1:
            raise SourceFormatError(
                f"{self.path}: no array can be logits; expected one of numbers with 2 axes or more. "
                f"There are: {self._listing(self.names or tuple(self._nested()))}. Name the array, or check the path."
            )
        return chosen[0]

    def _axes_if_logits(self, name: str) -> int:
        """How many axes an array of numbers has; 0 of any other."""
        try:
            array = self.open(name)
        except DataError:
            return 0
        return array.ndim if holds_logits(np.dtype(array.dtype)) else 0

    def _listing(self, names: Sequence[str]) -> str:
        return listing([self._described(name) for name in names])

    def _described(self, name: str) -> str:
        try:
            array = self.open(name)
        except DataError:
            return f"{name} (cannot be opened)"
        return f"{name} {array.dtype} {array.shape}"


def _arrays_in(files: Files, folder: str) -> tuple[str, ...]:
    return tuple(name for name in files.folders(folder) if is_array(files, joined(folder, name)))


def _metadata(document: dict[str, Any]) -> ArrayV2Metadata | ArrayV3Metadata:
    plain = without_bfloat16(document)
    # Of codecs that zarr's specification does not have yet, of empty filters: no concern of who reads.
    with silent():
        if plain.get("zarr_format") == 2:
            return bounded_v2(ArrayV2Metadata.from_dict(plain))
        return ArrayV3Metadata.from_dict(plain | {"codecs": bounded_codecs(plain["codecs"])})


def _require_readable(files: Files, name: str) -> None:
    documents = (joined(name, document) for document in ("zarr.json", ".zarray", ".zattrs"))
    closed = next((key for key in (name, *documents) if files.closed(key)), None)
    if closed is not None:
        raise PermissionDeniedError(
            f"{os.path.normpath(files.shown(closed))}: cannot be read; expected read permission. "
            "Check its owner and mode."
        )
