"""The small JSON documents that fits come to: a format, a version, and named values that are checked when read."""

import json
import math
from typing import Any

from softmax_dask.errors import CalibrationError


def json_of(kind: str, version: int, facts: dict[str, Any]) -> str:
    """A document of that kind."""
    return json.dumps({"format": f"softmax-dask {kind}", "version": version, **facts}, indent=2, allow_nan=False) + "\n"


def facts_of(text: str, kind: str, version: int) -> dict[str, Any]:
    """What `json_of` was given.

    Raises
    ------
    CalibrationError
        The text is no document of that kind and version.
    """
    expected = f"a {kind} that softmax-dask wrote"
    try:
        given = json.loads(text)
    except ValueError as error:
        raise CalibrationError(f"is no JSON ({error}); expected {expected}.") from error
    if not isinstance(given, dict) or given.pop("format", None) != f"softmax-dask {kind}":
        raise CalibrationError(f"is no {kind}; expected {expected}.")
    found = given.pop("version", None)
    if found != version:
        raise CalibrationError(f"has version {found!r}; expected {version}. Make it anew.")
    return given


def number(facts: dict[str, Any], name: str, low: float, high: float) -> float:
    """Take a number from `low` to `high` out of the facts."""
    value = facts.pop(name, None)
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not known or not low <= value <= high:
        raise CalibrationError(f"{name} is {value!r}; expected a number from {low:g} to {high:g}.")
    return float(value)
