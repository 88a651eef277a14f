"""Over a finished output, the same command scores what is new: all formats, all ways in which an input grows."""

import json
import os
import random
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from softmax_dask import decisions
from softmax_dask_pipelines import scoring
from softmax_dask_pipelines.config import ScoreConfig
from softmax_dask_pipelines.errors import InputChangedError, InterruptedRunError, SourceNotReadyError
from softmax_dask_pipelines.job import prepare
from softmax_dask_pipelines.notices import NoteWarning
from softmax_dask_pipelines.result import RunResult
from tests.pipelines import dumps
from tests.pipelines.command import softmax_dask

pytestmark = pytest.mark.usefixtures("small_plan")

COLUMNS = ("label", "confidence", "probabilities")
LOGITS = dumps.logits(rows=120)
KINDS = [("zarr", "zarr"), ("zarr", "parquet"), ("parquet", "zarr"), ("parquet", "parquet")]


@dataclass
class Growing:
    """A dump with ids that grows, and its output."""

    source: Path
    output: Path
    rows: int = 0
    files: int = 0

    def grow(self, rows: int) -> None:
        first, self.rows = self.rows, self.rows + rows
        {".zarr": self._grow_zarr, ".pq": self._grow_parquet}[self.source.suffix](first)

    def run(self, *, stop_after: int | None = None, replace: bool = False, **options: Any) -> RunResult:
        given = {"source": {"path": str(self.source)}, "output": {"path": str(self.output)}, "columns": COLUMNS}
        receipts = []

        def count(receipt):
            receipts.append(receipt)
            if len(receipts) == stop_after:
                raise KeyboardInterrupt

        job = prepare(ScoreConfig(**(given | {"threads": 2} | options)))
        return scoring.execute(job, replace=replace, on_receipt=count)

    def require_scored(self, rows: int | None = None) -> None:
        """Each row once, with the values of the whole array."""
        rows = self.rows if rows is None else rows
        truth = decisions(LOGITS[:rows], COLUMNS)
        if self.output.suffix == ".zarr":
            group = zarr.open_group(self.output, mode="r")
            ids, found = group["id"][:], {name: group[name][:] for name in COLUMNS}
        else:
            table = pq.read_table(self.output, partitioning=None).combine_chunks()
            ids, found = table["id"].to_numpy(), {name: _values(table[name]) for name in COLUMNS}
        order = np.argsort(ids)
        assert ids[order].tolist() == list(range(rows))
        for name in COLUMNS:
            assert np.array_equal(found[name][order], truth[name]), name

    def require_published(self, *, at_least: int) -> None:
        """A reader finds a whole output, of some rows that were there."""
        if self.output.suffix == ".zarr":
            rows = zarr.open_group(self.output, mode="r")["id"].shape[0]
        else:
            rows = pq.read_table(self.output, partitioning=None, columns=["id"]).num_rows
        assert at_least <= rows <= self.rows
        self.require_scored(rows)

    @property
    def commits(self) -> int:
        return len(list(Path(f"{self.output}.job").glob("commit-*")))

    def _grow_zarr(self, first: int) -> None:
        if first == 0:
            group = zarr.create_group(self.source)
            group.create_array("logits", shape=(self.rows, 5), chunks=(10, 5), dtype="float32")
            group.create_array("id", shape=(self.rows,), chunks=(64,), dtype="int64")
        group = zarr.open_group(self.source, mode="r+")
        for name, values in (("logits", LOGITS), ("id", np.arange(120))):
            group[name].resize((self.rows, *group[name].shape[1:]))
            group[name][first : self.rows] = values[first : self.rows]

    def _grow_parquet(self, first: int) -> None:
        self.files += 1
        lists = dumps.fixed_lists(LOGITS[first : self.rows])
        table = pa.table({"id": np.arange(first, self.rows), "logits": lists})
        # Names fall: what comes later stands before what was there.
        dumps.parquet_file(self.source / f"part-{99 - self.files}.parquet", table, row_group_size=10)


def _values(column: Any) -> Any:
    array = pa.concat_arrays(column.chunks)
    return array.flatten().to_numpy().reshape(-1, 5) if pa.types.is_fixed_size_list(array.type) else array.to_numpy()


@pytest.fixture(params=KINDS, ids=lambda kind: " to ".join(kind))
def growing(request, tmp_path) -> Growing:
    source, output = request.param
    return Growing(tmp_path / {"zarr": "in.zarr", "parquet": "in.pq"}[source], tmp_path / f"out.{output}")


