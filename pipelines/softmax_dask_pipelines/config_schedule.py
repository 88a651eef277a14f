"""What a config says of its schedule: the day it is about, and what a run is expected to come to. Reads no file."""

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

_ISO = re.compile(r"\d{4}-\d{2}-\d{2}")
_DAYS = {"today": timedelta(0), "yesterday": timedelta(1)}


def day_of(text: str, zone: tzinfo) -> date:
    """The day that a text such as 2026-11-26, today or yesterday means.

    Raises
    ------
    ValueError
        It means none; the message is what was expected.
    """
    if text in _DAYS:
        return datetime.now(zone).date() - _DAYS[text]
    try:
        if not _ISO.fullmatch(text):
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError("a day such as 2026-11-26, today or yesterday") from None


def zone_of(name: str) -> tzinfo:
    """The time zone of that name.

    Raises
    ------
    ValueError
        There is none; the message is what was expected.
    """
    if name == "UTC":
        return UTC  # also where the system has no list of time zones
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("a time zone that this system knows, such as UTC or Europe/Berlin") from None


def no_bool(value: Any) -> Any:
    """Pydantic takes true as 1, and YAML reads `yes` and `on` as true."""
    if isinstance(value, bool):
        raise ValueError("a number")
    return value


def _known_day(text: str) -> str:
    day_of(text, UTC)
    return text


def _known_zone(name: str) -> str:
    zone_of(name)
    return name


Day = Annotated[
    Annotated[str, AfterValidator(_known_day)] | None,
    Field(description="day of {date:%Y-%m-%d} in paths: 2026-11-26, yesterday, or today"),
]
Zone = Annotated[str, AfterValidator(_known_zone), Field(description="where it is today, such as Europe/Berlin")]
OnMissing = Annotated[
    Literal["error", "retry", "nothing"],
    Field(description="a source that is not there yet: exit 2 (error), 75 (retry) or 0 (nothing)"),
]
Retries = Annotated[
    int,
    BeforeValidator(no_bool),
    Field(ge=0, le=100),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 100}),
    Field(description="how often what fails because a storage is away is tried again"),
]
_Rows = Annotated[int, BeforeValidator(no_bool), Field(ge=0), WithJsonSchema({"type": "integer", "minimum": 0})]
_Fraction = Annotated[
    float,
    BeforeValidator(no_bool),
    Field(ge=0, le=1),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1}),
]


class Section(BaseModel):
    """A section of a config: keys of its own, and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RowsExpected(Section):
    """Bounds of the number of rows."""

    min: _Rows | None = Field(None, description="fewest rows")
    max: _Rows | None = Field(None, description="most rows")

    @model_validator(mode="after")
    def _require_bounds(self) -> "RowsExpected":
        _require_order(self.min, self.max)
        return self


class ConfidenceExpected(Section):
    """Bounds of the mean confidence."""

    min: _Fraction | None = Field(None, description="smallest mean of the largest probabilities")
    max: _Fraction | None = Field(None, description="largest mean of the largest probabilities")

    @model_validator(mode="after")
    def _require_bounds(self) -> "ConfidenceExpected":
        _require_order(self.min, self.max)
        return self


class NonfiniteExpected(Section):
    """A bound of the undecidable rows."""

    max: _Fraction = Field(description="largest fraction of rows with NaN, +inf or only -inf")


class ShiftExpected(Section):
    """A bound of the distance from the previous run."""

    max: _Fraction = Field(description="largest total variation distance: the share of rows with another label")
    previous: str | None = Field(
        None,
        min_length=1,
        description="pattern of outputs, of which the last one before this run counts; output.path on any day",
    )


class Expectations(Section):
    """What a run must come to, or nothing is published."""

    rows: RowsExpected | None = Field(None, description="how many rows; any number")
    nonfinite_fraction: NonfiniteExpected | None = Field(None, description="how many undecidable rows; any number")
    mean_confidence: ConfidenceExpected | None = Field(None, description="how sure the model is on average; any figure")
    label_share_shift: ShiftExpected | None = Field(
        None, description="how far the shares of the labels may be from those of the previous run; any distance"
    )


def _require_order(least: float | None, most: float | None) -> None:
    if least is None and most is None:
        raise ValueError("min, max or both")
    if least is not None and most is not None and least > most:
        raise ValueError("a min that is not above max")
