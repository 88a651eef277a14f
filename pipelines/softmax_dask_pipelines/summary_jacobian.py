"""Text for people about Jacobians: what a plan would do, what a run came to. As `summary` for scoring."""

from typing import Any

from softmax_dask_pipelines.jacobian_job import JacobianJob
from softmax_dask_pipelines.jacobians import JacobianResult
from softmax_dask_pipelines.sources.record import facts_of_source
from softmax_dask_pipelines.summary import day_lines, output_text, size, source_lines, table


def text_of_run(result: JacobianResult) -> str:
    """The summary that ends a run."""
    facts = result.facts()
    rate = facts["bytes_out"] / max(1e-9, facts["seconds"]) / 1e9
    return table(
        [
            *day_lines(result.job.config),
            ("rows", f"{facts['rows']:,} of {facts['of_rows']:,}, {facts['classes']:,} classes"),
            ("undecidable", f"{facts['undecidable_rows']:,} rows with NaN, +inf or only -inf"),
            ("time", f"{facts['seconds']:.2f} s, {rate:.2f} GB/s of matrices, {facts['dtype']}"),
            ("output", f"{facts['output']} ({size(facts['bytes_written'])} written)"),
        ]
    )


def text_of_plan(job: JacobianJob) -> str:
    """What a run would do."""
    tiles = job.tiles
    return table(
        [
            *day_lines(job.config),
            *source_lines(job.source.facts),
            ("output", output_text(job.spec)),
            ("rows", f"{len(job.rows):,} chosen"),
            ("tiles", f"{tiles.rows:,} rows x {tiles.lines:,} x {tiles.columns:,} classes, {job.spec.wide_dtype}"),
            ("bytes", f"{size(job.bytes_out)} out before compression"),
            ("memory", f"{size(job.peak_bytes)} at most, limit {size(job.memory_limit_bytes)}"),
            ("threads", str(job.threads)),
        ]
    )


def facts_of_plan(job: JacobianJob) -> dict[str, Any]:
    """What a run would do, for machines."""
    return {
        "source": facts_of_source(job.source.facts),
        "output": job.spec.path,
        "output_format": job.spec.format,
        "rows": len(job.rows),
        "tile": [job.tiles.rows, job.tiles.lines, job.tiles.columns],
        "bytes_out": job.bytes_out,
        "peak_bytes": job.peak_bytes,
        "memory_limit_bytes": job.memory_limit_bytes,
        "threads": job.threads,
    }
