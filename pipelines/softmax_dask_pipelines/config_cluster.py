"""What a config says of where partitions are scored: threads, processes, or a Dask cluster. Imports no Dask cluster."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from softmax_dask_pipelines.config_schedule import Section, no_bool

PREFIXES = (
    "dask_cloudprovider.",
    "dask_cuda.",
    "dask_gateway.",
    "dask_jobqueue.",
    "dask_kubernetes.",
    "dask_yarn.",
    "distributed.",
)
"""What the name of a cluster class may begin with: a config must not be able to run anything else."""

_PACKAGES = ", ".join(prefix.rstrip(".") for prefix in PREFIXES)
_ADDRESS = re.compile(r"([a-z]+://)?(\[[0-9a-fA-F:]+\]|[^\s/:]+):(?P<port>\d+)")
_CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_WORDS = ("local", "processes")

Kind = Literal["local", "processes", "connect", "class"]

_Count = Annotated[
    int,
    BeforeValidator(no_bool),
    Field(ge=1, le=100_000),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 100_000}),
]
_Seconds = Annotated[
    float, BeforeValidator(no_bool), Field(gt=0, le=1e7), WithJsonSchema({"type": "number", "exclusiveMinimum": 0})
]
_KEYS_OF: dict[str, Kind] = {
    "connect": "connect",
    "class": "class",
    "kwargs": "class",
    "scale": "class",
    "adapt": "class",
    "workers": "processes",
}
"""Key -> the only kind of cluster that it is for."""


class ClusterConfig(Section):
    """Where partitions are scored. One word, `local` or `processes`, stands for a section with that kind."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, serialize_by_alias=True)

    kind: Kind = Field(
        "local", description="local: threads; processes: workers on this machine; connect, class: what the keys say"
    )
    workers: _Count | None = Field(None, description="processes: how many; left out: as many as suit the cores")
    connect: str | None = Field(
        None, min_length=1, description="address of a scheduler, such as tls://host:8786, or its scheduler file"
    )
    class_name: str | None = Field(
        None,
        alias="class",
        description=f"a Dask cluster class by its name; of {_PACKAGES}",
    )
    kwargs: dict[str, Any] | None = Field(None, description="class: its arguments")
    scale: _Count | None = Field(None, description="class: how many workers")
    adapt: dict[str, Any] | None = Field(
        None, description="class: as many workers as there is work for, such as {minimum: 0, maximum: 20}"
    )
    wait_s: _Seconds = Field(
        600.0, description="so long a run waits for workers where there are none; then it ends with exit code 75"
    )
    dashboard: bool = Field(
        False, description="print the address of Dask's dashboard; processes: start one, on 127.0.0.1"
    )

    @property
    def is_address(self) -> bool:
        """Whether `connect` is an address; else it is a scheduler file."""
        return self.connect is not None and _ADDRESS.fullmatch(self.connect) is not None

    @model_validator(mode="before")
    @classmethod
    def _of_a_word(cls, value: Any) -> Any:
        """Read a word as a section, and the kind out of the keys."""
        if isinstance(value, str):
            if value not in _WORDS:
                raise ValueError("local, processes, or a section with connect: or class:")
            return {"kind": value}
        if isinstance(value, dict) and "kind" not in value:
            kind = next((_KEYS_OF[key] for key in value if key in _KEYS_OF), "local")
            return {"kind": kind, **value}
        return value

    @field_validator("connect")
    @classmethod
    def _require_port(cls, where: str | None) -> str | None:
        found = _ADDRESS.fullmatch(where or "")
        if (found is not None and not 0 < int(found["port"]) < 1 << 16) or (found is None and "://" in (where or "")):
            raise ValueError("an address with a port, such as tcp://127.0.0.1:8786 or tls://host:8786, or a file")
        return where

    @field_validator("class_name")
    @classmethod
    def _require_allowed(cls, name: str | None) -> str | None:
        if name is not None and not (_CLASS.fullmatch(name) and name.startswith(PREFIXES)):
            raise ValueError(f"a class of {_PACKAGES}")
        return name

    @model_validator(mode="after")
    def _require_one_kind(self) -> "ClusterConfig":
        given = {"class": self.class_name}
        for key, kind in _KEYS_OF.items():
            if kind != self.kind and given.get(key, getattr(self, key, None)) is not None:
                raise ValueError(f"no {key}: with kind {self.kind}; it is for kind {kind}")
        if self.kind == "connect" and self.connect is None:
            raise ValueError("connect: ADDRESS or connect: SCHEDULER_FILE with kind connect")
        if self.kind == "class":
            self._require_workers()
        if self.kind == "local" and self.dashboard:
            raise ValueError("no dashboard: with kind local, whose threads have none; it is for processes and clusters")
        return self

    def _require_workers(self) -> None:
        if self.class_name is None:
            raise ValueError("class: such as dask_jobqueue.SLURMCluster")
        if (self.scale is None) == (self.adapt is None):
            raise ValueError("scale: or adapt:, one of the two, with class:")
