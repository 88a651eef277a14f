"""What a document of metrics says of where its rows are from."""

from typing import Any, Protocol

from softmax_dask import kernel_name
from softmax_dask_pipelines.backend import Backend
from softmax_dask_pipelines.sources import SourceFacts


class HasTemperature(Protocol):
    """A config of some verb."""

    @property
    def temperature(self) -> float:
        """What divides the logits."""


class Described(Protocol):
    """A run of some verb."""

    @property
    def config(self) -> HasTemperature:
        """What it was told."""

    @property
    def facts(self) -> SourceFacts:
        """What is known of its source."""

    @property
    def backend(self) -> Backend:
        """Where it computes."""


def about(job: Described) -> dict[str, Any]:
    """JSON types only."""
    facts = job.facts
    return {
        "source": facts.path,
        "logits": facts.name,
        "target": facts.target_name,
        "temperature": job.config.temperature,
        "kernel": kernel_name(job.backend),
    }
