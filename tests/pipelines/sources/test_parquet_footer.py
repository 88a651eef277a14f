"""Footers that contradict themselves or their file: refused with a reason."""

from collections.abc import Callable
from pathlib import Path

import pytest

from softmax_dask_pipelines.errors import CorruptFileError
from softmax_dask_pipelines.sources import SourceRequest, open_source
from tests.pipelines import dumps
from tests.pipelines.sources.parquet_forged import varint


def _change(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Another footer, of the same length or not."""
    whole = path.read_bytes()
    length = int.from_bytes(whole[-8:-4], "little")
    footer = change(whole[-8 - length : -8])
    path.write_bytes(whole[: -8 - length] + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def _replaced(old: bytes, new: bytes, *, at_most: int | None = None) -> Callable[[bytes], bytes]:
    def change(footer: bytes) -> bytes:
        assert old in footer, footer
        return footer.replace(old, new, -1 if at_most is None else at_most)

    return change


CODEC_AND_VALUES = b"\x15\x02\x16" + varint(103)
"""Of a column of numbers: snappy, 103 values."""

ROWS = b"\x16" + varint(103)
"""Of the file, and of its row group."""

DAMAGE = {
    "rows": (_replaced(ROWS, b"\x16" + varint(102), at_most=1), "row groups have 103 rows, the file 102"),
    "negative rows": (_replaced(ROWS, b"\x16" + varint(-1)), "row groups have -1 rows"),
    "a name in the schema": (_replaced(b"logit_4", b"logit_x", at_most=1), "other columns than the schema"),
    "a name that is no text": (_replaced(b"logit_4", b"logit_\xff"), "can't decode byte 0xff"),
    "a codec": (_replaced(CODEC_AND_VALUES, b"\x15\x7e\x16" + varint(103)), "codec|corrupt data page"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_footer_is_refused(tmp_path: Path, damage: str) -> None:
    path = dumps.parquet_file(tmp_path / "dump.parquet", dumps.parquet_table(dumps.wide(dumps.logits()), carried=False))
    change, reason = DAMAGE[damage]
    _change(path, change)

    with pytest.raises(CorruptFileError, match=rf"dump\.parquet: is no whole Parquet file \(.*{reason}.*Copy it again"):
        list(open_source(SourceRequest(str(path))).read(0, 103))


def test_pages_beyond_the_end_of_the_file_are_refused(tmp_path: Path) -> None:
    path = dumps.parquet_file(tmp_path / "dump.parquet", dumps.parquet_table(dumps.wide(dumps.logits(5000))))
    whole = path.read_bytes()
    length = int.from_bytes(whole[-8:-4], "little")
    path.write_bytes(whole[:4] + whole[-8 - length :])

    with pytest.raises(CorruptFileError, match=r"a column ends at byte \d+, the file at \d+"):
        open_source(SourceRequest(str(path)))
