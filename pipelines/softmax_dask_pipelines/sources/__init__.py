"""Where logits come from: one protocol, one module a format.

`open_source` finds out the format and gives the object that a run reads from. A new
format is a module beside `zarr` and `parquet`, a line in `formats`, and one in `_OPENERS`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from softmax_dask_pipelines.addresses import is_address, require_object_stores
from softmax_dask_pipelines.errors import ConfigError, SourceFormatError
from softmax_dask_pipelines.sources.formats import existing_path, format_of
from softmax_dask_pipelines.sources.protocol import (
    Carried,
    Format,
    Source,
    SourceBlock,
    SourceFacts,
    SourceRequest,
)
from softmax_dask_pipelines.sources.sigmoid import SigmoidSource
from softmax_dask_pipelines.sources.stamps import Stamps

__all__ = ["Carried", "Format", "Source", "SourceBlock", "SourceFacts", "SourceRequest", "Stamps", "open_source"]


def open_source(request: SourceRequest) -> Source:
    """Open the logits that `request` describes; reads metadata only.

    Raises
    ------
    SourceNotFoundError, PermissionDeniedError
        Nothing is at the path, or it cannot be read.
    SourceFormatError, DtypeError, ClassAxisError
        What is there are no logits.
    ColumnNotFoundError, SchemaMismatchError
        A named array or column is missing, or parts do not fit together.
    """
    path, found = _located(request)
    _require_fitting_names(request, found)
    source = _OPENERS[found](request, path)
    return SigmoidSource(source) if request.link == "sigmoid" else source


def _located(request: SourceRequest) -> tuple[str, Format]:
    """Where the source is, once something is there, and its format."""
    if is_address(request.path):
        return _located_in_store(request)
    path = existing_path(request.path)
    found = request.format or format_of(path)
    _require_no_pattern(path, found)
    return str(path), found


def _located_in_store(request: SourceRequest) -> tuple[str, Format]:
    require_object_stores(request.path)
    from softmax_dask_pipelines.sources.object_places import located

    path, found = located(request.path, request.storage_options)
    if request.format not in (None, found):
        raise SourceFormatError(
            f"{path}: is {found}, and {request.format} was asked for; expected one format. Leave the format out."
        )
    return path, found


def _require_fitting_names(request: SourceRequest, found: Format) -> None:
    for key in _FOREIGN[found]:
        value = getattr(request, key)
        if value not in (None, "error"):
            raise ConfigError(
                f"{key}: is {value!r}, but {request.path} is {found}; expected no {key} there. {_REMEDY[found]}"
            )


def _require_no_pattern(path: Path, found: Format) -> None:
    if found != "parquet" and not path.exists():
        raise SourceFormatError(
            f"{path}: is a pattern, and {found} was asked for; expected one path. Leave the source format out, or "
            "score one at a time."
        )


def _open_zarr(request: SourceRequest, path: str) -> Source:
    from softmax_dask_pipelines.sources.zarr import ZarrSource

    return ZarrSource(request, path)


def _open_npy(request: SourceRequest, path: str) -> Source:
    from softmax_dask_pipelines.sources.npy import NpySource

    return NpySource(request, path)


def _open_parquet(request: SourceRequest, path: str) -> Source:
    from softmax_dask_pipelines.sources.parquet import ParquetSource

    return ParquetSource(request, path)


_FOREIGN: Mapping[Format, tuple[str, ...]] = MappingProxyType(
    {
        "zarr": ("column", "column_prefix", "nulls"),
        "parquet": ("array", "class_axis", "missing_chunks"),
        "npy": ("array", "column", "column_prefix", "nulls", "missing_chunks"),
    }
)
"""What can be said about other formats only."""

_REMEDY: Mapping[Format, str] = MappingProxyType(
    {
        "zarr": "Leave it out, or use array instead.",
        "parquet": "Leave it out, or use column or column_prefix instead.",
        "npy": "Leave it out.",
    }
)

_OPENERS: Mapping[Format, Callable[[SourceRequest, str], Source]] = MappingProxyType(
    {"zarr": _open_zarr, "parquet": _open_parquet, "npy": _open_npy}
)
