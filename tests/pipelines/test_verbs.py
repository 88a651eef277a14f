"""`validate`, `schema`, `doctor`, `inspect` and `score --write-config`, on real files."""

import json
import os
import re
import sys
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
import zarr

from softmax_dask import kernel_facts
from softmax_dask_pipelines.config import JacobianConfig, MatrixOutputConfig, OutputConfig, ScoreConfig, SourceConfig
from softmax_dask_pipelines.errors import DiskFullError
from tests.pipelines import dumps
from tests.pipelines.command import UNPRIVILEGED, run_alone, softmax_dask, tree

CONFIGS = Path(__file__).parents[2] / "configs"
SCHEMA = CONFIGS / "softmax_dask.schema.json"
MODELINE = "# yaml-language-server: $schema=softmax_dask.schema.json"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """103 rows of 5 classes with ids, targets and class names."""
    return dumps.zarr_group(tmp_path / "logits.zarr", dumps.logits(), chunks=(10, 5))


def _lines(text: str) -> dict[str, str]:
    names_and_texts = (re.split(r"  +", line, maxsplit=1) for line in text.splitlines())
    return {found[0]: found[1] for found in names_and_texts}


def _of_columns(folder: Path, columns: dict[str, Any]) -> Path:
    return dumps.parquet_file(folder / "in.parquet", dumps.parquet_table(columns))


class TestValidate:
    @pytest.fixture
    def config(self, tmp_path: Path) -> Path:
        """Of a source that is not there."""
        (tmp_path / "run.yaml").write_text("source:\n  path: none.zarr\noutput:\n  path: out.zarr\n")
        return tmp_path / "run.yaml"

    def test_a_good_config_is_ok_though_its_source_is_not_there(self, config, tmp_path):
        before = tree(tmp_path)

        outcome = softmax_dask("validate", config)

        assert (outcome.code, outcome.out, outcome.err) == (0, f"{config}: ok\n", "")
        assert tree(tmp_path) == before

    def test_json_is_the_config_with_its_defaults(self, config):
        found = json.loads(softmax_dask("validate", config, "--json", "--set", "threads=3").out)

        assert (found["source"]["path"], found["temperature"], found["threads"]) == ("none.zarr", 1.0, 3)

    def test_a_wrong_value_is_exit_2_with_its_line(self, config):
        config.write_text(config.read_text() + "temperature: -1\n")

        outcome = softmax_dask("validate", config)

        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.startswith(f"Error: {config}:5: temperature: is -1; ")


class TestSchema:
    def test_the_shipped_schema_is_current(self):
        outcome = softmax_dask("schema")

        assert outcome.code == 0
        remedy = "softmax-dask schema > configs/softmax_dask.schema.json"
        assert json.loads(SCHEMA.read_text()) == json.loads(outcome.out), remedy

    def test_two_calls_print_the_same_bytes(self):
        assert run_alone("schema").out == run_alone("schema", env={**os.environ, "PYTHONHASHSEED": "7"}).out

    @pytest.mark.parametrize(
        ("model", "found"),
        [
            (SourceConfig, lambda schema: schema["$defs"]["SourceConfig"]),
            (OutputConfig, lambda schema: schema["$defs"]["OutputConfig"]),
            (MatrixOutputConfig, lambda schema: schema["$defs"]["MatrixOutputConfig"]),
            (ScoreConfig, lambda schema: schema["$defs"]["ScoreConfig"]),
            (JacobianConfig, lambda schema: schema["$defs"]["JacobianConfig"]),
        ],
        ids=["source", "output", "output of matrices", "score", "jacobian"],
    )
    def test_every_key_has_its_description_and_others_are_refused(self, model, found):
        section = found(json.loads(SCHEMA.read_text()))

        described = {key: value["description"] for key, value in section["properties"].items()}
        assert described == {key: field.description for key, field in model.model_fields.items()}
        assert section["additionalProperties"] is False

    def test_memory_may_be_text(self):
        kinds = json.loads(SCHEMA.read_text())["$defs"]["ScoreConfig"]["properties"]["memory_limit"]["anyOf"]

        assert {kind["type"] for kind in kinds} == {"integer", "string", "null"}

    def test_it_takes_each_verb_and_score_without_one(self):
        schema = json.loads(SCHEMA.read_text())

        models = [one["$ref"].rpartition("/")[2] for one in schema["oneOf"]]
        assert models[0] == "ScoreConfig"
        assert {*models[1:]} == {f"{verb.title()}Config" for verb in schema["discriminator"]["mapping"]} - {
            "ScoreConfig",
            "CompactConfig",  # is score, with other columns
        }
        assert ["verb" in schema["$defs"][model]["required"] for model in models] == [
            model != "ScoreConfig" for model in models
        ]

    @pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
    def test_shipped_configs_name_it_in_their_first_line(self, path):
        assert path.read_text().splitlines()[0] == MODELINE


