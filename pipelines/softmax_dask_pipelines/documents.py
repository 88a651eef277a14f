"""Small JSON documents that one verb writes and another one applies: calibrations, thresholds, levels of sets."""

import json
import os
from pathlib import Path
from typing import Any

from softmax_dask_pipelines import storage
from softmax_dask_pipelines.errors import ConfigError, OutputExistsError, PermissionDeniedError

MAX_BYTES = 64 * 2**20
"""Of a document: a calibration with priors has a number a class."""
_FORMATS = "softmax-dask "


def write_document(path: Path, text: str, *, replace: bool) -> int:
    """Write it where nothing is yet, or in place of another document; bytes written. It is whole, or not there.

    Raises
    ------
    OutputExistsError
        Something is there, and may not be replaced.
    """
    storage.make_folder(path.absolute().parent)
    data = text.encode()
    if replace:
        require_replaceable(path)
        return storage.put(path, [data])
    if not storage.put_new(path, [data]):
        raise _exists(path)
    return len(data)


def require_free(path: Path, *, replace: bool) -> None:
    """Refuse before anything is read what `write_document` would refuse.

    Raises
    ------
    OutputExistsError
        Something is there, and may not be replaced.
    """
    if replace:
        require_replaceable(path)
    elif os.path.lexists(path):
        raise _exists(path)


def require_replaceable(path: Path) -> None:
    """Refuse to replace what is no document of ours."""
    if not os.path.lexists(path):
        return
    try:
        given = json.loads(read_document(str(path), expected="a document"))
    except (ValueError, ConfigError):
        given = None
    if not isinstance(given, dict) or not str(given.get("format")).startswith(_FORMATS):
        raise OutputExistsError(
            f"{path}: is something else than a document of softmax-dask; expected one to replace, or nothing. "
            "Choose another path."
        )


def read_document(path: str, *, expected: str) -> str:
    """The text of a file of at most `MAX_BYTES`.

    Raises
    ------
    ConfigError, PermissionDeniedError
        It is not there, no text, or cannot be read.
    """
    try:
        with open(path.removeprefix("file://"), "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(f"{path}: is larger than {MAX_BYTES:,} bytes; expected {expected}.")
        return data.decode()
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: is not there; expected {expected}. Check the path.") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path}: is a folder; expected {expected}.") from error
    except PermissionError as error:
        raise PermissionDeniedError(f"{path}: cannot be read; expected a file that you may read.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is no text; expected {expected}.") from error


def numbers_of(path: str) -> list[float]:
    """A number a class, from a file: a JSON list, or one a line."""
    text = read_document(path, expected="a number a class")
    try:
        given: Any = json.loads(text) if text.lstrip().startswith("[") else [float(line) for line in text.split()]
        return [float(each) for each in given]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: holds something else than numbers; expected one a line, or a JSON list.") from error


def _exists(path: Path) -> OutputExistsError:
    return OutputExistsError(f"{path}: is there already; expected a path where nothing is yet. Use --replace.")
