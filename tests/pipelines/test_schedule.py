"""Configs that a scheduler runs: the day that they are about, and sources that are not there yet."""

import json
import os
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from softmax_dask_pipelines import config_schedule, run
from softmax_dask_pipelines.config import read_config
from softmax_dask_pipelines.errors import ConfigError, SourceNotReadyError
from tests.pipelines import dumps
from tests.pipelines.command import end, records, softmax_dask, start, tree

USAGE, DATA, AGAIN = 2, 3, 75

NIGHTLY = """\
source:
  path: "{env:DUMPS}/logits-{date:%Y-%m-%d}.zarr"
output:
  path: "{env:SCORES}/scores-{date:%Y-%m-%d}.parquet"
columns: [label, confidence]
"""


@pytest.fixture
def nightly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config of a dump a day, and where both are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DUMPS", str(tmp_path / "dumps"))
    monkeypatch.setenv("SCORES", "scores")
    (tmp_path / "dumps").mkdir()
    (tmp_path / "nightly.yaml").write_text(NIGHTLY)
    return tmp_path / "nightly.yaml"


@pytest.fixture
def dump(nightly: Path) -> Path:
    """The dump of 2026-03-07."""
    return dumps.zarr_array(nightly.parent / "dumps" / "logits-2026-03-07.zarr", dumps.logits(), chunks=(10, 5))


@pytest.fixture
def clock(monkeypatch):
    """Sets the time."""

    def set_to(text: str) -> None:
        class Clock(datetime):
            @classmethod
            def now(cls, tz=None):
                return datetime.fromisoformat(text).astimezone(tz)

        monkeypatch.setattr(config_schedule, "datetime", Clock)

    return set_to


class TestDate:
    @pytest.mark.usefixtures("dump")
    def test_a_run_is_of_the_day_that_is_given_and_says_so(self, nightly):
        outcome = softmax_dask("run", nightly, "--date", "2026-03-07")

        assert outcome.code == 0, outcome.err
        assert outcome.out.startswith("date         2026-03-07\n")
        assert len(pq.read_table("scores/scores-2026-03-07.parquet")) == 103
        (record,) = records(Path("scores/scores-2026-03-07.parquet"))
        assert (record["date"], record["config"]["date"]) == ("2026-03-07", "2026-03-07")
        assert record["config"]["source"]["path"].endswith("/dumps/logits-2026-03-07.zarr")

    @pytest.mark.usefixtures("dump")
    def test_it_stands_in_what_machines_are_told(self, nightly):
        told = [
            json.loads(softmax_dask(*words, nightly, "--date", "2026-03-07", "--json").out)["date"]
            for words in (["plan"], ["run"], ["validate"])
        ]

        assert told == ["2026-03-07"] * 3

    @pytest.mark.usefixtures("dump")
    def test_python_takes_it_too(self, nightly):
        result = run(nightly, date=date(2026, 3, 7))

        assert result.facts()["rows"] == 103
        assert os.path.isdir("scores/scores-2026-03-07.parquet")

    @pytest.mark.parametrize(
        ("now", "zone", "text", "day"),
        [
            ("2026-03-07T22:30:00+00:00", "UTC", None, "2026-03-07"),
            ("2026-03-07T23:30:00+00:00", "Europe/Berlin", None, "2026-03-08"),
            ("2026-03-07T23:30:00+00:00", "Europe/Berlin", "today", "2026-03-08"),
            ("2026-03-01T02:30:00+00:00", "America/New_York", "yesterday", "2026-02-27"),
            ("2026-03-07T22:30:00+00:00", "UTC", "2024-02-29", "2024-02-29"),
        ],
    )
    def test_it_is_that_of_the_time_zone(self, nightly, clock, now, zone, text, day):
        clock(now)

        assert read_config(str(nightly), [f"timezone={zone}"], date=text).date == day

    def test_the_flag_wins_over_the_file(self, nightly, clock):
        clock("2026-03-07T12:00:00+00:00")
        nightly.write_text(NIGHTLY + "date: yesterday\n")

        days = [read_config(str(nightly), date=text).date for text in (None, "2026-01-01")]

        assert days == ["2026-03-06", "2026-01-01"]

    def test_a_config_without_dates_has_none(self, nightly):
        overrides = ("source.path=in.zarr", "output.path=out.zarr")

        assert read_config(str(nightly), overrides).date is None

    @pytest.mark.parametrize("text", ["2026-02-30", "20260307", "2026-3-7", "tomorrow", "", "2026-03-07T00:00"])
    def test_what_is_no_day_is_refused(self, nightly, text):
        outcome = softmax_dask("run", nightly, "--date", text)

        assert outcome.code == USAGE
        assert outcome.err == f"Error: --date: is {text!r}; expected a day such as 2026-11-26, today or yesterday.\n"

    def test_a_date_that_nothing_depends_on_is_refused(self, nightly):
        outcome = softmax_dask(
            "run", nightly, "--date", "today", "--set", "source.path=a", "--set", "output.path=b.zarr"
        )

        assert outcome.code == USAGE
        assert outcome.err.startswith("Error: --date: is today, but no path of the config depends on it; ")

    @pytest.mark.parametrize("zone", ["Berlin", "CET+1", "../UTC", "", "Europe", "3"])
    def test_a_time_zone_that_is_none_is_refused_with_its_line(self, nightly, zone):
        nightly.write_text(NIGHTLY + f'timezone: "{zone}"\n')

        outcome = softmax_dask("validate", nightly)

        assert outcome.code == USAGE
        assert outcome.err.startswith(f"Error: {nightly}:6: timezone: is {zone!r}; expected a time zone that ")

    def test_a_config_object_has_its_date_already(self, nightly):
        with pytest.raises(ConfigError, match="expected neither of them with a config object"):
            run(read_config(str(nightly)), date="2026-03-07")


