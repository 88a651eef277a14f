"""Logits in a `.npy` file: one array, C or Fortran order, of which the rows asked for are mapped into memory.

The header is NumPy's own format, read without unpickling; objects are refused by it. A map covers one
block and goes with it: of a map of the whole file every page that was read would count as ours.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from softmax_dask import DtypeError
from softmax_dask_pipelines.errors import ColumnNotFoundError, CorruptFileError, SourceFormatError
from softmax_dask_pipelines.sources.blocks import aligned, rows_per_read
from softmax_dask_pipelines.sources.dtypes import BFLOAT16, checked_class_axis, logits_dtype
from softmax_dask_pipelines.sources.names import require_class_names
from softmax_dask_pipelines.sources.protocol import SourceBlock, SourceFacts, SourceRequest
from softmax_dask_pipelines.sources.sigmoid import classes_of_rows
from softmax_dask_pipelines.sources.stamps import FileStamps, Stamps, digests_of, look

_HEADERS = {
    (1, 0): npy_format.read_array_header_1_0,
    (2, 0): npy_format.read_array_header_2_0,
    # Version 3 is version 2 in UTF-8. Only names of fields can tell, and records are refused.
    (3, 0): npy_format.read_array_header_2_0,
}
"""By version; they read no header longer than NumPy's limit."""
_FAULT_AROUND_BYTES = 64 << 10
"""Linux maps so much around a page that is read; it counts for each class where a row is scattered."""


