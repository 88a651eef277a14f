"""What is asked of an output's place before anything is read or written: apart from its source, and with room."""

import os
import shutil
import warnings
from pathlib import Path

from softmax_dask_pipelines.addresses import is_address
from softmax_dask_pipelines.config_store import StorageOptions
from softmax_dask_pipelines.errors import ConfigError, DiskFullError, PathConflictError
from softmax_dask_pipelines.notices import RoomWarning
from softmax_dask_pipelines.object_path import ObjectPath
from softmax_dask_pipelines.sinks import job_folder
from softmax_dask_pipelines.sources import SourceFacts
from softmax_dask_pipelines.sources.formats import ZARR_FILES
from softmax_dask_pipelines.sources.parquet_paths import source_files

_LONGEST_NAME = 255
"""Bytes of a file's name, on every common file system."""

_BEST_COMPRESSION = 1 / 50
"""Results are never written smaller than this: labels that hardly change, say."""


def checked_address_of_output(output: str, source: str, options: StorageOptions | None) -> ObjectPath:
    """Where an output in an object store goes.

    Raises
    ------
    PathConflictError
        It is, holds or lies in the source.
    """
    one, other = f"{output}/", f"{source.rstrip('/')}/"
    if one.startswith(other) or other.startswith(one) or other.startswith(f"{output}.job/"):
        raise PathConflictError(
            f"{output}: is, holds or lies inside the source {source}; expected an address apart from it."
        )
    return ObjectPath.at(output, options)


def checked_output(output: str, source: str, classes: str | None) -> Path:
    """Where the output goes: behind a symbolic link, so that replacing it does not replace the link.

    Raises
    ------
    PathConflictError, ConfigError
        It is, holds or lies in the source or the class names; its folder cannot be made.
    """
    path = _behind_link(Path(output))
    if not is_address(source):
        _require_apart(source, path)
    _require_own_place(path, classes)
    _require_folder_above(path)
    return path


def require_apart_from_files(facts: SourceFacts, output: Path) -> None:
    """Refuse an output that is one of the files which a pattern or a folder of links stands for."""
    if facts.format != "parquet" or is_address(facts.path):
        return
    there = output.resolve()
    files = [Path(file).resolve() for file in source_files(Path(facts.path))]
    if any(there == file or there in file.parents for file in files):
        raise PathConflictError(f"{output}: is part of the source {facts.path}; expected another path for the output.")


def require_room(output: Path, bytes_out: int) -> None:
    """Refuse what cannot fit the disk however well it is compressed, and warn of what may not fit."""
    folder = next(above for above in output.absolute().parents if above.exists())
    free = shutil.disk_usage(folder).free
    if bytes_out * _BEST_COMPRESSION > free:
        raise DiskFullError(
            f"{output}: needs up to {bytes_out:,} bytes, and {folder} has {free:,} left; expected more room. "
            "Free some, ask for fewer columns or --dtype float16, and run the same command again."
        )
    if bytes_out > 0.8 * free:
        text = f"{output}: may need {bytes_out:,} bytes before compression, and {folder} has {free:,} left."
        warnings.warn(text, RoomWarning, stacklevel=4)


def _behind_link(path: Path) -> Path:
    resolved = path.resolve() if path.is_symlink() and path.exists() else path
    if len(os.fsencode(job_folder(resolved).name)) > _LONGEST_NAME:
        raise ConfigError(f"{path}: has a name that is too long; expected at most {_LONGEST_NAME - 4} bytes.")
    return resolved


def _require_apart(source: str, output: Path) -> None:
    """Refuse an output that is the input, lies in it or around it, by any spelling of the path."""
    here, there = Path(source.removeprefix("file://")).resolve(), output.resolve()
    if here == there:
        raise PathConflictError(f"{output}: is the source itself; expected another path for the output.")
    if here in there.parents:
        raise PathConflictError(f"{output}: lies inside the source {source}; expected a path outside of it.")
    if there in here.parents:
        raise PathConflictError(f"{output}: holds the source {source}; expected a path that does not contain it.")
    job = job_folder(there)
    if job == here or job in here.parents:
        raise PathConflictError(f"{output}: works in {job}, where the source is; expected another path.")


def _require_own_place(output: Path, classes: str | None) -> None:
    """Refuse an output in someone's Zarr store, or over the class names."""
    there = output.resolve()
    store = next((folder for folder in there.parents if any((folder / name).exists() for name in ZARR_FILES)), None)
    if store is not None:
        raise PathConflictError(f"{output}: lies inside the Zarr store {store}; expected a path outside of it.")
    names = None if classes is None else Path(classes).resolve()
    if names is not None and (names == there or there in names.parents):
        raise PathConflictError(f"{output}: holds the class names {classes}; expected another path for the output.")


def _require_folder_above(output: Path) -> None:
    above = next(folder for folder in output.absolute().parents if os.path.lexists(folder))
    if not above.is_dir():
        raise ConfigError(
            f"{output}: cannot be made, because {above} is a file; expected a folder. Choose another path."
        )