class TestVariables:
    @pytest.mark.parametrize("verb", ["run", "plan", "validate"])
    def test_a_variable_that_is_not_set_is_named_with_file_line_and_key(self, nightly, monkeypatch, verb):
        monkeypatch.delenv("SCORES")

        outcome = softmax_dask(verb, nightly)

        assert outcome.code == USAGE
        assert outcome.err.startswith(f"Error: {nightly}:4: output.path: needs the environment variable SCORES, ")

    @pytest.mark.parametrize("value", ["..", "../up", "/srv/../etc", "a*", "x\ty"])
    def test_a_value_that_leads_elsewhere_is_refused_with_its_key(self, nightly, monkeypatch, value):
        monkeypatch.setenv("SCORES", value)
        before = tree(nightly.parent)

        outcome = softmax_dask("run", nightly)

        assert outcome.code == USAGE
        assert outcome.err.startswith(f"Error: {nightly}:4: output.path: takes {value!r} from the environment")
        assert tree(nightly.parent) == before

    @pytest.mark.usefixtures("dump")
    def test_braces_of_a_written_config_stand_for_themselves(self, nightly):
        softmax_dask("score", "dumps/{x}.zarr", "{env:HOME}.zarr", "--write-config", "braces.yaml")

        config = read_config("braces.yaml")

        assert (config.source.path, config.output.path) == ("dumps/{x}.zarr", "{env:HOME}.zarr")

    def test_a_variable_as_shells_write_it_is_a_warning_with_its_line(self, nightly):
        nightly.write_text(NIGHTLY.replace("{env:SCORES}", "$SCORES"))

        outcome = softmax_dask("validate", nightly)

        assert outcome.code == 0
        said = "$SCORES stands for itself; expected {env:SCORES}, if that is meant."
        assert outcome.err == f"Warning: {nightly}:4: output.path: {said}\n"

    def test_what_is_no_path_keeps_its_braces(self, nightly):
        nightly.write_text(NIGHTLY.replace("output:", '  array: "{logits}"\noutput:'))

        assert read_config(str(nightly)).source.array == "{logits}"


def _absent(folder: Path) -> None:
    """Nothing at all."""


def _empty(folder: Path) -> None:
    (folder / "logits-2026-03-07.zarr").mkdir()


def _being_written(folder: Path) -> None:
    (folder / "logits-2026-03-07.zarr" / "_temporary").mkdir(parents=True)


