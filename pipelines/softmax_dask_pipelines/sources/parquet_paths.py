"""Which files a Parquet source is made of: one file, a folder, or all that a pattern matches. Reads no data."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from softmax_dask_pipelines.errors import ConfigError, PermissionDeniedError, SourceFormatError
from softmax_dask_pipelines.sources.names import natural_key

MAGIC = b"PAR1"
"""First and last bytes of every Parquet file."""

NULL_KEY = "__HIVE_DEFAULT_PARTITION__"
"""What Hive and Spark write for a null."""


def parquet_files(folder: Path) -> Iterator[Path]:
    """The *.parquet files of a folder, at any depth; names that begin with `_` or `.` are not data."""
    walked: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        walked.add(os.path.realpath(parent))
        # A link to a folder that was walked already would go round in circles.
        folders[:] = [name for name in folders if is_data(name) and _target(parent, name) not in walked]
        for name in files:
            if name.endswith(".parquet") and is_data(name):
                yield Path(parent, name)


def is_pattern(path: Path) -> bool:
    """Whether `path` is to be matched (`*`, `?`, `[..]`): a file whose name just has brackets is itself."""
    return glob.has_magic(str(path)) and not path.exists()


def matched_files(pattern: Path) -> Iterator[Path]:
    """The Parquet files that `pattern` matches, and those in the folders that it matches; some may come twice."""
    root = _root(pattern)
    # Relative to a folder that is there: brackets in that folder's own name are no pattern.
    for name in glob.iglob(str(pattern.relative_to(root)), root_dir=root, recursive=True):
        match = root / name
        if not all(map(is_data, Path(name).parts)):
            continue
        if match.is_dir():
            yield from parquet_files(match)
        elif match.suffix == ".parquet" or begins_with_magic(match):
            yield match


def source_files(path: Path) -> list[str]:
    """All files of the source at `path`: part-2 before part-10."""
    if is_pattern(path):
        found = set(map(str, matched_files(path)))
    elif path.is_dir():
        found = set(map(str, parquet_files(path)))
    else:
        found = {str(path)}
    if not found:
        raise SourceFormatError(f"{path}: holds no *.parquet files; expected at least one. Check the path.")
    # `part-1` and `part-01` have one natural key: their text decides.
    files = sorted(found, key=lambda file: (natural_key(file), file))
    for file in files:
        _require_usable(file)
    return files


def name_in(source: Path, file: str) -> str:
    """A file's name inside its source: that of a source that is one file, else a path below the folder."""
    return os.path.basename(file) if _root(source) == Path(file) else os.path.relpath(file, _root(source))


def hive_keys(file: str, source: Path) -> tuple[tuple[str, str | None], ...]:
    """Names and values of the `key=value` folders between the source and one of its files."""
    folders = Path(file).relative_to(_root(source)).parts[:-1]
    pairs = (folder.split("=", 1) for folder in folders if "=" in folder)
    return tuple((unquote(key), None if value == NULL_KEY else unquote(value)) for key, value in pairs)


def begins_with_magic(path: Path) -> bool:
    """Whether this is a Parquet file, whatever its name."""
    if not path.is_file():  # opening a pipe would wait for its writer
        return False
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except PermissionError as error:
        raise PermissionDeniedError(
            f"{path}: cannot be read; expected read permission. Check its owner and mode."
        ) from error


def _require_usable(file: str) -> None:
    """Refuse what pyarrow cannot be given: a name that is no text, a pipe that it would wait for."""
    try:
        file.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{file}: is a name that is not UTF-8; expected one that is. Rename it, or link to it by another."
        ) from error
    if os.path.exists(file) and not os.path.isfile(file):
        raise SourceFormatError(f"{file}: is a pipe, a socket or a device; expected a Parquet file. Move it away.")


def _root(path: Path) -> Path:
    """The path if it is there; of a pattern, the deepest folder above it that is."""
    return next(place for place in (path, *path.parents) if place.exists())


def _target(parent: str, name: str) -> str:
    return os.path.realpath(os.path.join(parent, name))


def is_data(name: str) -> bool:
    """Whether a file or folder of that name is data, and not what a writer keeps there."""
    return not name.startswith(("_", "."))