@pytest.fixture
def files(tmp_path) -> Growing:
    return Growing(tmp_path / "in.pq", tmp_path / "out.parquet")


def test_what_is_new_is_added_in_one_commit(growing):
    for number, rows in enumerate((23, 7, 10, 1, 40, 39), start=1):
        growing.grow(rows)

        result = growing.run()

        growing.require_scored()
        assert growing.commits == number
        assert result.new_rows == rows
        assert growing.run().is_up_to_date


def test_only_what_is_new_is_scored(growing):
    growing.grow(83)
    growing.run()
    growing.grow(10)

    result = growing.run()

    assert result.tally.rows <= 20
    assert result.new_rows == 10


def test_an_increment_that_was_stopped_is_invisible_and_gone_on_with(growing):
    growing.grow(25)
    growing.run()
    growing.grow(60)

    with pytest.raises(InterruptedRunError):
        growing.run(stop_after=3)

    growing.require_scored(25)
    growing.run()
    growing.require_scored()
    assert growing.commits == 2


def test_a_change_of_what_is_published_is_refused_while_an_increment_is_open(growing):
    growing.grow(40)
    growing.run()
    growing.grow(60)
    with pytest.raises(InterruptedRunError):
        growing.run(stop_after=2)
    first = {".zarr": growing.source / "logits" / "c" / "1" / "0", ".pq": growing.source / "part-98.parquet"}
    os.utime(first[growing.source.suffix], (1e9, 1e9))

    with pytest.raises(InputChangedError):
        growing.run()

    growing.require_scored(40)


def test_an_input_that_grew_while_a_plan_was_open_is_scored_in_two_commits(growing):
    growing.grow(35)
    with pytest.raises(InterruptedRunError):
        growing.run(stop_after=2)
    growing.grow(30)

    result = growing.run()

    growing.require_scored()
    assert growing.commits == 2
    assert result.new_rows == 65
    assert growing.run().is_up_to_date


def test_many_increments_have_the_values_of_one_run(growing):
    for rows in (3, 1, 1, 8, 9, 1, 20):
        growing.grow(rows)
        growing.run()

    growing.require_scored()


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_growing_running_stopping_and_replacing_ends_with_each_row_once(growing, seed):
    steps, published = random.Random(seed), 0

    for _ in range(14):
        if steps.random() < 0.7 or not growing.rows:
            growing.grow(steps.randint(1, 8))
        stop = steps.choice([None, None, 1, 2, 4])
        with suppress(InterruptedRunError):
            growing.run(stop_after=stop, replace=steps.random() < 0.15)
            published = growing.rows
        if published:
            growing.require_published(at_least=published)
    growing.run()

    growing.require_scored()


def test_a_last_chunk_that_was_written_anew_with_the_same_values_is_no_change(tmp_path):
    growing = Growing(tmp_path / "in.zarr", tmp_path / "out.zarr")
    growing.grow(23)
    growing.run()
    chunk = tmp_path / "in.zarr" / "logits" / "c" / "2" / "0"
    chunk.write_bytes(chunk.read_bytes())

    assert growing.run().is_up_to_date


def test_a_last_chunk_that_was_written_anew_with_other_values_is_refused(tmp_path):
    growing = Growing(tmp_path / "in.zarr", tmp_path / "out.zarr")
    growing.grow(23)
    growing.run()
    growing.grow(4)
    zarr.open_group(growing.source, mode="r+")["logits"][21] = 7

    with pytest.raises(InputChangedError, match="rows 20 to 22 of logits were changed"):
        growing.run()

    growing.require_scored(23)


def test_an_array_that_became_shorter_is_refused(tmp_path):
    growing = Growing(tmp_path / "in.zarr", tmp_path / "out.zarr")
    growing.grow(23)
    growing.run()
    for name in ("logits", "id"):
        array = zarr.open_group(growing.source, mode="r+")[name]
        array.resize((20, *array.shape[1:]))

    with pytest.raises(InputChangedError, match="logits has 20 rows, and had 23"):
        growing.run()


@pytest.mark.parametrize(("change", "told"), [(os.unlink, "is gone"), (Path.touch, "was changed")])
def test_a_file_that_is_gone_or_changed_is_refused_and_named(files, change, told):
    for rows in (20, 20):
        files.grow(rows)
        files.run()
    change(files.source / "part-98.parquet")

    with pytest.raises(InputChangedError, match=rf"part-98\.parquet {told} after it was scored"):
        files.run()


