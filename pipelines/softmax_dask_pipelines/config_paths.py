"""The templates in the paths of a config's nested dicts, filled in before anything is checked. Reads no file."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date
from typing import Any, TypeVar

from softmax_dask_pipelines.config_schedule import day_of, zone_of
from softmax_dask_pipelines.errors import ConfigError
from softmax_dask_pipelines.notices import NoteWarning
from softmax_dask_pipelines.templates import filled, has_date, meant_otherwise, pattern_of

T = TypeVar("T")
Keys = tuple[str, ...]
Where = Callable[[Sequence[str | int]], str]
"""From the place of a value in the config to what an error begins with: a file and line, a flag, a key."""

_OUTPUT: Keys = ("output", "path")
_PREVIOUS: Keys = ("expect", "label_share_shift", "previous")
_DOCUMENTS: tuple[Keys, ...] = (("train_priors",), ("target_priors",), ("calibration",), ("accept",), ("conformal",))
_PATHS: tuple[Keys, ...] = (("source", "path"), ("source", "classes"), _OUTPUT, _PREVIOUS, *_DOCUMENTS)


def fill_paths(data: dict[str, Any], where: Where) -> None:
    """Fill in the templates of every path in `data`; where one has a date, `date` becomes the day that was meant.

    Raises
    ------
    ConfigError
        A template is none, a variable is not set, or a date is given that no path has a place for.
    """
    texts = {keys: text for keys in _PATHS if isinstance(text := _value(data, keys), str)}
    dated = [keys for keys, text in texts.items() if _of_template(has_date, text, where(keys))]
    day = _day(data, where)
    if dated:
        data["date"] = day.isoformat()
    elif data.get("date") is not None:
        raise ConfigError(
            f"{where(('date',))}: is {data['date']}, but no path of the config depends on it; expected a template such "
            "as {date:%Y-%m-%d} in source.path or output.path. Write one, or leave the date out."
        )
    for keys, text in texts.items():
        otherwise = meant_otherwise(text)
        if otherwise is not None:
            warnings.warn(f"{where(keys)}: {otherwise}", NoteWarning, stacklevel=4)
        _put(data, keys, _of_template(lambda text: filled(text, day, os.environ), text, where(keys)))
    if _OUTPUT in dated:
        _look_for_other_days(data, texts[_OUTPUT])


def _day(data: Mapping[str, Any], where: Where) -> date:
    zone_name, day = data.get("timezone"), data.get("date")
    zone = UTC if zone_name is None else _of_text(zone_of, str(zone_name), where(("timezone",)))
    return _of_text(lambda text: day_of(text, zone), "today" if day is None else str(day), where(("date",)))


def _look_for_other_days(data: dict[str, Any], output: str) -> None:
    """Have the outputs of all days looked through for the previous run."""
    shift = _value(data, _PREVIOUS[:-1])
    if isinstance(shift, dict) and shift.get("previous") is None:
        shift["previous"] = pattern_of(output, os.environ)


def _of_template(function: Callable[[str], T], text: str, begin: str) -> T:
    try:
        return function(text)
    except ValueError as error:
        raise ConfigError(f"{begin}: {error}") from None


def _of_text(function: Callable[[str], T], text: str, begin: str) -> T:
    try:
        return function(text)
    except ValueError as error:
        raise ConfigError(f"{begin}: is {text!r}; expected {error}.") from None


def _value(data: Any, keys: Keys) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def _put(data: dict[str, Any], keys: Keys, value: str) -> None:
    *outer, last = keys
    for key in outer:
        data = data[key]
    data[last] = value
