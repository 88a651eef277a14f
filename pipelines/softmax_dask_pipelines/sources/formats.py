"""What lies at a path: is it there, may it be read, and which format is it? Opens no data."""

import os
from pathlib import Path

from softmax_dask_pipelines.errors import (
    PermissionDeniedError,
    SourceAbsentError,
    SourceFormatError,
    SourceNotFoundError,
)
from softmax_dask_pipelines.sources.names import nearest
from softmax_dask_pipelines.sources.parquet_paths import begins_with_magic, is_pattern, matched_files, parquet_files
from softmax_dask_pipelines.sources.protocol import Format

ZARR_FILES = ("zarr.json", ".zarray", ".zgroup", ".zmetadata")
"""Any of these makes a folder a Zarr array or group."""
DOCUMENT_BYTES = 16 << 20
"""Of any of these: more is refused."""

_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
_NPY_MAGIC = b"\x93NUMPY"
_READ = (
    "Read are: a Zarr v2 or v3 group or array, in a folder or zip file, a Parquet file, a folder of *.parquet "
    "files, a .npy file."
)


def existing_path(given: str) -> Path:
    """Absolute path of `given`, a local path or pattern or a `file://` URL, once something readable is there."""
    path = Path(os.path.abspath(given.removeprefix("file://")))
    if not _can_be_looked_up(path):
        raise PermissionDeniedError(f"{path}: cannot be looked up; expected a path into folders that may be read.")
    if is_pattern(path):
        return _matching(path)
    if not path.exists():
        raise _not_found(path)
    if not (path.is_dir() or path.is_file()):  # opening a pipe would wait for its writer
        raise SourceNotFoundError(
            f"{path}: is a pipe, a socket or a device; expected logits in a file or folder. Write them to a file first."
        )
    if not os.access(path, os.R_OK | os.X_OK if path.is_dir() else os.R_OK):
        raise PermissionDeniedError(f"{path}: cannot be read; expected read permission. Check its owner and mode.")
    if path.is_dir() and not _holds_data(path):
        raise SourceAbsentError(f"{path}: is a folder with no data in it; expected logits. {_READ}")
    return path


def format_of(path: Path) -> Format:
    """Format of what lies at `path`."""
    if path.is_dir():
        return _format_of_folder(path)
    if is_pattern(path) or path.suffix == ".parquet" or begins_with_magic(path):
        return "parquet"
    if path.suffix == ".npy" or _begins_as(path, _NPY_MAGIC):
        return "npy"
    if path.suffix == ".npz":
        raise SourceFormatError(f"{path}: is an .npz file; expected logits. Write the array with numpy.save. {_READ}")
    if _begins_as(path, *_ZIP_MAGIC):
        return "zarr"
    raise SourceFormatError(f"{path}: is a file that is not Parquet, .npy or zip; expected logits. {_READ}")


def _can_be_looked_up(path: Path) -> bool:
    """False where a folder above keeps us out."""
    try:
        path.exists()
    except PermissionError:
        return False
    except OSError as error:
        raise SourceNotFoundError(f"{path}: is no path ({error.strerror}); expected logits. Check it.") from error
    return True


def _holds_data(folder: Path) -> bool:
    """Whether there is more than what writers keep there until they have finished, such as Spark's `_temporary`."""
    with os.scandir(folder) as entries:
        return any(entry.name in ZARR_FILES or not entry.name.startswith(("_", ".")) for entry in entries)


def _matching(pattern: Path) -> Path:
    if next(matched_files(pattern), None) is None:
        raise SourceAbsentError(f"{pattern}: matches no Parquet file; expected at least one. Check the pattern.")
    return pattern


def _format_of_folder(folder: Path) -> Format:
    if any((folder / name).is_file() for name in ZARR_FILES):
        return "zarr"
    if next(parquet_files(folder), None) is not None:
        return "parquet"
    names = sorted(os.listdir(folder))
    inside = f"holds {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
    raise SourceFormatError(f"{folder}: is a folder that {inside}; expected logits. {_READ}")


def _begins_as(path: Path, *magics: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(magics[0])) in magics


def _not_found(path: Path) -> SourceAbsentError:
    missing = next(part for part in (*reversed(path.parents), path) if not part.exists())
    folder = missing.parent
    siblings = os.listdir(folder) if os.access(folder, os.R_OK) and folder.is_dir() else []
    hint = nearest(missing.name, siblings) or " Check the path."
    return SourceAbsentError(f"{path}: there is no {missing.name!r} in {folder}; expected logits.{hint}")
