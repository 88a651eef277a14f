"""The small partitions of the pipelines' tests."""

from tests.pipelines.conftest import small_plan

__all__ = ["small_plan"]
