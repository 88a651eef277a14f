"""A run that did not end is gone on with: the output has the bytes of a run that was never stopped."""

import json
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from softmax_dask_pipelines import scoring
from softmax_dask_pipelines.config import ScoreConfig
from softmax_dask_pipelines.errors import (
    CorruptChunkError,
    DiskFullError,
    InputChangedError,
    InterruptedRunError,
    NonFiniteRowsError,
    OutputExistsError,
)
from softmax_dask_pipelines.job import prepare
from softmax_dask_pipelines.result import RunResult
from softmax_dask_pipelines.sinks.parquet import ParquetPartitionWriter
from softmax_dask_pipelines.sinks.zarr import ZarrPartitionWriter
from tests.pipelines import dumps
from tests.pipelines.command import softmax_dask, tree

pytestmark = pytest.mark.usefixtures("small_plan")

COLUMNS = ("label", "confidence", "probabilities")


@pytest.fixture(params=["out.zarr", "out.parquet"])
def output(request, tmp_path):
    return tmp_path / request.param


@pytest.fixture
def scored(monkeypatch):
    """Numbers of the partitions that were scored, a list for each run."""
    runs: list[list[int]] = []
    real = scoring.run_on_threads

    def recording(task, numbers, **options):
        runs.append(list(numbers))
        real(task, numbers, **options)

    monkeypatch.setattr(scoring, "run_on_threads", recording)
    return runs


def run(source: Path, output: Path, *, stop_after: int | None = None, **options: Any) -> RunResult:
    """Score, or be interrupted after so many partitions."""
    given = {"columns": COLUMNS, "threads": 2, **options}
    replace = given.pop("replace", False)
    config = ScoreConfig(source={"path": str(source)}, output={"path": str(output)}, **given)
    receipts = []

    def count(receipt):
        receipts.append(receipt)
        if len(receipts) == stop_after:
            raise KeyboardInterrupt

    return scoring.execute(prepare(config), replace=replace, on_receipt=count)


def stopped(source: Path, output: Path, *, after: int = 4, **options: Any) -> None:
    with pytest.raises(InterruptedRunError, match=r"partitions are done\. Run the same command again to go on"):
        run(source, output, stop_after=after, **options)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def never_stopped(source: Path, output: Path, **options: Any) -> dict[str, bytes]:
    """What a run that was never stopped writes."""
    other = output.with_name(f"other{output.suffix}")
    run(source, other, **options)
    return files_of(other)


def journal_of(output: Path) -> Path:
    (path,) = Path(f"{output}.job").glob("journal-*")
    return path


def object_of(output: Path) -> Path:
    """One that is staged and noted."""
    line = json.loads(journal_of(output).read_text().splitlines()[-1][9:])
    (stage,) = Path(f"{output}.job").glob("stage-*")
    return stage / line["objects"][0][0]


@pytest.mark.parametrize("after", [1, 5, 10])
def test_a_run_that_is_gone_on_with_writes_the_bytes_of_one_that_was_never_stopped(source, output, after):
    stopped(source, output, after=after)

    run(source, output)

    assert files_of(output) == never_stopped(source, output)


def test_what_is_done_is_not_done_again(source, output, scored):
    stopped(source, output, after=4)

    run(source, output)

    done = len(scored[0]) - len(scored[1])
    assert done >= 4
    assert set(scored[1]) < set(scored[0])


def test_a_run_may_be_stopped_many_times(source, output, scored):
    for after in (1, 3, 5, 7):
        stopped(source, output, after=after)

    run(source, output)

    assert [len(numbers) for numbers in scored] == sorted((len(numbers) for numbers in scored), reverse=True)
    assert files_of(output) == never_stopped(source, output)


def test_the_figures_are_those_of_all_rows(source, output):
    stopped(source, output)

    facts = run(source, output).facts()

    whole = run(source, output.with_name("other.zarr")).facts()
    exact = ("rows", "classes", "undecidable_rows", "labelled_rows", "top_labels", "accuracy", "partitions")
    assert {name: facts[name] for name in exact} == {name: whole[name] for name in exact}
    assert facts["mean_confidence"] == pytest.approx(whole["mean_confidence"], rel=1e-12)  # sums in another order


def test_every_partition_is_reported(source, output):
    stopped(source, output)
    job, receipts = (
        prepare(ScoreConfig(source={"path": str(source)}, output={"path": str(output)}, columns=COLUMNS)),
        [],
    )

    scoring.execute(job, on_receipt=receipts.append)

    assert sorted(receipt.partition for receipt in receipts) == list(range(job.plan.count))


