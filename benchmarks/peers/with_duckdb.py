"""DuckDB: SQL over a list column."""

from pathlib import Path

import duckdb

_QUERY = """
COPY (
    SELECT (list_position(logits, largest) - 1)::INTEGER AS label,
           (1 / list_sum(list_transform(logits, lambda x: exp(x - largest))))::FLOAT AS confidence
    FROM (SELECT logits::FLOAT[] AS logits, list_max(logits::FLOAT[]) AS largest FROM read_parquet('{source}'))
) TO '{output}' (FORMAT parquet)
"""


def score(source: Path, output: Path) -> None:
    """Label and confidence of each row, into one Parquet file."""
    with duckdb.connect() as connection:
        connection.execute(_QUERY.format(source=source, output=output))


def scan(source: Path) -> float:
    """All logits decoded, and next to nothing computed."""
    with duckdb.connect() as connection:
        found: tuple[float] = connection.execute(f"SELECT max(logits[1]) FROM read_parquet('{source}')").fetchone()
    return found[0]
