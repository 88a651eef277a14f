"""Polars: expressions over a list column."""

from pathlib import Path

import polars as pl


def score(source: Path, output: Path) -> None:
    """Label and confidence of each row, into one Parquet file."""
    logits = pl.col("logits").arr.to_list()
    exponentials = logits.list.eval((pl.element() - pl.element().max()).exp())
    lazy = pl.scan_parquet(source).select(
        label=logits.list.arg_max().cast(pl.Int32), confidence=1 / exponentials.list.sum()
    )
    lazy.sink_parquet(output)


def scan(source: Path) -> float:
    """All logits decoded, and next to nothing computed."""
    lazy = pl.scan_parquet(source).select(pl.col("logits").arr.first().max())
    return float(lazy.collect(engine="streaming").item())