class TestOnMissing:
    """A source that is not there yet."""

    @pytest.mark.parametrize("make", [_absent, _empty, _being_written])
    @pytest.mark.parametrize(
        ("on_missing", "code"), [(None, USAGE), ("error", USAGE), ("retry", AGAIN), ("nothing", 0)]
    )
    @pytest.mark.parametrize("verb", ["run", "plan"])
    def test_it_is_one_line_and_the_code_that_was_asked_for(self, nightly, make, on_missing, code, verb):
        make(nightly.parent / "dumps")
        overrides = [] if on_missing is None else ["--set", f"on_missing={on_missing}"]
        before = tree(nightly.parent)

        outcome = softmax_dask(verb, nightly, "--date", "2026-03-07", *overrides)

        assert outcome.code == code
        line = outcome.out if code == 0 else outcome.err.removeprefix("Error: ")
        assert line.count("\n") == len((outcome.out + outcome.err).splitlines()) == 1
        assert line.startswith(f"{nightly.parent}/dumps/logits-2026-03-07.zarr: ")
        assert tree(nightly.parent) == before

    @pytest.mark.parametrize("format_", [None, "parquet"])
    def test_a_pattern_that_matches_nothing_is_one(self, nightly, format_):
        overrides = ["--set", "source.path=dumps/*.parquet", "--set", f"source.format={format_ or 'null'}"]

        assert softmax_dask("run", nightly, "--set", "on_missing=retry", *overrides).code == AGAIN

    def test_nothing_to_do_is_one_object_for_machines_and_silence_for_quiet(self, nightly):
        flags = ("--set", "on_missing=nothing", "--date", "2026-03-07")

        told, quiet = (softmax_dask("run", nightly, *flags, flag) for flag in ("--json", "--quiet"))

        assert "there is no 'logits-2026-03-07.zarr'" in json.loads(told.out)["nothing_to_do"]
        assert (quiet.code, quiet.out, quiet.err) == (0, "", "")

    def test_nothing_to_do_is_none_in_python(self, nightly):
        assert run(nightly, overrides=["on_missing=nothing"]) is None

    def test_retry_is_an_error_of_its_own_in_python(self, nightly):
        with pytest.raises(SourceNotReadyError, match="run the same command again"):
            run(nightly, overrides=["on_missing=retry"])

    @pytest.mark.parametrize("on_missing", ["retry", "nothing"])
    def test_what_is_there_and_no_dump_is_bad_data_all_the_same(self, nightly, on_missing):
        (nightly.parent / "dumps" / "logits-2026-03-07.zarr").mkdir()
        (nightly.parent / "dumps" / "logits-2026-03-07.zarr" / "cat.png").touch()

        outcome = softmax_dask("run", nightly, "--date", "2026-03-07", "--set", f"on_missing={on_missing}")

        assert outcome.code == DATA

    def test_another_word_is_refused(self, nightly):
        outcome = softmax_dask("validate", nightly, "--set", "on_missing=wait")

        assert outcome.code == USAGE
        assert "on_missing: is 'wait'; expected 'error', 'retry' or 'nothing'" in outcome.err


def test_a_day_passes_between_today_and_yesterday():
    today, yesterday = (config_schedule.day_of(text, UTC) for text in ("today", "yesterday"))

    assert today - yesterday in (timedelta(1), timedelta(0))  # midnight may pass between the two


def test_a_scheduler_that_stops_a_run_gets_75_and_the_record_says_why(tmp_path):
    dumps.zarr_array(tmp_path / "in.zarr", dumps.logits(60_000, 100), chunks=(5000, 100), compressors=None)
    text = "source: {path: in.zarr}\noutput: {path: out.zarr, dtype: float64}\nthreads: 1\n"
    (tmp_path / "run.yaml").write_text(text + "columns: [probabilities, log_probabilities]\n")
    process = start("run", "run.yaml", "--quiet", cwd=tmp_path)
    while not any(tmp_path.glob("out.zarr*/**/*probabilities/c.0.0")):  # the first chunk of a hundred megabytes
        assert process.poll() is None, end(process)

    process.terminate()
    outcome = end(process)

    assert outcome.code == AGAIN
    assert re.fullmatch(r"Error: .*interrupted.*again.*\n", outcome.err)
    (record,) = records(tmp_path / "out.zarr")
    assert (record["outcome"], record["error"]["class"]) == ("failed", "InterruptedRunError")
    assert record["error"]["exit_code"] == AGAIN
