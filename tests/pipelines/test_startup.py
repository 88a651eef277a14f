"""What is loaded, and how long it takes, before anything happens. Each in a process of its own."""

import json
import subprocess
import sys

import pytest

from benchmarks.startup import HELP, IMPORT_DASK, medians_s
from tests.pipelines import dumps

HEAVY = ("numba", "dask.array", "zarr", "pyarrow", "distributed", "pandas", "pydantic", "cupy", "xarray")

QUIET = "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n    "
HELP_OF = QUIET + "from softmax_dask_pipelines.cli import main; main({arguments})"


def loaded_by(code: str, *arguments: object) -> list[str]:
    """Which of the heavy modules a fresh process has loaded after `code`."""
    report = f"\nimport json, sys; print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    line = [sys.executable, "-W", "error", "-c", code + report, *(str(argument) for argument in arguments)]
    process = subprocess.run(line, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    loaded: list[str] = json.loads(process.stdout)
    return loaded


@pytest.fixture
def dump(tmp_path):
    return dumps.zarr_group(tmp_path / "in.zarr", dumps.logits(), chunks=(10, 5))


@pytest.fixture
def dumps_of_both_formats(dump, tmp_path):
    table = dumps.parquet_table({"logits": dumps.fixed_lists(dumps.logits())})
    return {"zarr": dump, "parquet": dumps.parquet_file(tmp_path / "in.parquet", table)}


def test_importing_the_pipelines_loads_nothing_heavy():
    assert loaded_by("import softmax_dask_pipelines") == []


@pytest.mark.parametrize("verb", [[], ["score"], ["run"], ["plan"], ["inspect"], ["demo"]], ids=lambda verb: verb or "")
def test_help_loads_nothing_heavy(verb):
    code = HELP_OF.format(arguments=[*verb, "--help"])

    assert loaded_by(code) == []


def test_the_version_loads_nothing_heavy():
    assert loaded_by(HELP_OF.format(arguments=["--version"])) == []


def test_help_takes_at_most_half_of_an_import_of_dask_array():
    help_s, dask_s = medians_s(HELP, IMPORT_DASK, turns=3)

    assert help_s <= dask_s / 2


def test_the_runner_does_without_distributed():
    assert "distributed" not in loaded_by("import softmax_dask_pipelines.runner")


@pytest.mark.parametrize(("source", "output"), [("zarr", "zarr"), ("zarr", "parquet"), ("parquet", "parquet")])
def test_scoring_by_the_command_line_does_without_what_is_heavy_and_of_others(
    dumps_of_both_formats, tmp_path, source, output
):
    code = "import sys\n" + QUIET + "from softmax_dask_pipelines.cli import main; main(['score', *sys.argv[1:]])"
    columns = "label,label_name,correct" if source == "zarr" else "label,correct"

    found = loaded_by(code, dumps_of_both_formats[source], tmp_path / f"out.{output}", "--columns", columns)

    assert (tmp_path / f"out.{output}").exists()
    assert "numba" in found
    assert not {"distributed", "dask.array", "xarray", "pandas"} & set(found)


def test_building_a_dask_graph_of_a_dump_loads_no_kernels(dump):
    code = (
        "import sys\n"
        "from softmax_dask import decisions, softmax\n"
        "from softmax_dask_pipelines import open_logits\n"
        "logits = open_logits(sys.argv[1])\n"
        "softmax(logits), decisions(logits)"
    )

    found = loaded_by(code, dump)

    assert "dask.array" in found
    assert "numba" not in found