def test_the_pieces_are_those_of_the_first_run(source, output, monkeypatch):
    expected = never_stopped(source, output)
    stopped(source, output)
    monkeypatch.setattr("softmax_dask_pipelines.plan.PARTITION_BYTES", 2000)
    monkeypatch.setattr("softmax_dask_pipelines.plan.CHUNK_BYTES", 400)

    run(source, output, threads=1, memory_limit="2GiB")

    assert files_of(output) == expected


def test_an_output_is_absent_until_it_is_complete(source, output):
    stopped(source, output)

    assert not output.exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"temperature": 2.0}, "temperature: 1.0 -> 2.0"),
        ({"columns": ("label",)}, "columns: ['label', 'confidence', 'probabilities'] -> ['label']"),
        ({"columns": (*COLUMNS, "top_k_labels"), "top_k": 2}, "top_k: 0 -> 2"),
    ],
)
@pytest.mark.parametrize("finished", [False, True])
def test_other_settings_are_refused_and_named(source, output, finished, options, told):
    run(source, output) if finished else stopped(source, output)
    before = tree(Path(f"{output}.job"))

    with pytest.raises(OutputExistsError) as raised:
        run(source, output, **options)

    assert told in str(raised.value)
    assert "start over with --replace" in str(raised.value)
    assert tree(Path(f"{output}.job")) == before


def test_another_source_is_refused_and_named(source, output, tmp_path):
    run(source, output)
    other = dumps.zarr_group(tmp_path / "other_source.zarr", dumps.logits(), chunks=(10, 5))

    with pytest.raises(OutputExistsError, match=r"source\.path: .*in\.zarr -> .*other_source\.zarr"):
        run(other, output)


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("name", ["logits/c/3/0", "id/c/0", "target/c/0"])
def test_a_changed_input_is_refused_and_named(source, output, finished, name):
    run(source, output) if finished else stopped(source, output, after=10)
    touch(source / name)
    first = {"l": "rows 30 to 39 of logits", "i": "rows 0 to 39 of id", "t": "rows 0 to 63 of target"}[name[0]]

    with pytest.raises(InputChangedError, match=f"{first} were changed after it was scored; expected it to stay"):
        run(source, output)


def test_an_input_that_changes_during_the_run_is_not_published(source, output, monkeypatch):
    def change(sink):
        touch(source / "logits" / "c" / "2" / "0")

    sink = "zarr.ZarrSink" if output.suffix == ".zarr" else "parquet.ParquetSink"
    monkeypatch.setattr(f"softmax_dask_pipelines.sinks.{sink}.seal", change)

    with pytest.raises(InputChangedError, match="rows 20 to 29 of logits were changed"):
        run(source, output)

    assert not output.exists()


def test_replace_drops_a_plan_of_other_settings(source, output):
    stopped(source, output)

    run(source, output, temperature=2.0, replace=True)

    assert files_of(output) == never_stopped(source, output, temperature=2.0)
    assert {path.name.partition("-")[0] for path in Path(f"{output}.job").iterdir()} == {
        "commit",
        "journal",
        "metrics",
        "runs",
    }


def test_a_replacement_that_was_stopped_is_gone_on_with(source, output, scored):
    run(source, output, temperature=3.0)
    before = files_of(output)
    stopped(source, output, replace=True)
    assert files_of(output) == before

    run(source, output, replace=True)

    assert len(scored[2]) < len(scored[1])
    assert files_of(output) == never_stopped(source, output)


def test_a_line_that_was_cut_short_counts_for_nothing(source, output, scored):
    stopped(source, output)
    journal = journal_of(output)
    journal.write_bytes(journal.read_bytes()[:-20])

    run(source, output)

    noted = len(scored[0]) - len(scored[1])
    assert noted >= 3
    assert files_of(output) == never_stopped(source, output)


def test_a_journal_whose_first_line_was_cut_short_is_begun_again(source, output):
    stopped(source, output)
    journal = journal_of(output)
    journal.write_bytes(journal.read_bytes()[:30])

    stopped(source, output)
    run(source, output)

    assert files_of(output) == never_stopped(source, output)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b""), lambda path: os.truncate(path, 9)])
def test_a_partition_whose_object_is_not_there_with_its_size_is_done_again(source, output, damage):
    stopped(source, output)
    damage(object_of(output))

    run(source, output)

    assert files_of(output) == never_stopped(source, output)


def test_a_flipped_bit_in_the_journal_is_seen(source, output, scored):
    stopped(source, output)
    journal = journal_of(output)
    data = bytearray(journal.read_bytes())
    data[-100] ^= 1
    journal.write_bytes(data)

    run(source, output)

    assert files_of(output) == never_stopped(source, output)


