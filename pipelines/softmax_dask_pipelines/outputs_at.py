"""An output that is there, by its path or address, for those who only look at it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from softmax_dask_pipelines.addresses import checked_address, is_address, redacted
from softmax_dask_pipelines.config import options_of_stores
from softmax_dask_pipelines.errors import ConfigError, SourceNotFoundError
from softmax_dask_pipelines.object_path import AnyPath, ObjectPath


def output_at(output: str | os.PathLike[str], storage_options: Mapping[str, Any] | None) -> AnyPath:
    """Where it is, if it is anywhere.

    Raises
    ------
    ConfigError
        It is no address that can be asked for.
    SourceNotFoundError
        There is no such bucket.
    """
    path = os.fspath(output)
    if not is_address(path):
        return Path(path)
    try:
        place = ObjectPath.at(checked_address(path), options_of_stores(storage_options))
    except ValueError as error:
        raise ConfigError(f"{redacted(path)}: is no address; expected {error}.") from None
    try:
        place.exists()
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"{place}: {error}; expected one with an output in it. Check the address.") from error
    return place
