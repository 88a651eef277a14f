"""Files for schedulers: their commands run in an empty environment, and they know our exit codes."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

import softmax_dask
import softmax_dask_pipelines
from softmax_dask_pipelines import errors, sample
from tests.pipelines.command import records

ROOT = Path(__file__).parents[1]
FILES = ROOT / "docs" / "scheduling"
HOME = "/srv/softmax-dask"
BIN = "/usr/local/bin"

TRY_AGAIN = errors.TemporaryError.exit_code
CODES = {
    kind.exit_code
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.PipelineError)
}
FINAL = CODES - {0, TRY_AGAIN}
"""What is the same until somebody has looked."""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the place of a machine's root: the command in its place, our configs, no dump."""
    root = tmp_path_factory.mktemp("machine")
    shutil.copytree(ROOT / "configs", root / "home" / "configs")
    program = root / "bin" / "softmax-dask"
    program.parent.mkdir()
    # The packages under test, wherever another copy is installed; and kernels that are compiled already.
    sources = [str(Path(package.__file__).parents[1]) for package in (softmax_dask, softmax_dask_pipelines)]
    cache = {name: text for name, text in os.environ.items() if name == "NUMBA_CACHE_DIR"}
    program.write_text(
        f"#!{sys.executable}\nimport os, sys\nsys.path[:0] = {sources!r}\nos.environ.update({cache!r})\n"
        "from softmax_dask_pipelines.console import main\nmain()\n"
    )
    program.chmod(0o755)
    return root