@pytest.mark.parametrize("chunk", ["0", "10"], ids=["a full chunk", "the last chunk"])
def test_bad_data_keeps_what_is_done_and_the_run_goes_on_when_it_is_mended(source, output, scored, chunk):
    path = source / "logits" / "c" / chunk / "0"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    for _ in range(2):
        with pytest.raises(CorruptChunkError):
            run(source, output)
    path.write_bytes(whole)

    run(source, output)

    assert len(scored[0]) > len(scored[1]) >= len(scored[2])
    assert files_of(output) == never_stopped(source, output)
    assert run(source, output).is_up_to_date


def test_rows_that_were_refused_may_be_marked_by_the_next_run(tmp_path, output, scored):
    data = dumps.logits()
    data[3, 1] = np.nan
    source = dumps.zarr_array(tmp_path / "in.zarr", data, chunks=(10, 5))
    with pytest.raises(NonFiniteRowsError):
        run(source, output, nonfinite="error")

    run(source, output, nonfinite="propagate")

    assert len(scored[1]) < len(scored[0])
    assert files_of(output) == never_stopped(source, output)


def test_a_full_disk_keeps_what_is_done(source, output, scored, monkeypatch):
    writer = ZarrPartitionWriter if output.suffix == ".zarr" else ParquetPartitionWriter
    real, closed = writer.close, []

    def close(self):
        closed.append(self)
        if len(closed) > 3:
            raise DiskFullError("full")
        return real(self)

    with monkeypatch.context() as patch:
        patch.setattr(writer, "close", close)
        with pytest.raises(DiskFullError):
            run(source, output, threads=1)

    run(source, output)

    # Another one may have been stored when the disk was full, and not be written down yet.
    assert len(scored[0]) - len(scored[1]) in (2, 3)
    assert files_of(output) == never_stopped(source, output)


def test_nothing_new_is_up_to_date_and_writes_nothing(source, output, tmp_path):
    run(source, output)
    before = tree(tmp_path)

    result = run(source, output)

    assert result.is_up_to_date
    assert result.facts()["rows"] == 0
    after = tree(tmp_path)
    assert {path: after[path] for path in before if not path.endswith(".job")} == {
        path: before[path] for path in before if not path.endswith(".job")
    }
    assert after.keys() == before.keys()


def test_up_to_date_is_said_in_one_line_and_exit_0(source, output):
    softmax_dask("score", source, output)

    outcome = softmax_dask("score", source, output)

    assert outcome.code == 0
    assert "nothing new: the output is up to date" in outcome.out


def test_an_output_that_was_removed_is_written_again(source, output):
    run(source, output)
    before = files_of(output)
    shutil.rmtree(output)

    run(source, output)

    assert files_of(output) == before


def test_an_output_whose_record_was_removed_is_refused(source, output):
    run(source, output)
    shutil.rmtree(f"{output}.job")

    with pytest.raises(OutputExistsError, match=r"no run is known that has written it.* --replace"):
        run(source, output)


@pytest.mark.parametrize("flags", [(), ("--replace",)])
def test_something_else_at_the_path_is_refused_and_replaced_when_told_so(source, output, flags):
    assert softmax_dask("score", source, output).code == 0
    if output.suffix == ".zarr":
        zarr.open_group(output, mode="r+").attrs["mine"] = "years of work"
    else:
        (output / "commit=000001").rename(output / "_mine")

    outcome = softmax_dask("score", source, output, *flags)

    assert outcome.code == (0 if flags else 4)
    assert flags or "is not what its last commit has written" in outcome.err


def test_rescore_writes_all_of_it_anew_when_the_input_has_changed(source, output):
    run(source, output)
    rewritten = dumps.logits()[::-1].copy()
    shutil.rmtree(source)
    dumps.zarr_group(source, rewritten, chunks=(10, 5))

    run(source, output, on_changed="rescore")

    assert files_of(output) == never_stopped(source, output)


def test_ignore_leaves_what_is_scored_when_the_input_has_changed(source, output):
    run(source, output)
    before = files_of(output)
    touch(source / "logits" / "c" / "3" / "0")

    assert run(source, output, on_changed="ignore").is_up_to_date
    assert files_of(output) == before


def test_the_journal_says_which_format_it_has(source, output):
    stopped(source, output)
    journal = journal_of(output)
    head, _, rest = journal.read_bytes().lstrip().partition(b"\n")
    body = head[9:].replace(b'"format": 1', b'"format": 2')
    journal.write_bytes(line(body) + rest)

    with pytest.raises(OutputExistsError, match="has format 2, of a newer version of this program; expected 1"):
        run(source, output)


def line(body: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(body), body)


def touch(path: Path) -> None:
    """What an edit that keeps the size leaves."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))