@dataclass(frozen=True, slots=True)
class NpyFile:
    """Where the numbers are."""

    path: str
    offset: int
    """Of the first number in the file."""
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    """As stored."""

    @classmethod
    def at(cls, path: str) -> "NpyFile":
        """The file at `path`, once its header makes sense and all its numbers are there."""
        with open(path, "rb") as file:
            try:
                shape, fortran, dtype = _header(file)
            except ValueError as error:  # every header that is none, NumPy's limit of its length included
                raise SourceFormatError(
                    f"{path}: is no .npy file that can be read ({error}); expected a header of version 1, 2 or 3. "
                    "Write the array again with numpy.save."
                ) from error
            found = cls(path, file.tell(), shape, fortran, dtype)
        found._require_plain()
        found._require_lengths()
        found._require_whole(os.path.getsize(path))
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of all numbers."""
        return prod(self.shape) * self.dtype.itemsize

    def mapped(self, rows: range, class_axis: int) -> NDArray[Any]:
        """These rows as they are stored, (rows, classes), read from the file when they are looked at."""
        contiguous = self.fortran == (class_axis == 0)
        part = self._part(rows) if contiguous else self._whole()[:, rows.start : rows.stop]
        return part if contiguous else part.T

    def rows_are_contiguous(self, class_axis: int) -> bool:
        """Whether the classes of a row stand side by side."""
        return self.fortran == (class_axis == 0)

    def _part(self, rows: range) -> NDArray[Any]:
        classes = self.shape[0 if self.fortran else 1]
        offset = self.offset + rows.start * classes * self.dtype.itemsize
        return np.memmap(self.path, self.dtype, mode="r", offset=offset, shape=(len(rows), classes))

    def _whole(self) -> NDArray[Any]:
        """All numbers as (classes, rows)."""
        shape = self.shape[::-1] if self.fortran else self.shape
        return np.memmap(self.path, self.dtype, mode="r", offset=self.offset, shape=shape)

    def _require_plain(self) -> None:
        if self.dtype.hasobject or self.dtype.names or self.dtype.subdtype:
            kind = "Python objects, that is pickles" if self.dtype.hasobject else f"records, {self.dtype}"
            raise SourceFormatError(
                f"{self.path}: holds {kind}; expected numbers. Nothing was opened. Write the logits as a plain array."
            )

    def _require_lengths(self) -> None:
        if min(self.shape, default=0) < 0:  # NumPy takes any integers for a shape
            raise SourceFormatError(
                f"{self.path}: has shape {self.shape}; expected lengths of 0 or more. Write the array again with "
                "numpy.save."
            )

    def _require_whole(self, size: int) -> None:
        expected = self.offset + self.nbytes
        if size < expected:
            raise CorruptFileError(
                f"{self.path}: has {size} bytes; expected {expected} for {self.dtype} {self.shape}. Copy it again."
            )


class NpySource:
    """The rows of one file; it has no ids, targets or class names."""

    def __init__(self, request: SourceRequest, path: str) -> None:
        _require_no_carried(request, path)
        file = NpyFile.at(path)
        class_axis = checked_class_axis(file.shape, request, where=path)
        self._inner = file.shape[1:-1]
        if len(file.shape) != 2:
            file, class_axis = _of_two_axes(file, class_axis), 1
        self._class_axis = class_axis
        self._file, self._by_content = file, request.verify_input == "content"
        self._dtype = _dtype(file, bfloat16=request.dtype == "bfloat16")
        self._facts = self._described(request)

    @property
    def facts(self) -> SourceFacts:
        """What is known without reading logits."""
        return self._facts

    def read(self, start: int, stop: int) -> Iterator[SourceBlock]:
        """Rows start..stop-1 in order, cut at the multiples of `facts.read_rows`."""
        assert 0 <= start <= stop <= self._facts.rows, f"rows {start}..{stop} of {self._facts.rows}"
        for rows in aligned(start, stop, self._facts.read_rows):
            yield SourceBlock(logits=self._logits(rows), carried={}, targets=None)

    def compile(self) -> None:
        """Nothing."""

    def stamps(self) -> Stamps:
        """How the file looks now."""
        found = look(self._file.path, by_content=self._by_content)
        told = None if found is None else (*found, self._file)
        name = os.path.basename(self._file.path)
        return Stamps("", files=FileStamps((name,), (self._facts.rows,), digests_of([told], 1)))

    def content(self, name: str, rows: range) -> str:
        """Nothing: a file does not grow."""
        return ""

    def _logits(self, rows: range) -> NDArray[Any]:
        stored = np.asarray(self._file.mapped(rows, self._class_axis))
        if self._dtype == BFLOAT16:
            stored = np.require(stored, stored.dtype.newbyteorder("="), ("C", "A")).view(np.uint16).view(BFLOAT16)
        return np.require(stored, self._dtype, ("C", "A"))

    def _described(self, request: SourceRequest) -> SourceFacts:
        file, path = self._file, self._file.path
        rows, classes = file.shape[1 - self._class_axis], file.shape[self._class_axis]
        contiguous = file.rows_are_contiguous(self._class_axis)
        read_rows = max(
            1, min(rows, rows_per_read(unit_rows=1, group_rows=max(1, rows), row_bytes=classes * self._dtype.itemsize))
        )
        named = classes_of_rows(request, classes, where=path)
        return SourceFacts(
            path=path,
            format="npy",
            name="",
            rows=rows,
            classes=classes,
            dtype=self._dtype,
            read_rows=read_rows,
            # The pages of the map beside the block that is made of them.
            read_overhead_bytes=read_rows * classes * self._dtype.itemsize
            + (0 if contiguous else classes * _FAULT_AROUND_BYTES),
            stored_bytes=file.nbytes,
            codec="uncompressed, no checksum",
            layout=f"{'Fortran' if file.fortran else 'C'} order{_orientation(self._class_axis)}, memory-mapped",
            class_names=request.class_names and require_class_names(request.class_names, named, where=path),
            carried=(),
            target_name=None,
            chunk_rows=1,
            class_chunks=1 if contiguous else classes,
            has_checksum=False,
            row_shape=(-1, *self._inner),
            row_kind="array",
        )


def _header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy_format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"version {version}")
    return _HEADERS[version](file)


def _of_two_axes(file: NpyFile, class_axis: int) -> NpyFile:
    """The same numbers as (rows, classes): of one axis with one class a row, of more with the places of all but one."""
    if len(file.shape) == 1:
        return replace(file, shape=(file.shape[0], 1), fortran=False)
    if file.fortran or class_axis != len(file.shape) - 1:
        order = "Fortran order" if file.fortran else f"C order with classes along axis {class_axis}"
        raise SourceFormatError(
            f"{file.path}: has shape {file.shape} in {order}; expected C order and classes last of more than two axes, "
            "so that rows follow one another. Write numpy.ascontiguousarray(numpy.moveaxis(logits, class_axis, -1))."
        )
    return replace(file, shape=(prod(file.shape[:-1]), file.shape[-1]))


def _dtype(file: NpyFile, *, bfloat16: bool) -> np.dtype[Any]:
    # NumPy writes ml_dtypes.bfloat16 as two bytes of nothing in particular.
    if file.dtype.kind == "V":
        if bfloat16 and file.dtype.itemsize == BFLOAT16.itemsize:
            return BFLOAT16
        raise DtypeError(
            f"{file.path}: logits are {file.dtype}, bytes without a type; expected numbers. "
            "If they are bfloat16, say so: dtype bfloat16."
        )
    return logits_dtype(file.dtype, bfloat16=bfloat16, where=file.path)


def _require_no_carried(request: SourceRequest, path: str) -> None:
    for key in ("id", "target"):
        name = getattr(request, key)
        if name is not None:
            raise ColumnNotFoundError(
                f"{path}: a .npy file has no {key}s; expected no {key}, not {name!r}. Leave it out, or write "
                "logits, ids and targets into a Zarr group."
            )


def _orientation(class_axis: int) -> str:
    return ", (classes, rows)" if class_axis == 0 else ""
