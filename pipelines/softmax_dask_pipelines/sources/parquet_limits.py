"""What a Parquet footer may claim. Looked at before anything is decoded, so that a few bytes never become gigabytes."""

from collections.abc import Iterator, Sequence

from softmax_dask_pipelines.errors import CorruptFileError, RaggedRowsError
from softmax_dask_pipelines.sources.parquet_files import Part
from softmax_dask_pipelines.sources.parquet_footer import Chunk
from softmax_dask_pipelines.sources.parquet_metadata import chunks_of

TEXT_BYTES = 4096
"""A value of ids or targets: far more than any id has."""
ROW_BYTES = 2**28
"""A row of logits: far more than any model has classes."""

_PAGE_HEADER_BYTES = 128
_SLACK_BYTES = 2**20
_SLACK_VALUES = 2**22


def require_plausible(part: Part, names: Sequence[str], value_bytes: int) -> None:
    """Refuse columns that say they decompress to far more than their values can take."""
    for name, group, chunk in _named_chunks(part, names):
        # In the worst case of a writer a page holds one value, its header, and a dictionary it again.
        allowed = chunk.values * (2 * value_bytes + _PAGE_HEADER_BYTES) + _SLACK_BYTES
        if not 0 <= chunk.uncompressed_bytes <= allowed or chunk.values < 0:
            raise CorruptFileError(
                f"{part.path}: column {name!r} of row group {group} decompresses from "
                f"{chunk.compressed_bytes} to {chunk.uncompressed_bytes} bytes for {chunk.values} "
                f"values; expected at most {allowed}. Write the file again, and do not trust where it came from."
            )


def require_sane_rows(part: Part, name: str, value_bytes: int) -> None:
    """Refuse lists that are longer, on average, than a row can be in memory."""
    for _, group, chunk in _named_chunks(part, [name]):
        rows = part.group_starts[group + 1] - part.group_starts[group]
        if chunk.values * value_bytes > rows * ROW_BYTES:
            raise CorruptFileError(
                f"{part.path}: column {name!r} has {chunk.values} values in {rows} rows of row group {group}; "
                f"expected at most {ROW_BYTES} bytes a row. Name another column, or write the file again."
            )


def require_values(part: Part, name: str, classes: int) -> None:
    """Refuse row groups with far more values than their rows have classes, before a block takes them all in."""
    for _, group, chunk in _named_chunks(part, [name]):
        rows = part.group_starts[group + 1] - part.group_starts[group]
        if chunk.values > rows * max(1, classes) + _SLACK_VALUES:
            raise RaggedRowsError(
                f"{part.path}: column {name!r} has {chunk.values} logits in row group {group} of {rows} rows; "
                f"expected {classes} a row, as in the first. Write all rows with one number of classes."
            )


def _named_chunks(part: Part, names: Sequence[str]) -> Iterator[tuple[str, int, Chunk]]:
    for group, chunks in enumerate(chunks_of(part, names)):
        for name, chunk in zip(names, chunks, strict=True):
            yield name, group, chunk
