"""What a config expects is checked before anything is published, and each run leaves a record."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from softmax_dask_pipelines import run
from softmax_dask_pipelines.errors import DiskFullError, ExpectationError
from softmax_dask_pipelines.ledger.manifest import FORMAT, RunRecord
from softmax_dask_pipelines.sources.zarr import ZarrSource
from tests.pipelines import dumps
from tests.pipelines.command import records, softmax_dask, tree

DATA, AGAIN = 3, 75
CONFIG = """\
source: {path: "logits-{date:%Y-%m-%d}.zarr"}
output: {path: "scores-{date:%Y-%m-%d}.parquet"}
date: "2026-03-02"
"""


def _logits_of(labels: list[int], classes: int = 4) -> np.ndarray:
    """Rows whose largest probabilities have these labels; -1 is a row of NaN. Each confidence is the same."""
    logits = np.zeros((len(labels), classes), "float32")
    for row, label in enumerate(labels):
        logits[row, label] = 2.0
        if label < 0:
            logits[row] = np.nan
    return logits


def _dump(day: str, labels: list[int], classes: int = 4) -> None:
    dumps.zarr_array(Path(f"logits-{day}.zarr"), _logits_of(labels, classes), chunks=(2, classes))


def _append(day: str, labels: list[int]) -> None:
    array = zarr.open_array(f"logits-{day}.zarr")
    array.append(_logits_of(labels))


def _run(*expectations: str, day: str = "2026-03-02", more: tuple[str, ...] = ()):
    overrides = [word for text in expectations for word in ("--set", f"expect.{text}")]
    return softmax_dask("run", "nightly.yaml", "--date", day, *overrides, *more)


def _output(day: str) -> Path:
    return Path(f"scores-{day}.parquet")


@pytest.fixture(autouse=True)
def nightly(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("nightly.yaml").write_text(CONFIG)
    _dump("2026-03-02", [0, 0, 1, 2, 3, 3, 3, -1])


CONFIDENCE = float(np.exp(2) / (np.exp(2) + 3))


class TestBounds:
    @pytest.mark.parametrize(
        "text",
        [
            "rows={min: 8}",
            "rows={max: 8}",
            "rows={min: 0, max: 8}",
            "nonfinite_fraction={max: 0.125}",
            "mean_confidence={min: 0.71, max: 0.72}",
            "label_share_shift={max: 0}",
        ],
    )
    def test_what_is_met_is_published(self, text):
        outcome = _run(text)

        assert outcome.code == 0, outcome.err
        assert _output("2026-03-02").is_dir()

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("rows={min: 9}", "expect.rows: is 8; expected at least 9."),
            (
                "rows={min: 1200300, max: 2000000}",
                "expect.rows: is 8; expected at least 1,200,300 and at most 2,000,000.",
            ),
            ("rows={max: 7}", "expect.rows: is 8; expected at most 7."),
            ("nonfinite_fraction={max: 0.12}", "expect.nonfinite_fraction: is 0.125; expected at most 0.12."),
            ("mean_confidence={min: 0.9}", f"expect.mean_confidence: is {CONFIDENCE:.6g}; expected at least 0.9."),
            ("mean_confidence={max: 0.7}", f"expect.mean_confidence: is {CONFIDENCE:.6g}; expected at most 0.7."),
        ],
    )
    def test_what_is_not_met_is_exit_3_in_one_line_and_nothing_is_published(self, text, line):
        outcome = _run(text)

        assert outcome.code == DATA
        assert outcome.err == (
            f"Error: {line} Nothing is published, and what is scored is kept. Look at the input, or change what is "
            "expected and run the command again.\n"
        )
        assert not _output("2026-03-02").exists()

    def test_what_is_scored_is_published_without_another_read_once_less_is_expected(self, monkeypatch):
        assert _run("rows={min: 9}").code == DATA
        monkeypatch.setattr(ZarrSource, "read", lambda *_: 1 / 0)

        outcome = _run("rows={min: 8}")

        assert outcome.code == 0, outcome.err
        assert pq.read_table(_output("2026-03-02")).num_rows == 8

    def test_a_dump_that_is_written_anew_after_that_is_scored_anew(self):
        assert _run("rows={min: 9}").code == DATA
        shutil.rmtree("logits-2026-03-02.zarr")
        _dump("2026-03-02", [0] * 9)

        outcome = _run("rows={min: 9}")

        assert outcome.code == 0, outcome.err
        assert pq.read_table(_output("2026-03-02")).num_rows == 9
        assert {path.name.partition("-")[0] for path in Path(f"{_output('2026-03-02')}.job").iterdir()} == {
            "commit",
            "journal",
            "metrics",
            "runs",
        }

    def test_one_that_was_interrupted_and_not_refused_is_no_reason_to_score_anew(self, monkeypatch):
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("softmax_dask_pipelines.scoring.require_expected", interrupt)
            assert _run("rows={min: 9}").code == AGAIN
        shutil.rmtree("logits-2026-03-02.zarr")
        _dump("2026-03-02", [0] * 9)

        outcome = _run("rows={min: 9}")

        assert outcome.code == DATA
        assert "after it was scored; expected it to stay" in outcome.err

    def test_rows_of_an_increment_that_are_written_anew_after_that_are_scored_anew(self):
        assert _run().code == 0
        _append("2026-03-02", [-1])
        assert _run("nonfinite_fraction={max: 0}").code == DATA
        zarr.open_array("logits-2026-03-02.zarr")[8:] = _logits_of([1])

        outcome = _run("nonfinite_fraction={max: 0}")

        assert outcome.code == 0, outcome.err
        assert pq.read_table(_output("2026-03-02"))["label"].to_pylist()[8:] == [1]

    def test_of_an_increment_only_the_new_rows_count(self):
        assert _run().code == 0
        _append("2026-03-02", [1])

        codes = [_run(f"rows={{min: {rows}}}").code for rows in (2, 1)]

        assert codes == [DATA, 0]
        assert pq.read_table(_output("2026-03-02")).num_rows == 9

    def test_all_that_is_not_met_stands_in_one_line(self):
        outcome = _run("rows={min: 9}", "nonfinite_fraction={max: 0}")

        assert outcome.err.count("\n") == 1
        assert "expect.rows: is 8" in outcome.err
        assert "expect.nonfinite_fraction: is 0.125" in outcome.err

    def test_the_old_output_stays_when_it_was_to_be_replaced(self):
        assert _run().code == 0
        before = tree(_output("2026-03-02"))

        outcome = _run("rows={min: 9}", more=("--replace",))

        assert (outcome.code, tree(_output("2026-03-02"))) == (DATA, before)

    def test_no_decidable_row_meets_no_mean_confidence(self):
        _dump("2026-03-05", [-1, -1])

        outcome = _run("mean_confidence={min: 0}", day="2026-03-05")

        assert outcome.code == DATA
        assert "expect.mean_confidence: is nothing, there being no decidable row; expected at least 0.0." in outcome.err

    def test_a_dump_without_rows_has_no_fraction(self):
        dumps.zarr_array(Path("logits-2026-03-05.zarr"), np.zeros((0, 4), "float32"), chunks=(1, 4))

        assert _run("nonfinite_fraction={max: 0}", day="2026-03-05").code == 0

    def test_python_gets_an_error_of_its_own(self):
        with pytest.raises(ExpectationError, match=r"expect\.rows"):
            run("nightly.yaml", overrides=["expect.rows.min=9"])

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("rows={}", "expect.rows: is {}; expected min, max or both."),
            ("rows={min: 3, max: 2}", "expected a min that is not above max."),
            ("rows={min: 1.5}", "expect.rows.min: is 1.5; expected a valid integer"),
            ("rows={minimum: 3}", "expect.rows.minimum: is no key; expected one of min, max."),
            ("row={min: 3}", "expect.row: is no key; expected one of rows, nonfinite_fraction, "),
            ("nonfinite_fraction={max: 5}", "expect.nonfinite_fraction.max: is 5; expected less than or equal to 1."),
            ("mean_confidence={min: .nan}", "expect.mean_confidence.min: is nan; expected "),
            (
                "label_share_shift=0.1",
                "expect.label_share_shift: is 0.1; expected a section with keys of its own, such as max:.",
            ),
            ("rows=1000", "expect.rows: is 1000; expected a section with keys of its own, such as min:."),
        ],
    )
    def test_what_cannot_be_expected_is_refused(self, text, message):
        outcome = _run(text)

        assert outcome.code == 2
        assert message in outcome.err


class TestShift:
    """Half the sum of the differences of the shares: 0 where they are equal, 1 where no label is the same."""

    @pytest.mark.parametrize(
        ("before", "after", "distance"),
        [
            ([0, 1, 2, 3], [3, 2, 1, 0, 0, 1, 2, 3], 0),
            ([0, 0], [1, 3], 1),
            ([0, 0, 0, 1], [0, 1, 2, 2, -1], 0.5),
            ([0, 1], [0, 0, 1, 1, 1, 1, 1, 1], 0.25),
        ],
    )
    def test_it_is_the_total_variation_distance(self, before, after, distance):
        _dump("2026-03-03", before)
        _dump("2026-03-04", after)
        assert _run(day="2026-03-03").code == 0

        found = json.loads(_run("label_share_shift={max: 1}", day="2026-03-04", more=("--json",)).out)

        assert found["label_share_shift"] == pytest.approx(distance)

    def test_one_that_is_too_large_names_both_runs_figures_and_the_bound(self):
        _dump("2026-03-03", [1, 1])
        assert _run().code == 0
        (previous,) = records(_output("2026-03-02"))

        outcome = _run("label_share_shift={max: 0.5}", day="2026-03-03")

        assert outcome.code == DATA
        assert outcome.err.startswith(
            f"Error: expect.label_share_shift: is 0.857143 from run {previous['run']} of 2026-03-02; "
            "expected at most 0.5."
        )
        assert not _output("2026-03-03").exists()

    def test_the_summary_says_what_was_compared(self):
        _dump("2026-03-03", [1, 1])

        first = _run("label_share_shift={max: 1}")
        second = _run("label_share_shift={max: 1}", day="2026-03-03")

        assert "\nlabel shift  not compared: no earlier run of scores-*.parquet\n" in first.out
        assert re.search(r"\nlabel shift  0\.857143 of the rows, from run 2\S+ of 2026-03-02\n", second.out)

    def test_it_is_from_the_last_earlier_day_whenever_that_was_run(self):
        for day, labels in (("2026-03-05", [3]), ("2026-03-01", [1]), ("2026-03-03", [2])):
            _dump(day, labels)
            assert _run(day=day).code == 0
        _dump("2026-03-04", [2])

        assert _run("label_share_shift={max: 0}", day="2026-03-04").code == 0

    def test_without_dates_it_is_from_the_last_run_of_the_output(self):
        overrides = ("--set", "date=null", "--set", "source.path=logits-2026-03-02.zarr")
        overrides += ("--set", "output.path=out.zarr", "--set", "expect.label_share_shift.max=0", "--replace")
        assert softmax_dask("run", "nightly.yaml", *overrides).code == 0
        _dump("2026-03-03", [0])
        changed = [word.replace("03-02", "03-03") for word in overrides]

        same = softmax_dask("run", "nightly.yaml", *overrides)
        other = softmax_dask("run", "nightly.yaml", *changed)

        assert (same.code, other.code) == (0, DATA)

    def test_a_run_that_was_not_published_is_not_compared_with(self):
        _dump("2026-03-03", [1])
        _dump("2026-03-04", [0, 0, 1, 2, 3, 3, 3])
        assert _run().code == 0
        assert _run("label_share_shift={max: 0.1}", day="2026-03-03").code == DATA

        assert _run("label_share_shift={max: 0.1}", day="2026-03-04").code == 0

    def test_other_outputs_can_be_named(self):
        _dump("2026-03-03", [1])
        softmax_dask("score", "logits-2026-03-03.zarr", "golden.parquet")
        assert _run().code == 0

        outcome = _run("label_share_shift={max: 0.9, previous: golden.parquet}", day="2026-03-03")

        assert outcome.code == 0, outcome.err
        assert "\nlabel shift  0 of the rows, from run " in outcome.out

    def test_another_number_of_classes_is_refused(self):
        _dump("2026-03-03", [1], classes=5)
        assert _run().code == 0

        outcome = _run("label_share_shift={max: 1}", day="2026-03-03")

        assert outcome.code == DATA
        assert ": it has 4 classes, and this run 5. Nothing is published," in outcome.err

    def test_no_decidable_row_has_no_shift(self):
        _dump("2026-03-03", [-1])
        assert _run().code == 0

        outcome = _run("label_share_shift={max: 1}", day="2026-03-03")

        assert outcome.code == DATA
        assert ": no row of this run is decidable. " in outcome.err

    def test_of_many_classes_it_is_exact_between_groups(self):
        _dump("2026-03-03", [299, 43, 0, 0], classes=300)  # 299 and 43 have one remainder
        _dump("2026-03-04", [1, 43, 43, 0], classes=300)
        assert _run(day="2026-03-03").code == 0

        found = json.loads(_run("label_share_shift={max: 1}", day="2026-03-04", more=("--json",)).out)

        assert found["label_share_shift"] == 0.25


class TestManifest:
    def test_it_records_what_was_told_found_and_done(self):
        assert _run("rows={min: 1}").code == 0

        (record,) = records(_output("2026-03-02"))

        assert record["format"] == FORMAT
        assert (record["outcome"], record["error"], record["date"]) == ("published", None, "2026-03-02")
        assert record["config"]["expect"]["rows"] == {"min": 1, "max": None}
        assert record["source"] == {
            "path": str(Path("logits-2026-03-02.zarr").absolute()),
            "format": "zarr",
            "logits": "",
            "rows": 8,
            "classes": 4,
            "dtype": "float32",
            "stored_bytes": record["source"]["stored_bytes"],
        }
        assert record["result"].keys() >= {"partitions", "bytes_in", "bytes_written", "seconds", "top_labels"}
        assert record["result"]["label_groups"] == [2, 1, 1, 3]
        assert record["versions"].keys() >= {"python", "softmax-dask"}
        assert record["started"] <= record["ended"]

    def test_a_run_that_fails_is_recorded_with_its_error_and_figures(self):
        outcome = _run("rows={min: 9}")

        (record,) = records(_output("2026-03-02"))
        assert record["outcome"] == "failed"
        assert record["error"]["class"] == "ExpectationError"
        assert record["error"]["exit_code"] == DATA
        assert outcome.err == f"Error: {record['error']['message']}\n"
        assert record["result"]["rows"] == 8

    def test_a_bug_is_recorded_as_one(self, monkeypatch):
        monkeypatch.setattr("softmax_dask_pipelines.scoring.require_expected", lambda *_: 1 / 0)

        assert _run().code == 1

        (record,) = records(_output("2026-03-02"))
        assert (record["error"]["class"], record["error"]["exit_code"]) == ("ZeroDivisionError", 1)

    def test_what_is_refused_before_it_begins_is_not_recorded(self):
        assert _run().code == 0
        before = records(_output("2026-03-02"))

        codes = [_run(more=("--set", "temperature=2")).code, _run(day="2026-01-01").code]

        assert codes == [4, 2]
        assert records(_output("2026-03-02")) == before
        assert not Path("scores-2026-01-01.parquet.job").exists()

    def test_where_it_cannot_be_written_the_error_of_the_run_is_told(self, monkeypatch):
        def full(*_):
            raise DiskFullError("no space")

        monkeypatch.setattr(RunRecord, "_write", full)

        outcome = _run("rows={min: 9}")

        assert outcome.code == DATA
        assert outcome.err.startswith("Error: expect.rows: is 8")

    @pytest.mark.parametrize("found", [0, 2, "x"])
    def test_one_of_another_format_is_left_alone_and_not_compared_with(self, found):
        _dump("2026-03-03", [1])
        assert _run().code == 0
        (path,) = Path(f"{_output('2026-03-02')}.job", "runs").iterdir()
        changed = json.dumps({**json.loads(path.read_text()), "format": found})
        path.write_text(changed)

        outcome = _run("label_share_shift={max: 0}", day="2026-03-03")

        assert outcome.code == 0
        assert outcome.err == (
            f"Warning: {path}: is a record of format {found}, and this program reads {FORMAT}; it is left alone, and "
            "not compared with.\n"
        )
        assert path.read_text() == changed

    @pytest.mark.parametrize(
        "text", ["", "[]", "{", '{"format": 1, "outcome": "published", "result": {"label_groups": 3}}']
    )
    def test_what_is_no_record_does_not_end_a_run(self, text):
        folder = Path(f"{_output('2026-03-01')}.job", "runs")
        folder.mkdir(parents=True)
        (folder / "x.json").write_text(text)

        assert _run("label_share_shift={max: 0}").code == 0
