"""The documents that a run leaves in OUTPUT.job for later runs: JSON, with a format version, written whole."""

import json
from typing import Any

from softmax_dask_pipelines import storage
from softmax_dask_pipelines.errors import OutputExistsError
from softmax_dask_pipelines.object_path import AnyPath

FORMAT = 1
"""Of plans, journals and commits; raised when a program of before could misread what is written now."""

PROGRAM = "softmax-dask"


def record(kind: str, fields: dict[str, Any]) -> bytes:
    """The document of a plan, a commit or a journal's first line."""
    return json.dumps({"program": PROGRAM, "kind": kind, "format": FORMAT, **fields}).encode()


def read_record(path: AnyPath, kind: str) -> dict[str, Any]:
    """What is in a document of that kind.

    Raises
    ------
    OutputExistsError
        It is none, or of another version of the format.
    """
    with storage.plain_errors(path):
        data = path.read_bytes()
    return parse_record(data, kind, path)


def parse_record(data: bytes, kind: str, path: AnyPath) -> dict[str, Any]:
    """The document in these bytes, which are those of `path`."""
    try:
        document = json.loads(data)
    except ValueError:
        document = None
    if not isinstance(document, dict) or (document.get("program"), document.get("kind")) != (PROGRAM, kind):
        raise OutputExistsError(
            f"{path}: was not left there by a run that is known; expected nothing of that name beside the "
            "output. Move it away, or choose another path for the output."
        )
    if document.get("format") != FORMAT:
        age = "a newer" if _is_newer(document.get("format")) else "an older"
        raise OutputExistsError(
            f"{path}: has format {document.get('format')}, of {age} version of this program; expected {FORMAT}. "
            f"Use that version, or move {path.parent} away and start over with --replace."
        )
    return document


def _is_newer(version: object) -> bool:
    return isinstance(version, int) and version > FORMAT