@pytest.mark.parametrize("output", ["out.parquet", "out.zarr"])
def test_a_file_that_is_gone_is_ignored_when_told_so_and_new_ones_are_added(tmp_path, output):
    files = Growing(tmp_path / "in.pq", tmp_path / output)
    for rows in (40, 20):
        files.grow(rows)
        files.run()
    (files.source / "part-98.parquet").unlink()
    files.grow(20)

    result = files.run(on_changed="ignore")

    files.require_scored()
    assert result.new_rows == 20
    assert files.run(on_changed="ignore").is_up_to_date


def test_a_replaced_file_is_scored_when_everything_is_to_be_rescored(files):
    for rows in (20, 20):
        files.grow(rows)
        files.run()
    table = pa.table({"id": np.arange(40, 60), "logits": dumps.fixed_lists(LOGITS[40:60])})
    dumps.parquet_file(files.source / "part-98.parquet", table)

    files.run(on_changed="rescore")

    ids = pq.read_table(files.output, partitioning=None)["id"].to_pylist()
    assert sorted(ids) == list(range(20, 60))
    assert [path.name for path in files.output.iterdir()] == ["commit=000001"]
    assert files.commits == 1


def test_row_numbers_count_on(tmp_path):
    files = Growing(tmp_path / "in.pq", tmp_path / "out.parquet")
    for number, rows in enumerate((20, 15)):
        table = pa.table({"logits": dumps.fixed_lists(LOGITS[:rows])})
        dumps.parquet_file(files.source / f"{9 - number}.parquet", table)
        files.run()

    assert sorted(pq.read_table(files.output)["row"].to_pylist()) == list(range(35))


def test_the_summary_says_what_is_new(tmp_path):
    growing = Growing(tmp_path / "in.zarr", tmp_path / "out.zarr")
    growing.grow(103)
    assert softmax_dask("score", growing.source, growing.output).code == 0
    growing.grow(2)

    outcome = softmax_dask("score", growing.source, growing.output)

    assert ", 2 of them new" in outcome.out


class TestSettling:
    """A Parquet file is whole when its footer is there, which is written last."""

    def test_a_file_that_is_still_being_written_waits(self, files):
        files.grow(20)
        files.grow(20)
        part = files.source / "part-97.parquet"
        whole = part.read_bytes()
        part.write_bytes(whole[:-100])

        with pytest.warns(NoteWarning, match=r"part-97\.parquet: is still being written"):
            files.run()

        files.require_scored(20)
        part.write_bytes(whole)
        assert files.run().new_rows == 20
        files.require_scored()

    def test_one_that_is_older_is_an_error(self, files):
        files.grow(20)
        files.grow(20)
        part = files.source / "part-97.parquet"
        part.write_bytes(part.read_bytes()[:-100])
        os.utime(part, (1e9, 1e9))

        outcome = softmax_dask("score", files.source, files.output)

        assert outcome.code == 3
        assert "part-97.parquet: is no whole Parquet file" in outcome.err

    def test_the_seconds_can_be_told(self, files):
        files.grow(20)
        files.grow(20)
        part = files.source / "part-97.parquet"
        part.write_bytes(part.read_bytes()[:-100])

        assert softmax_dask("score", files.source, files.output, "--settle", "0").code == 3

    def test_where_no_file_is_whole_the_command_is_to_be_run_again(self, files):
        files.grow(20)
        part = files.source / "part-98.parquet"
        part.write_bytes(part.read_bytes()[:-100])

        with pytest.raises(SourceNotReadyError, match="none of its 1 files is whole yet"), pytest.warns(NoteWarning):
            files.run()

    def test_a_single_file_does_not_wait(self, tmp_path):
        (tmp_path / "in.parquet").write_bytes(b"PAR1 half")

        assert softmax_dask("score", tmp_path / "in.parquet", tmp_path / "out.zarr").code == 3


def test_the_commits_say_what_they_hold(growing):
    growing.grow(23)
    growing.run()
    growing.grow(7)
    growing.run()

    commits = [json.loads(path.read_text()) for path in sorted(Path(f"{growing.output}.job").glob("commit-*"))]

    assert [(each["plan"]["rows"], each["plan"]["visible_rows"]) for each in commits] == [(23, 0), (30, 23)]
    assert [each["format"] for each in commits] == [1, 1]