SOON = (
    sys.executable,
    "-c",
    "from softmax_dask_pipelines.cli import main, probe; probe._TURN_S = 0.01; main(prog_name='softmax-dask')",
)
"""The command, with figures of speed that are worth nothing."""


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Here, with figures of speed that are worth nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("softmax_dask_pipelines.cli.probe._TURN_S", 0.01)


@pytest.mark.usefixtures("_soon")
class TestDoctor:
    def test_the_text_says_what_is_installed_and_what_the_machine_can_do(self):
        outcome = softmax_dask("doctor")

        assert (outcome.code, outcome.err) == (0, "")
        for word in ("softmax-dask 0.", "numba ", "zarr ", "cores", "float32 lanes", "CuPy", "free in", "GB/s"):
            assert word in outcome.out

    def test_json_is_one_object(self, monkeypatch, tmp_path):
        monkeypatch.setenv("OMP_NUM_THREADS", "3")

        found = json.loads(softmax_dask("doctor", "--json").out)

        assert found["versions"]["zarr"] == zarr.__version__
        assert found["thread_settings"]["OMP_NUM_THREADS"] == "3"
        assert found["kernels"]["float32_lanes"] in (8, 16)
        assert found["working_directory"] == str(tmp_path)
        assert set(found["gigabytes_per_s"]) == {"memory_read", "kernel", "disk_write", "disk_read"}
        assert min(found["gigabytes_per_s"].values()) > 0

    def test_every_dependency_is_named(self):
        from importlib.metadata import requires

        found = json.loads(softmax_dask("doctor", "--json").out)["versions"]

        needed = [line for line in requires("softmax-dask") or () if "extra ==" not in line]
        names = {line.partition(">")[0].partition("[")[0].lower().replace("_", "-") for line in needed}
        assert names <= {name.lower().replace("_", "-") for name in found}

    def test_nothing_stays_in_the_working_directory(self, tmp_path):
        softmax_dask("doctor")

        assert list(tmp_path.iterdir()) == []

    def test_it_takes_seconds(self, monkeypatch):
        softmax_dask("doctor")  # compiles
        monkeypatch.setattr("softmax_dask_pipelines.cli.probe._TURN_S", 0.2)
        begin = perf_counter()

        softmax_dask("doctor")

        # Four figures of 0.2 s each; the rest is for a machine that does something else besides.
        assert perf_counter() - begin < 5

    def test_a_folder_that_may_not_be_written_is_said_and_no_error(self, tmp_path):
        tmp_path.chmod(0o555)
        try:
            outcome = run_alone("doctor", before=UNPRIVILEGED, program=SOON, cwd=tmp_path)
        finally:
            tmp_path.chmod(0o755)

        assert outcome.code == 0, outcome.err
        assert "disk write cannot be measured" in outcome.out


CUPY = """
__version__ = "14.0.0"

class _Runtime:
    class CUDARuntimeError(RuntimeError):
        pass

    @staticmethod
    def getDeviceCount():
        {device}

class cuda:
    runtime = _Runtime

    @staticmethod
    def is_available():
        return False
"""
NO_DRIVER = 'raise _Runtime.CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")'