@pytest.fixture
def dump(machine: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The dump of yesterday, also where midnight passes meanwhile."""
    monkeypatch.setattr(sample, "ROWS", 2000)
    day = datetime.now(UTC).date() - timedelta(1)
    for each in (day, day + timedelta(1)):
        sample.write_sample(machine / "home" / "dumps" / each.isoformat() / "logits.zarr")
    yield
    for name in ("dumps", "scores"):
        shutil.rmtree(machine / "home" / name, ignore_errors=True)


def text_of(name: str, machine: Path) -> str:
    """A file for a scheduler, on that machine."""
    text = (FILES / name).read_text()
    assert HOME in text
    return text.replace(HOME, str(machine / "home")).replace(BIN, str(machine / "bin"))


def run_in_an_empty_environment(line: str, variables: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    words = ["env", "-i", *(f"{name}={value}" for name, value in variables.items()), "/bin/sh", "-c", line]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)


def require_scored(machine: Path) -> None:
    """One output of yesterday, with its record."""
    (output,) = (machine / "home" / "scores").glob("*.parquet")
    assert pq.read_table(output).num_rows == 2000
    (record,) = records(output)
    assert output.name == f"decisions-{record['date']}.parquet"


def commands(machine: Path) -> dict[str, tuple[str, dict[str, str]]]:
    """Scheduler -> the line of shell that it runs, and the variables that it sets."""
    return {"cron": _of_cron(machine), "systemd": _of_systemd(machine), "kubernetes": _of_kubernetes(machine)}


def _of_cron(machine: Path) -> tuple[str, dict[str, str]]:
    lines = [line for line in text_of("crontab", machine).splitlines() if line and not line.startswith("#")]
    variables = dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))
    (entry,) = [line for line in lines if not re.match(r"\w+=", line)]
    assert "%" not in entry, "cron reads it as the end of the line"
    return entry.split(maxsplit=5)[5], variables


def _of_systemd(machine: Path) -> tuple[str, dict[str, str]]:
    found = _section("softmax-dask-nightly.service", "Service", machine)
    variables = dict(pair.split("=", 1) for pair in shlex.split(found["Environment"]))
    return f"cd {found['WorkingDirectory']} && exec {found['ExecStart']}", variables


def _section(name: str, section: str, machine: Path) -> dict[str, str]:
    block = text_of(name, machine).partition(f"[{section}]\n")[2].partition("\n[")[0]
    return dict(line.split("=", 1) for line in block.splitlines() if line and not line.startswith("#"))


def _of_kubernetes(machine: Path) -> tuple[str, dict[str, str]]:
    (container,) = _pod(machine)["containers"]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    line = f"cd {container['workingDir']} && exec {shlex.join(container['command'])}"
    return line, {"PATH": f"{machine / 'bin'}:/usr/bin:/bin", **variables}


def _job(machine: Path) -> Any:
    return yaml.safe_load(text_of("cronjob.yaml", machine))["spec"]["jobTemplate"]["spec"]


def _pod(machine: Path) -> Any:
    return _job(machine)["template"]["spec"]


@pytest.mark.parametrize("scheduler", ["cron", "systemd", "kubernetes"])
class TestCommands:
    @pytest.mark.usefixtures("dump")
    def test_the_dump_of_yesterday_is_scored_in_silence(self, machine, scheduler):
        line, variables = commands(machine)[scheduler]

        twice = [run_in_an_empty_environment(line, variables) for _ in range(2)]

        assert [(done.returncode, done.stdout, done.stderr) for done in twice] == [(0, "", "")] * 2
        require_scored(machine)

    def test_a_night_without_a_dump_is_to_be_tried_again(self, machine, scheduler):
        line, variables = commands(machine)[scheduler]

        done = run_in_an_empty_environment(line, variables)

        assert (done.returncode, done.stdout) == (TRY_AGAIN, "")
        assert done.stderr.count("\n") == 1
        assert "run the same command again" in done.stderr

    def test_a_variable_that_is_forgotten_is_named(self, machine, scheduler):
        line, variables = commands(machine)[scheduler]

        done = run_in_an_empty_environment(line, {name: text for name, text in variables.items() if name != "SCORES"})

        assert done.returncode in FINAL
        assert "output.path: needs the environment variable SCORES" in done.stderr


class TestCron:
    def test_it_runs_every_hour_of_the_night(self, machine):
        lines = text_of("crontab", machine).splitlines()

        assert [line.split()[:5] for line in lines if "softmax-dask run" in line] == [["15", "2-8", "*", "*", "*"]]


class TestSystemd:
    def test_every_exit_code_but_75_ends_it(self, machine):
        found = _section("softmax-dask-nightly.service", "Service", machine)

        assert found["Restart"] == "on-failure"
        assert set(map(int, found["RestartPreventExitStatus"].split())) == FINAL

    def test_all_attempts_are_before_midnight(self, machine):
        unit = _section("softmax-dask-nightly.service", "Unit", machine)
        pause = _section("softmax-dask-nightly.service", "Service", machine)["RestartSec"]

        assert int(unit["StartLimitBurst"]) * int(pause.removesuffix("min")) <= 12 * 60
        assert int(unit["StartLimitIntervalSec"].removesuffix("h")) >= 12

    @pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
    def test_systemd_finds_no_fault(self, machine, tmp_path):
        names = ["softmax-dask-nightly.service", "softmax-dask-nightly.timer"]
        (tmp_path / names[0]).write_text(text_of(names[0], machine))
        (tmp_path / names[1]).write_text((FILES / names[1]).read_text())

        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in names)],
            capture_output=True,
            text=True,
            check=False,
        )

        assert (done.returncode, [line for line in done.stderr.splitlines() if "softmax-dask" in line]) == (0, [])


class TestKubernetes:
    def test_every_exit_code_but_75_fails_the_job(self, machine):
        rules = _job(machine)["podFailurePolicy"]["rules"]

        (rule,) = [rule for rule in rules if rule["action"] == "FailJob"]
        (container,) = _pod(machine)["containers"]
        assert rule["onExitCodes"]["containerName"] == container["name"]
        assert rule["onExitCodes"]["operator"] == "In"
        assert set(rule["onExitCodes"]["values"]) == FINAL

    def test_a_second_job_does_not_start_and_a_pod_has_time_to_stop(self, machine):
        cron = yaml.safe_load(text_of("cronjob.yaml", machine))

        assert (cron["apiVersion"], cron["kind"]) == ("batch/v1", "CronJob")
        assert cron["spec"]["concurrencyPolicy"] == "Forbid"
        assert _pod(machine)["restartPolicy"] == "Never"  # podFailurePolicy needs it
        assert _pod(machine)["terminationGracePeriodSeconds"] >= 30
        assert _job(machine)["activeDeadlineSeconds"] < 21 * 3600  # midnight comes 21.75 h after 02:15

    def test_the_container_may_use_more_than_the_run(self, machine):
        from dask.utils import parse_bytes

        limit = yaml.safe_load((ROOT / "configs" / "nightly.yaml").read_text())["memory_limit"]
        (container,) = _pod(machine)["containers"]

        assert parse_bytes(container["resources"]["limits"]["memory"] + "B") > parse_bytes(limit)


class RetriedError(Exception):
    """Stands for AirflowException: the task is tried again."""


class FailedError(Exception):
    """Stands for AirflowFailException: it is not."""


@pytest.fixture
def score(machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The function that the task of the DAG calls, with stand-ins for Airflow's names."""
    tasks: list[Any] = []

    def dag(**_: object) -> Any:
        return lambda function: function

    def task(**_: object) -> Any:
        return lambda function: lambda: tasks.append(function)

    stands_in: dict[str, dict[str, Any]] = {
        "airflow": {},
        "airflow.sdk": {"dag": dag, "task": task},
        "airflow.sdk.exceptions": {"AirflowException": RetriedError, "AirflowFailException": FailedError},
        "airflow.timetables": {},
        "airflow.timetables.interval": {"CronDataIntervalTimetable": lambda *_, **__: None},
    }
    for name, content in stands_in.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv("PATH", f"{machine / 'bin'}:/usr/bin:/bin")
    path = tmp_path / "airflow_dag.py"
    path.write_text(text_of(path.name, machine))
    spec = importlib.util.spec_from_file_location("airflow_dag", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.TRY_AGAIN == TRY_AGAIN
    (found,) = tasks
    return found


class TestAirflow:
    @pytest.mark.usefixtures("dump")
    def test_the_dump_of_the_day_of_the_interval_is_scored(self, machine, score):
        score(data_interval_start=datetime.now(UTC) - timedelta(1))

        require_scored(machine)

    def test_a_night_without_a_dump_is_tried_again(self, score, capfd):
        with pytest.raises(RetriedError, match="2026-03-07: not yet"):
            score(data_interval_start=datetime(2026, 3, 7, 2, 15, tzinfo=UTC))

        assert "run the same command again" in capfd.readouterr().err

    @pytest.mark.usefixtures("dump")
    def test_what_stays_as_it_is_fails_at_once(self, machine, score, capfd):
        (machine / "home" / "scores").write_text("in the way")

        with pytest.raises(FailedError, match="exit 2"):
            score(data_interval_start=datetime.now(UTC) - timedelta(1))

        (machine / "home" / "scores").unlink()
        assert "expected a folder" in capfd.readouterr().err

    def test_airflow_loads_it(self, tmp_path):
        pytest.importorskip("airflow.sdk", reason="Airflow is not installed")
        shutil.copy(FILES / "airflow_dag.py", tmp_path)
        program = "from airflow.models import DagBag; bag = DagBag({!r}); print(bag.import_errors, list(bag.dags))"
        settings = {"AIRFLOW_HOME": str(tmp_path / "airflow"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}

        done = subprocess.run(
            [sys.executable, "-c", program.format(str(tmp_path))],
            env=os.environ | settings,
            capture_output=True,
            text=True,
            check=True,
        )

        assert done.stdout.splitlines()[-1] == "{} ['softmax_dask_nightly']"


class TestPage:
    PAGE = (ROOT / "docs" / "scheduling.md").read_text()

    def test_it_lists_every_exit_code_once(self):
        assert sorted(map(int, re.findall(r"^\| (\d+) \|", self.PAGE, re.MULTILINE))) == sorted(CODES)

    def test_it_names_every_file(self):
        assert set(re.findall(r"\(scheduling/([^)]+)\)", self.PAGE)) == {path.name for path in FILES.iterdir()}
