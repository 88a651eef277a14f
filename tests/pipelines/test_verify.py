"""`status` tells what is known of an output; `verify` reads it again, and sees every bit that changed."""

import json
import os
import shutil
import zlib
from pathlib import Path

import google_crc32c
import pytest

from softmax_dask_pipelines import score, status, verify
from softmax_dask_pipelines.errors import InputChangedError, OutputDamagedError
from softmax_dask_pipelines.ledger.lock import locked
from tests.pipelines.command import softmax_dask, tree

pytestmark = pytest.mark.usefixtures("small_plan")

COLUMNS = ("label", "label_name", "confidence", "probabilities")


@pytest.fixture(params=["out.zarr", "out.parquet"])
def output(request, tmp_path, source):
    """Of two commits, the second of which has written the last partition of the first again."""
    path = tmp_path / request.param
    _shorten(source, 83)
    score(source, path, columns=COLUMNS)
    shutil.rmtree(source)
    shutil.copytree(tmp_path / "whole.zarr", source)
    score(source, path, columns=COLUMNS)
    return path


def _shorten(source: Path, rows: int) -> None:
    """Let the dump have its first rows alone; the rest comes back later, with the times that it has."""
    whole = source.with_name("whole.zarr")
    shutil.copytree(source, whole)
    for name in ("logits", "id", "target"):
        document = source / name / "zarr.json"
        found = json.loads(document.read_text())
        found["shape"][0] = rows
        document.write_text(json.dumps(found))


def objects_of(output: Path) -> list[Path]:
    return sorted(path for path in output.rglob("*") if path.is_file())


def test_an_output_is_as_it_was_written(output):
    found = verify(output)

    assert (found.rows, found.commits, found.recomputed) == (103, 2, 0)
    assert found.objects == len(objects_of(output))
    assert found.bytes_read == sum(path.stat().st_size for path in objects_of(output))


def test_it_is_what_the_input_gives(output):
    found = verify(output, against_input=True)

    assert found.recomputed >= 10


def test_verifying_changes_nothing(output, tmp_path):
    before = tree(tmp_path)

    verify(output, against_input=True)

    assert tree(tmp_path) == before


def test_every_flipped_bit_is_seen(output):
    for number, path in enumerate(objects_of(output)):
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[(number * 7919) % len(whole)] ^= 1 << number % 8
        path.write_bytes(flipped)

        with pytest.raises(OutputDamagedError, match="has other bytes"):
            verify(output)

        path.write_bytes(whole)
    verify(output)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (Path.unlink, "is not there; expected the"),
        (lambda path: os.truncate(path, 5), "has 5 bytes; expected the"),
        (lambda path: path.with_name("stranger").touch(), r"holds \d+ files; expected the"),
    ],
)
def test_what_is_missing_cut_short_or_strange_is_named(output, damage, told):
    damage(objects_of(output)[-1])

    with pytest.raises(OutputDamagedError, match=told):
        verify(output)


def test_a_chunk_that_fits_its_own_checksum_but_is_another_is_seen(tmp_path, source):
    score(source, tmp_path / "out.zarr", columns=COLUMNS)
    chunk = tmp_path / "out.zarr" / "confidence" / "c.0"
    body = bytearray(chunk.read_bytes()[:-4])
    body[-1] ^= 1
    chunk.write_bytes(body + google_crc32c.value(bytes(body)).to_bytes(4, "little"))

    with pytest.raises(OutputDamagedError, match="has other bytes"):
        verify(tmp_path / "out.zarr")


def test_a_journal_that_is_damaged_is_named(output):
    journal = min(Path(f"{output}.job").glob("journal-*"))
    data = bytearray(journal.read_bytes())
    data[-30] ^= 4
    journal.write_bytes(data)

    with pytest.raises(
        OutputDamagedError, match=r"journal-.*: tells of \d+ partitions; expected the \d+ of its commit"
    ):
        verify(output)


def test_values_that_the_input_does_not_give_are_seen(output):
    for journal in Path(f"{output}.job").glob("journal-*"):
        lines = [line for line in journal.read_bytes().split(b"\n") if line]
        changed = [_with_another_checksum(line) if b'"objects"' in line else line for line in lines]
        journal.write_bytes(b"\n".join([*changed, b""]))

    with pytest.raises(OutputDamagedError):
        verify(output, against_input=True)


def _with_another_checksum(line: bytes) -> bytes:
    """As of a program that once wrote other bytes."""
    found = json.loads(line[9:])
    found["objects"][0][2] ^= 1
    body = json.dumps(found).encode()
    return b"%08x %s" % (zlib.crc32(body), body)


def test_another_input_cannot_be_compared_with(output, source):
    chunk = source / "logits" / "c" / "1" / "0"
    os.utime(chunk, ns=(0, chunk.stat().st_mtime_ns + 1))

    with pytest.raises(InputChangedError, match="rows 10 to 19 of logits were changed; expected the input"):
        verify(output, against_input=True)


def test_the_command_says_so_in_one_line(output):
    outcome = softmax_dask("verify", output, "--against-input")

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.count("\n") == 1
    assert ": 103 rows, " in outcome.out
    assert "as written; " in outcome.out


def test_a_damaged_output_is_exit_3_in_one_line(output):
    objects_of(output)[0].unlink()

    outcome = softmax_dask("verify", output)

    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("verb", ["status", "verify"])
def test_a_path_of_no_run_is_exit_2(tmp_path, verb):
    outcome = softmax_dask(verb, tmp_path / "nothing.zarr")

    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


class TestStatus:
    def test_it_tells_commits_and_rows(self, output):
        found = status(output)

        assert found["rows"] == 103
        assert [(each["number"], each["new_rows"], each["rows"]) for each in found["commits"]] == [
            (1, 83, 83),
            (2, 20, 103),
        ]
        assert found["open"] is None
        assert found["running"] is None

    def test_it_tells_how_far_an_open_plan_is(self, source, tmp_path):
        for chunk in ("4", "5"):
            path = source / "logits" / "c" / chunk / "0"
            path.write_bytes(path.read_bytes()[:-9])
        softmax_dask("score", source, tmp_path / "out.zarr", "--threads", 1)

        found = status(tmp_path / "out.zarr")

        assert found["commits"] == []
        assert found["open"]["kind"] == "new output"
        assert (found["open"]["new_rows"], found["open"]["partitions"]) == (103, 11)
        assert 0 < found["open"]["done"] < 11
        assert " of 11 partitions are done" in softmax_dask("status", tmp_path / "out.zarr").out

    def test_it_tells_who_is_writing(self, output):
        with locked(output) as run:
            found = status(output)

        assert found["running"] == run.facts()
        assert status(output)["running"] is None

    def test_a_lock_of_a_killed_run_is_nobodys(self, output):
        Path(f"{output}.job", "lock").write_text('{"run": "20260101T000000Z-00000000", "host": "x", "pid": 1}')

        assert status(output)["running"] is None

    def test_it_changes_nothing(self, output, tmp_path):
        before = tree(tmp_path)

        assert softmax_dask("status", output, "--json").code == 0
        assert tree(tmp_path) == before
