"""What the verbs that read a dump and write one small document may be told, and what any config file may hold."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema, field_validator

from softmax_dask_pipelines.config_models import (
    Bytes,
    JacobianConfig,
    ScoreConfig,
    SourceConfig,
    Threads,
    local_path,
)
from softmax_dask_pipelines.config_schedule import Day, Retries, Section, Zone, no_bool

Share = Annotated[
    float,
    BeforeValidator(no_bool),
    Field(gt=0, lt=1),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}),
]
LocalPath = Annotated[str, Field(min_length=1), AfterValidator(local_path)]


class DocumentConfig(Section):
    """Where the document goes."""

    path: LocalPath = Field(description="a JSON file that is not there yet; relative to the working directory")


class CalibrateConfig(Section):
    """The temperature of a labelled dump."""

    verb: Literal["calibrate"] = Field(description="what to do")
    source: SourceConfig = Field(description="where logits and targets are; what is left out here is found out")
    output: DocumentConfig = Field(description="where the calibration goes")
    fit_on: Literal["half", "all"] = Field(
        "half", description="half: of the rows, by their ids, and the report is of the others; all: both of all rows"
    )
    train_priors: LocalPath | None = Field(
        None, description="file of a number a class: how frequent it was where the model learned; no correction"
    )
    target_priors: LocalPath | None = Field(
        None, validate_default=True, description="the same of where the model is used, as the targets of this dump are"
    )
    memory_limit: Bytes | None = Field(None, description="of the whole process, such as 2GiB; half of what is free")
    threads: Threads | None = Field(None, description="rows are read by this many threads; all cores")
    date: Day | None = Field(None, description="day of {date:%Y-%m-%d} in paths: 2026-11-26, yesterday, or today")
    timezone: Zone = Field("UTC", description="where it is today, such as Europe/Berlin")
    on_missing: Literal["error", "retry", "nothing"] = Field(
        "error", description="a source that is not there yet: exit 2 (error), 75 (retry) or 0 (nothing)"
    )
    retries: Retries = Field(2, description="how often what fails because a storage is away is tried again")

    @field_validator("target_priors")
    @classmethod
    def _require_both(cls, value: str | None, info: ValidationInfo) -> str | None:
        if (value is None) != (info.data.get("train_priors") is None):
            raise ValueError("both train_priors and target_priors, or none of them")
        return value


FitConfig = CalibrateConfig
"""A dump in, a document out."""

Config = ScoreConfig | JacobianConfig | CalibrateConfig
"""What a config file may hold; `verb` tells which."""

MODELS: dict[str, type[Config]] = {"score": ScoreConfig, "jacobian": JacobianConfig, "calibrate": CalibrateConfig}
"""Verb -> what its configs hold."""
