"""What the verbs that read a dump and write one small document may be told, and what any config file may hold."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema, field_validator

from softmax_dask_pipelines.config_models import (
    EvaluateConfig,
    JacobianConfig,
    LocalPath,
    MemoryLimit,
    ScoreConfig,
    SourceConfig,
    Temperature,
    Threads,
)
from softmax_dask_pipelines.config_schedule import Day, OnMissing, Retries, Section, Zone, no_bool

Share = Annotated[
    float,
    BeforeValidator(no_bool),
    Field(gt=0, lt=1),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}),
]


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
    memory_limit: MemoryLimit = None
    threads: Threads | None = Field(None, description="rows are read by this many threads; all cores")
    date: Day = None
    timezone: Zone = "UTC"
    on_missing: OnMissing = "error"
    retries: Retries = 2

    @field_validator("target_priors")
    @classmethod
    def _require_both(cls, value: str | None, info: ValidationInfo) -> str | None:
        if (value is None) != (info.data.get("train_priors") is None):
            raise ValueError("both train_priors and target_priors, or none of them")
        return value


class ThresholdConfig(Section):
    """The confidence from which on decisions may be accepted."""

    verb: Literal["threshold"] = Field(description="what to do")
    source: SourceConfig = Field(description="a dump with targets; or an output of score with confidence and correct")
    output: DocumentConfig = Field(description="where the threshold goes")
    precision: Share = Field(description="share of the accepted rows that must be right, such as 0.99")
    delta: Share = Field(0.05, description="how probable it may be that fewer are")
    temperature: Temperature = 1.0
    calibration: LocalPath | None = Field(None, description="file that calibrate wrote")
    memory_limit: MemoryLimit = None
    threads: Threads | None = Field(None, description="rows are read by this many threads; all cores")
    date: Day = None
    timezone: Zone = "UTC"
    on_missing: OnMissing = "error"
    retries: Retries = 2


class ConformalConfig(Section):
    """The level of sets of classes that hold the true one."""

    verb: Literal["conformal"] = Field(description="what to do")
    source: SourceConfig = Field(description="where logits and targets are; what is left out here is found out")
    output: DocumentConfig = Field(description="where the level goes")
    alpha: Share = Field(0.1, description="how often the true class may be missing in a set")
    temperature: Temperature = 1.0
    calibration: LocalPath | None = Field(None, description="file that calibrate wrote")
    memory_limit: MemoryLimit = None
    threads: Threads | None = Field(None, description="rows are read by this many threads; all cores")
    date: Day = None
    timezone: Zone = "UTC"
    on_missing: OnMissing = "error"
    retries: Retries = 2


FitConfig = CalibrateConfig | ThresholdConfig | ConformalConfig
"""A dump in, a document out."""

Config = ScoreConfig | JacobianConfig | EvaluateConfig | FitConfig
"""What a config file may hold; `verb` tells which."""

MODELS: dict[str, type[Config]] = {
    "score": ScoreConfig,
    "compact": ScoreConfig,
    "jacobian": JacobianConfig,
    "evaluate": EvaluateConfig,
    "calibrate": CalibrateConfig,
    "threshold": ThresholdConfig,
    "conformal": ConformalConfig,
}
"""Verb -> what its configs hold."""
