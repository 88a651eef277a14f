"""What lies at a path: is it there, may it be read, and which format is it? Opens no data."""

import os
from collections.abc import Iterator
from pathlib import Path

from softmax_dask_pipelines.errors import PermissionDeniedError, SourceFormatError, SourceNotFoundError
from softmax_dask_pipelines.sources.names import nearest
from softmax_dask_pipelines.sources.protocol import Format

ZARR_FILES = ("zarr.json", ".zarray", ".zgroup", ".zmetadata")
"""Any of these makes a folder a Zarr array or group."""

_PARQUET_MAGIC = b"PAR1"
_READ = "Read are: a Zarr v2 or v3 group or array, a Parquet file, a folder of *.parquet files."


def existing_path(given: str) -> Path:
    """Absolute path of `given`, a local path or a `file://` URL, once something readable is there."""
    path = Path(os.path.abspath(given.removeprefix("file://")))
    if not path.exists():
        raise _not_found(path)
    if not os.access(path, os.R_OK | os.X_OK if path.is_dir() else os.R_OK):
        raise PermissionDeniedError(f"{path}: cannot be read; expected read permission. Check its owner and mode.")
    return path


def format_of(path: Path) -> Format:
    """Format of what lies at `path`."""
    if path.is_dir():
        return _format_of_folder(path)
    if path.suffix == ".parquet" or _begins_with_magic(path):
        return "parquet"
    raise SourceFormatError(f"{path}: is a file that is not Parquet; expected logits. {_READ}")


def parquet_files(folder: Path) -> Iterator[Path]:
    """The *.parquet files of a folder, at any depth; names that begin with `_` or `.` are not data."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(("_", "."))]
        for name in files:
            if name.endswith(".parquet") and not name.startswith(("_", ".")):
                yield Path(parent, name)


def _format_of_folder(folder: Path) -> Format:
    if any((folder / name).is_file() for name in ZARR_FILES):
        return "zarr"
    if next(parquet_files(folder), None) is not None:
        return "parquet"
    names = sorted(os.listdir(folder))
    inside = f"holds {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}" if names else "is empty"
    raise SourceFormatError(f"{folder}: is a folder that {inside}; expected logits. {_READ}")


def _begins_with_magic(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC


def _not_found(path: Path) -> SourceNotFoundError:
    missing = next(part for part in (*reversed(path.parents), path) if not part.exists())
    folder = missing.parent
    siblings = os.listdir(folder) if os.access(folder, os.R_OK) and folder.is_dir() else []
    hint = nearest(missing.name, siblings) or " Check the path."
    return SourceNotFoundError(f"{path}: there is no {missing.name!r} in {folder}; expected logits.{hint}")
