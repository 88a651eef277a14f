"""Where logits come from: one protocol, one module a format.

`open_source` finds out the format and gives the object that a run reads from. A new
format is a module beside `zarr` and `parquet`, a line in `formats`, and one in `_OPENERS`.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from softmax_dask_pipelines.errors import ConfigError
from softmax_dask_pipelines.sources.formats import existing_path, format_of
from softmax_dask_pipelines.sources.protocol import (
    Format,
    Source,
    SourceBlock,
    SourceFacts,
    SourceRequest,
)

__all__ = ["Format", "Source", "SourceBlock", "SourceFacts", "SourceRequest", "open_source"]


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
    path = existing_path(request.path)
    found = request.format or format_of(path)
    _require_fitting_names(request, found)
    return _OPENERS[found](request, str(path))


def _require_fitting_names(request: SourceRequest, found: Format) -> None:
    foreign = {"zarr": ("column", "column_prefix"), "parquet": ("array",)}[found]
    own = {"zarr": "array", "parquet": "column or column_prefix"}[found]
    for key in foreign:
        value = getattr(request, key)
        if value is not None:
            raise ConfigError(
                f"{key}: is {value!r}, but {request.path} is {found}; expected no {key} there. Use {own} instead."
            )


def _open_zarr(request: SourceRequest, path: str) -> Source:
    from softmax_dask_pipelines.sources.zarr import ZarrSource

    return ZarrSource(request, path)


def _open_parquet(request: SourceRequest, path: str) -> Source:
    from softmax_dask_pipelines.sources.parquet import ParquetSource

    return ParquetSource(request, path)


_OPENERS: Mapping[Format, Callable[[SourceRequest, str], Source]] = MappingProxyType(
    {"zarr": _open_zarr, "parquet": _open_parquet}
)