class TestDoctorOfCupy:
    """With a stand-in for CuPy, in a process of its own: what it does there, with a device and without."""

    @pytest.mark.parametrize(
        ("source", "said", "devices"),
        [
            (CUPY.format(device="return 2"), "14.0.0", 2),
            (CUPY.format(device="return 0"), "14.0.0", 0),
            (CUPY.format(device=NO_DRIVER), "14.0.0", 0),
            ("import nothing_of_this_name", "not installed", None),
            ('raise ImportError("libcudart.so.12: not found")', "cannot be imported: libcudart.so.12: not found", None),
        ],
        ids=["two devices", "no device", "no driver", "not there", "no CUDA"],
    )
    def test_the_report_says_how_it_stands(self, tmp_path, source, said, devices):
        (tmp_path / "cupy").mkdir()
        (tmp_path / "cupy" / "__init__.py").write_text(source)
        path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])

        outcome = run_alone("doctor", "--json", program=SOON, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path})

        assert (outcome.code, outcome.err) == (0, "")
        found = json.loads(outcome.out)["gpu"]
        assert (found["cupy"], found["devices"]) == (said, devices)

    @pytest.mark.usefixtures("_soon")
    def test_the_text_counts_the_devices(self, monkeypatch):
        module = ModuleType("cupy")
        exec(CUPY.format(device="return 2"), module.__dict__)
        monkeypatch.setitem(sys.modules, "cupy", module)

        found = _lines(softmax_dask("doctor").out)

        assert re.fullmatch(r"CuPy 14\.0\.0, driver .*, 2 devices; backend auto takes the CPU: .*", found["gpu"])


@pytest.mark.usefixtures("_soon")
class TestDoctorOfKernels:
    def test_it_says_what_the_library_says(self):
        found = json.loads(softmax_dask("doctor", "--json").out)["kernels"]

        assert found == asdict(kernel_facts()) | {"cache_is_writable": True}

    def test_without_a_folder_for_the_cache_it_says_what_to_set(self, monkeypatch):
        def refuse() -> None:
            raise RuntimeError("cannot cache function: no locator available")

        monkeypatch.setattr("softmax_dask.kernel_facts", refuse)

        found = _lines(softmax_dask("doctor").out)

        assert found["kernels"] == "none: set NUMBA_CACHE_DIR to a folder that may be written"

    def test_what_it_writes_to_the_disk_goes_through_storage(self, tmp_path, monkeypatch):
        def refuse(path: Path, parts: object) -> int:
            raise DiskFullError(f"{path}: no space left")

        monkeypatch.setattr("softmax_dask_pipelines.storage.put", refuse)

        outcome = softmax_dask("doctor")

        assert outcome.code == 0
        assert "disk write cannot be measured" in outcome.out
        assert list(tmp_path.iterdir()) == []


class TestWriteConfig:
    def test_run_of_the_file_gives_what_score_gives(self, source, tmp_path):
        flags = ("--columns", "label,margin,probabilities", "--temperature", "1.7", "--dtype", "float16", "--id", "id")
        written = softmax_dask("score", source, tmp_path / "b.parquet", *flags, "--write-config", tmp_path / "b.yaml")
        assert (written.code, written.out) == (0, "")
        assert not (tmp_path / "b.parquet").exists()

        softmax_dask("score", source, tmp_path / "a.parquet", *flags)
        outcome = softmax_dask("run", tmp_path / "b.yaml")

        assert outcome.code == 0, outcome.err
        first, second = (pq.read_table(tmp_path / f"{name}.parquet") for name in "ab")
        assert first.drop(["commit"]).equals(second.drop(["commit"]))

    def test_the_file_explains_its_keys(self, source, tmp_path):
        softmax_dask("score", source, tmp_path / "out.zarr", "--write-config", tmp_path / "run.yaml")

        text = (tmp_path / "run.yaml").read_text()
        assert yaml.safe_load(text)["output"] == {"path": str(tmp_path / "out.zarr")}
        assert "# of the whole process, such as 2GiB" in text

    def test_a_file_that_is_there_is_refused_and_untouched(self, source, tmp_path):
        (tmp_path / "run.yaml").write_text("mine")
        before = tree(tmp_path)

        outcome = softmax_dask("score", source, tmp_path / "out.zarr", "--write-config", tmp_path / "run.yaml")

        assert outcome.code == 4
        assert outcome.err.startswith(f"Error: {tmp_path / 'run.yaml'}: is there already; ")
        assert tree(tmp_path) == before

    def test_a_wrong_flag_writes_nothing(self, source, tmp_path):
        flags = ("--temperature", "-1", "--write-config", tmp_path / "run.yaml")

        outcome = softmax_dask("score", source, tmp_path / "out.zarr", *flags)

        assert outcome.code == 2
        assert outcome.err.startswith("Error: --temperature: ")
        assert not (tmp_path / "run.yaml").exists()


