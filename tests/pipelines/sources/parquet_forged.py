"""Parquet files of one column and one page, whose header, footer and content do not agree."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.pipelines import dumps

MAGIC = b"PAR1"


def one_page(path: Path, **options: Any) -> Path:
    """A sound file: 103 rows of 5 float32, in lists."""
    table = pa.table({"logits": dumps.lists(dumps.logits())})
    return dumps.parquet_file(path, table, use_dictionary=False, **options)


def with_page(
    path: Path, stored: bytes, *, uncompressed: int, values: int | None = None, crc: int | None = None
) -> None:
    """Put another page in; the footer learns of its size at rest, but of no other change."""
    chunk = _only_chunk(path)
    fields = [(1, 0), (2, uncompressed), (3, len(stored))] + ([] if crc is None else [(4, crc)])
    holds = struct([(1, chunk.num_values if values is None else values), (2, 0), (3, 3), (4, 3)])
    page = struct(fields, (5, holds)) + stored
    _, footer = _parts(path)
    new = _claims(footer, chunk, chunk.total_uncompressed_size, len(page))
    _write(path, MAGIC + page, new)


def with_claimed_size(path: Path, uncompressed: int, column: str = "logits") -> None:
    """Change one number of the footer: how many bytes a column of the only row group decompresses to."""
    chunk = _only_chunk(path, column)
    body, footer = _parts(path)
    _write(path, body, _claims(footer, chunk, uncompressed, chunk.total_compressed_size))


def struct(numbers: list[tuple[int, int]], inner: tuple[int, bytes] | None = None) -> bytes:
    """A struct in Thrift's compact protocol: i32 fields, and one that is a struct, last."""
    data, last = b"", 0
    for field, number in numbers:
        data += bytes([16 * (field - last) + 5]) + varint(number)
        last = field
    if inner is not None:
        data += bytes([16 * (inner[0] - last) + 12]) + inner[1]
    return data + b"\x00"


def varint(number: int) -> bytes:
    """A signed number in Thrift's compact protocol."""
    zigzag = 2 * number if number >= 0 else -2 * number - 1
    digits = []
    while zigzag > 127:
        digits.append(zigzag % 128 + 128)
        zigzag //= 128
    return bytes([*digits, zigzag])


def page_of_nulls(count: int) -> bytes:
    """An uncompressed page of one list, `count` nulls long: a few bytes, for equal levels are written once."""
    repetition = _run(0, 1) + _run(1, count - 1)  # the first value of a list has level 0
    return b"".join(len(levels).to_bytes(4, "little") + levels for levels in (repetition, _run(2, count)))


def _run(level: int, count: int) -> bytes:
    """Parquet's RLE: twice the count, as an unsigned varint, then the level."""
    return varint(count) + bytes([level])


def _only_chunk(path: Path, column: str = "logits") -> Any:
    group = pq.read_metadata(path).row_group(0)
    chunks = (group.column(index) for index in range(group.num_columns))
    return next(chunk for chunk in chunks if column in chunk.path_in_schema)


def _parts(path: Path) -> tuple[bytes, bytes]:
    whole = path.read_bytes()
    length = int.from_bytes(whole[-8:-4], "little")
    return whole[: -8 - length], whole[-8 - length : -8]


def _claims(footer: bytes, chunk: Any, uncompressed: int, compressed: int) -> bytes:
    # Fields 6 and 7 of ColumnMetaData, each an i64 that follows the last field.
    old = b"\x16" + varint(chunk.total_uncompressed_size) + b"\x16" + varint(chunk.total_compressed_size)
    assert footer.count(old) == 1, footer.count(old)
    return footer.replace(old, b"\x16" + varint(uncompressed) + b"\x16" + varint(compressed))


def _write(path: Path, body: bytes, footer: bytes) -> None:
    path.write_bytes(body + footer + len(footer).to_bytes(4, "little") + MAGIC)
