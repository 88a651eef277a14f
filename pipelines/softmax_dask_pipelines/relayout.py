"""What a better layout of a dump would be. From what is known of the source alone; reads nothing."""

from collections.abc import Callable, Iterator
from math import prod

from softmax_dask_pipelines.sources import SourceFacts

SMALL_BYTES = 1_000_000
"""A smaller piece costs more to find and open than to decode."""
LARGE_BYTES = 64_000_000
"""A larger piece is held whole by each thread that needs a row of it."""
GOOD_BYTES = 8_000_000

_PIECES = {"zarr": "chunks", "parquet": "row groups"}
_CHECKSUM = {
    "zarr": "add crc32c to the codecs",
    "parquet": "write it with write_page_checksum=True",
}


def advice(facts: SourceFacts) -> tuple[str, ...]:
    """What to change when the dump is written again; nothing where it is good as it is."""
    return tuple(text for rule in _RULES for text in rule(facts))


def piece_bytes(facts: SourceFacts) -> int | None:
    """Decoded size of the largest chunk or row group; None where it is not known."""
    if facts.chunk_rows is None:
        return None
    pieces = facts.class_chunks * facts.row_chunks
    return min(facts.chunk_rows, max(1, facts.rows)) * facts.classes * facts.dtype.itemsize // pieces


def _whole_rows(facts: SourceFacts) -> Iterator[str]:
    if facts.class_chunks > 1 and facts.format == "npy":
        yield "the classes of a row lie apart in the file: write it in C order, the class axis last"
    elif facts.class_chunks > 1:
        yield (
            f"the classes of a row lie in {facts.class_chunks:,} chunks: rechunk to whole rows, "
            f"({', '.join(f'{length:,}' for length in _good_chunk(facts))})"
        )


def _whole_places(facts: SourceFacts) -> Iterator[str]:
    if facts.row_chunks > 1 and facts.class_chunks == 1:
        yield (
            f"rows of a place along their first axis lie in {facts.row_chunks:,} chunks, which one core puts together: "
            f"{_remedy(facts, 'chunks')}"
        )


def _size_of_pieces(facts: SourceFacts) -> Iterator[str]:
    found, pieces = piece_bytes(facts), _PIECES.get(facts.format)
    if found is None or pieces is None or facts.chunk_rows is None or facts.class_chunks * facts.row_chunks > 1:
        return
    remedy = _remedy(facts, pieces)
    if found > LARGE_BYTES and facts.chunk_rows > 1:
        yield f"{pieces} of {found / 1e6:,.0f} MB, each decoded in one go: {remedy}"
    elif found < SMALL_BYTES and facts.chunk_rows < facts.rows:
        yield f"{pieces} of {found / 1e6:.3g} MB, more to find than to decode: {remedy}"


def _checksum(facts: SourceFacts) -> Iterator[str]:
    if facts.has_checksum is False and facts.format in _CHECKSUM:
        yield f"no checksum, so damage can pass for logits: {_CHECKSUM[facts.format]}"


def _rows_as_lists(facts: SourceFacts) -> Iterator[str]:
    if facts.row_kind == "lists":
        yield "lists that may differ in length or be null: write fixed-size lists, not nullable"
    elif facts.row_kind == "columns":
        yield "one column a class: write one column of fixed-size lists, not nullable"


def _width(facts: SourceFacts) -> Iterator[str]:
    if facts.dtype == "float64":
        yield "float64: write float32, half the bytes, or float16 if 3 digits are enough"


def _remedy(facts: SourceFacts, pieces: str) -> str:
    rows, (places, *inner, classes) = _good_rows(facts), _good_chunk(facts)
    if rows >= facts.rows:
        return "write one of all rows"
    if not inner:
        return f"write {pieces} of {rows:,} rows, about 8 MB"
    if rows < prod(inner):
        return f"write it as (rows, classes), in {pieces} of {rows:,} rows, about 8 MB"
    return f"write {pieces} of {' x '.join(f'{length:,}' for length in (places, *inner, classes))}, about 8 MB"


def _good_chunk(facts: SourceFacts) -> tuple[int, ...]:
    """Shape of a piece of about GOOD_BYTES, or of one place along the first axis where that is more."""
    inner = facts.row_shape[1:]
    return (max(1, min(_good_rows(facts), facts.rows) // prod(inner)), *inner, facts.classes)


def _good_rows(facts: SourceFacts) -> int:
    """Rows of a piece of about GOOD_BYTES; a round number where there are many."""
    rows = max(1, GOOD_BYTES // (facts.classes * facts.dtype.itemsize))
    step: int = 10 ** max(0, len(str(rows)) - 2)
    return rows // step * step


_RULES: tuple[Callable[[SourceFacts], Iterator[str]], ...] = (
    _whole_rows,
    _whole_places,
    _size_of_pieces,
    _checksum,
    _rows_as_lists,
    _width,
)