class TestInspect:
    def test_it_says_what_score_would_do(self, source):
        found = _lines(softmax_dask("inspect", source).out)

        assert found["score"] == "label, label_name, confidence, nll, correct, by default"
        assert found["partitions"].startswith(("1 of", "2 of", "3 of", "4 of", "5 of", "6 of", "7 of", "8 of"))
        assert found["output"].endswith("before compression")
        assert "re-layout" in found

    def test_json_says_the_same(self, source):
        found = json.loads(softmax_dask("inspect", source, "--json").out)

        assert found["score"]["columns"] == ["label", "label_name", "confidence", "nll", "correct"]
        assert found["score"]["bytes_out"] > 0
        assert found["refusal"] is None
        assert isinstance(found["advice"], list)

    @pytest.mark.parametrize(
        ("dump", "advice"),
        [
            (lambda path: dumps.zarr_array(path / "in.zarr", dumps.logits(), chunks=(103, 2)), "whole rows"),
            (lambda path: dumps.zarr_array(path / "in.zarr", dumps.logits(), chunks=(1, 5)), "more to find"),
            (lambda path: dumps.zarr_array(path / "in.zarr", dumps.logits(), chunks=(103, 5)), "no checksum"),
            (lambda path: _of_columns(path, {"logits": dumps.lists(dumps.logits())}), "fixed-size lists"),
            (lambda path: _of_columns(path, dumps.wide(dumps.logits())), "one column a class"),
            (lambda path: _of_columns(path, {"logits": dumps.lists(dumps.logits().astype(float))}), "float64"),
        ],
        ids=["classes cut", "small chunks", "no checksum", "lists", "wide", "float64"],
    )
    def test_it_advises_a_better_layout(self, tmp_path, dump, advice):
        found = json.loads(softmax_dask("inspect", dump(tmp_path), "--json").out)

        assert any(advice in text for text in found["advice"])

    def test_what_we_write_ourselves_is_good_as_it_is(self, source, tmp_path):
        softmax_dask("score", source, tmp_path / "out.zarr", "--columns", "probabilities")

        assert "good as it is" in softmax_dask("inspect", tmp_path / "out.zarr").out

    def test_it_writes_nothing(self, source, tmp_path):
        before = tree(tmp_path)

        softmax_dask("inspect", source)

        assert tree(tmp_path) == before

    def test_inside_the_dump_it_says_the_same(self, source, monkeypatch):
        outside = softmax_dask("inspect", source).out
        monkeypatch.chdir(source)

        assert softmax_dask("inspect", ".").out.splitlines()[:-4] == outside.splitlines()[:-4]

    @pytest.mark.parametrize(
        ("flag", "value", "said"),
        [
            ("--class-axis", "first", "--class-axis: is 'first'; expected a valid integer"),
            ("--missing-chunks", "maybe", "--missing-chunks: is 'maybe'; expected 'error' or 'fill'."),
            ("--nulls", "maybe", "--nulls: is 'maybe'; expected 'error' or 'abstain'."),
            ("--link", "logit", "--link: is 'logit'; expected 'softmax' or 'sigmoid'."),
        ],
    )
    def test_flags_of_the_source_are_checked(self, source, flag, value, said):
        outcome = softmax_dask("inspect", source, flag, value)

        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.startswith(f"Error: {said}")

    def test_flags_of_the_source_are_taken(self, source):
        found: dict[str, Any] = json.loads(
            softmax_dask("inspect", source, "--target", "id", "--id", "id", "--json").out
        )

        assert found["id"] == "id"

    def test_a_source_that_is_not_there_is_exit_2(self, tmp_path):
        outcome = softmax_dask("inspect", tmp_path / "none.zarr")

        assert outcome.code == 2
        assert "none.zarr" in outcome.err

    def test_a_dump_that_score_would_refuse_is_described_all_the_same(self, source, monkeypatch):
        monkeypatch.setattr("softmax_dask_pipelines.machine.free_memory_bytes", lambda: 1 << 20)

        found = _lines(softmax_dask("inspect", source).out)

        assert found["logits"].startswith("103 rows x 5 classes")
        assert found["score"].startswith("would refuse it: memory_limit is ")
